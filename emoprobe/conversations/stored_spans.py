"""Find the spans of messages and answers in the stored tokens of a conversation."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from emoprobe.conversations.rendering import DEFAULT_DATE, PromptError, Renderer, template_arguments
from emoprobe.results.activation_folder import TokenSpan
from emoprobe.results.trajectory import CALLS, AgentState, EarlierTurn

DAY = datetime.timedelta(days=1)


def stored_spans(
    renderer: Renderer, state: AgentState
) -> tuple[dict[str, TokenSpan | None], dict[int, TokenSpan | None]]:
    """Token spans of system text, prefix and question in the prompt of a trajectory, and of the answers by turn.

    The last answer follows the prompt; the earlier ones are where the chat template puts them, without the thoughts
    that it leaves out, and with the token that ended them. Of a single conversation there are no turns.

    Its messages are rendered with the recorded date. Version 0.2 recorded none and rendered with the server's clock, so
    that the days around the start of the request are tried. If no rendering gives the stored tokens (the chat template
    is another by now), the parts are searched for in the text of the tokens.

    Raises:
        PromptError: the tokenizer cannot locate anything.
    """
    ids, messages = state.prompt_token_ids or [], state.request.get("messages") or []
    marks = {} if state.message_spans is None or not messages else state.message_spans.values()
    earlier = {f"turn{turn.number}": turn for turn in state.earlier_turns or ()}
    said: dict[int, TokenSpan | None] = {}
    for name, turn in earlier.items():
        if turn.finish_reason == CALLS:
            said[turn.number] = _found(ids, turn.completion_token_ids or [], turn.prompt_token_ids or [])
            continue
        start, end = 0 if turn.thought is None else turn.thought.answer, len(messages[turn.answer]["content"])
        marks[name] = (turn.answer, start, end) if start < end else None

    def divided(spans: dict[str, TokenSpan | None]) -> tuple[dict[str, TokenSpan | None], dict[int, TokenSpan | None]]:
        answers = {turn.number: _ended(spans.get(name), turn, ids) for name, turn in earlier.items()} | said
        if state.turn is not None:
            answers[state.turn] = (len(ids), len(ids) + len(state.completion_token_ids or []))
        return {name: span for name, span in spans.items() if name not in earlier}, answers

    arguments = template_arguments(state.request)
    # Version 0.2 closed the turn of an assistant's message that the opening ended with.
    turns = (True, False) if messages and messages[-1].get("role") == "assistant" else (False,)
    for date in _dates(state):
        for continued in turns:
            try:
                prompt = renderer.render(
                    messages, arguments, date, marks, continued=continued, suffix=state.prompt_suffix or ""
                )
            except PromptError:
                continue
            if prompt.token_ids == ids:
                return divided(prompt.spans)
    return divided(renderer.spans_in(ids, messages, marks))


def _found(ids: list[int], said: list[int], before: list[int]) -> TokenSpan | None:
    """The span of an answer with tool calls, with its last token; None where the template writes it in another way.

    The template renders such an answer from its parts. It is searched for from the place on at which its prompt and the
    last one begin to differ, which may be before its end: a template leaves out empty thoughts of earlier answers.
    """
    same = next((at for at, pair in enumerate(zip(ids, before, strict=False)) if pair[0] != pair[1]), len(before))
    for start in range(same, len(ids) - len(said) + 1):
        if said and ids[start : start + len(said)] == said:
            return start, start + len(said)
    return None


def _ended(span: TokenSpan | None, turn: EarlierTurn, ids: list[int]) -> TokenSpan | None:
    """The span of an earlier answer with its last token, where that is the one that ends a turn in the prompt too."""
    if span is None or turn.finish_reason != "stop" or not turn.completion_token_ids:
        return span
    return (span[0], span[1] + (ids[span[1] : span[1] + 1] == turn.completion_token_ids[-1:]))


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
