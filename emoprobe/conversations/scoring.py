"""Log-probabilities of given tokens: requests, checks of their answers, and the probability of the gold answer.

A model server is sent a prompt and a text after it, and returns the log-probability of every token (teacher forcing).
vLLM and the capture server take the same request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from emoprobe.config.science.graders import ChoiceGrader, LogprobGrader
from emoprobe.conversations.responses import ResponseError
from emoprobe.conversations.thoughts import ThoughtMarkers
from emoprobe.graders.answers import LETTERS
from emoprobe.models.tokens import Encode
from emoprobe.results.trajectory import AgentState

Check = Callable[[Any], dict[str, Any]]


def score_body(model: str, ids: list[int]) -> dict[str, Any]:
    """Return the body of a request for the log-probabilities of tokens."""
    return {"model": model, "prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 0}


def check_scored(count: int) -> Check:
    """Return a check of an answer: it must have a log-probability of each of so many tokens but the first."""

    def check(answer: Any) -> dict[str, Any]:
        try:
            known = answer["choices"][0]["logprobs"]["token_logprobs"]
        except (KeyError, IndexError, TypeError):
            raise ResponseError(f"the answer lacks log-probabilities of its prompt: {str(answer)[:200]}") from None
        finite = isinstance(known, list) and all(isinstance(one, float) and math.isfinite(one) for one in known[1:])
        if not finite or len(known) != count:
            raise ResponseError(f"the answer does not have the log-probabilities of {count} tokens")
        return dict(answer)

    return check


def log_probabilities(answer: dict[str, Any], first: int) -> list[float]:
    """Return those of the tokens from `first` on, in nats, out of an answer that `check_scored` accepted."""
    values: list[float] = answer["choices"][0]["logprobs"]["token_logprobs"][first:]
    return values


@dataclass(frozen=True)
class ForcedForm:
    """One form of an answer: the tokens of lead and form, of which the first `given` do not count."""

    text: str
    tokens: list[int]
    given: int


def forced_forms(encode: Encode, settings: LogprobGrader, answer: str, before: str = "") -> list[ForcedForm]:
    """Return the forms of a gold answer whose probabilities add up to p(gold).

    Lead and form are encoded together, as a model writes them. A form whose tokens begin with those of another is left
    out: its probability is part of the other's.

    Args:
        encode: the model's tokenizer.
        settings: lead and forms.
        answer: the gold answer.
        before: text between the context and the lead.

    Raises:
        ValueError: the tokenizer joins lead and form, so that no token is the form's alone.
    """
    texts = [form.replace("{answer}", answer) for form in settings.gold]
    forms = _encoded(encode, before + settings.lead, texts, "logprob")
    kept: list[ForcedForm] = []
    for form in sorted(forms, key=lambda form: len(form.tokens)):
        if not any(form.tokens[: len(other.tokens)] == other.tokens for other in kept):
            kept.append(form)
    return sorted(kept, key=forms.index)


def forced_options(
    encode: Encode, settings: ChoiceGrader, options: Sequence[str], before: str = ""
) -> list[ForcedForm]:
    """Return the options of a multiple-choice question in their order, encoded as the forms of a gold answer are.

    Args:
        encode: the model's tokenizer.
        settings: lead and form of an option.
        options: their texts.
        before: text between the context and the lead.

    Raises:
        ValueError: the tokenizer joins lead and option, so that no token is the option's alone.
    """
    texts = [
        settings.option.replace("{letter}", letter).replace("{option}", option.strip())
        for letter, option in zip(LETTERS, options, strict=False)
    ]
    return _encoded(encode, before + settings.lead, texts, "choice")


def _encoded(encode: Encode, lead: str, texts: Sequence[str], grader: str) -> list[ForcedForm]:
    alone, *whole = encode([lead, *(lead + text for text in texts)])
    forms = []
    for text, tokens in zip(texts, whole, strict=True):
        given = next((at for at, token in enumerate(alone) if tokens[at : at + 1] != [token]), len(alone))
        if given == len(tokens):
            raise ValueError(f"the form {text!r} adds no token to the lead {lead!r}; change graders.{grader}")
        forms.append(ForcedForm(text, tokens, given))
    return forms


def answer_context(state: AgentState, markers: ThoughtMarkers | None) -> tuple[list[int], str] | None:
    """Return the tokens that an answer follows, and the text between them and the answer; None where there is none.

    These are the tokens of the prompt or, where the model thought, those up to the end of the thought.

    Args:
        state: of a trajectory that was answered, with token ids.
        markers: of the model's thoughts.
    """
    prompt, completion = state.prompt_token_ids or [], state.completion_token_ids or []
    if state.thought is None or markers is None:
        return prompt, ""
    place = markers.divide(completion, opened=True).answer
    if state.thought.ended is None or place is None:
        return None
    return prompt + completion[:place], markers.family.closing.rpartition(markers.family.answer)[2]


def joined(logs: Sequence[float]) -> float:
    """Return the logarithm of the sum of probabilities of which these are the logarithms."""
    largest = max(logs)
    return min(0.0, largest + math.log(math.fsum(math.exp(one - largest) for one in logs)))
