"""Locate the parts of a stored prompt, whose tokens are the truth, whatever its messages are rendered to today."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from emoprobe.conversations.rendering import DEFAULT_DATE, PromptError, Renderer
from emoprobe.results.activation_folder import TokenSpan
from emoprobe.results.trajectory import AgentState

DAY = datetime.timedelta(days=1)


def stored_spans(renderer: Renderer, state: AgentState) -> dict[str, TokenSpan | None]:
    """Token spans of system text, prefix and question in the prompt of a trajectory, where it has them.

    Its messages are rendered with the recorded date. Version 0.2 recorded none and rendered with the server's clock, so
    that the days around the start of the request are tried. If no rendering gives the stored tokens (the chat template
    is another by now), the parts are searched for in the text of the tokens.

    Raises:
        PromptError: the tokenizer cannot locate anything.
    """
    ids, messages = state.prompt_token_ids or [], state.request.get("messages") or []
    marks = {} if state.message_spans is None or not messages else state.message_spans.values()
    arguments = state.request.get("chat_template_kwargs")
    # Version 0.2 closed the turn of an assistant's message that the opening ended with.
    turns = (True, False) if messages and messages[-1].get("role") == "assistant" else (False,)
    for date in _dates(state):
        for continued in turns:
            try:
                prompt = renderer.render(messages, arguments, date, marks, continued=continued)
            except PromptError:
                continue
            if prompt.token_ids == ids:
                return prompt.spans
    return renderer.spans_in(ids, messages, marks)


def _dates(state: AgentState) -> Iterator[datetime.date | None]:
    """Dates with which the prompt may have been rendered; None stands for a template's default."""
    if state.date is not None:
        recorded = datetime.date.fromisoformat(state.date)
        yield from (None, recorded) if recorded == DEFAULT_DATE else (recorded,)
        return
    yield None
    if state.timing.started is not None:
        day = datetime.datetime.fromisoformat(state.timing.started).date()  # UTC; servers go by their zone
        yield from (day, day - DAY, day + DAY)
