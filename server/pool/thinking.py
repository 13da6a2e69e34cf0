"""Ask for a completion whose thought may use no more than a budget of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from emoprobe.conversations.rendering import RenderedPrompt, Renderer
from emoprobe.conversations.requests import continued_seed
from emoprobe.conversations.responses import BUDGET_REACHED, Delivery
from server.pool.fleet import Fleet, ServerDemand

Check = Callable[[Any], dict[str, Any]]


async def deliver_within_budget(
    fleet: Fleet,
    asked: ServerDemand,
    prompt: RenderedPrompt,
    renderer: Renderer,
    budget: int | None,
    check_of: Callable[[list[int]], Check],
) -> tuple[dict[str, Any], Delivery]:
    """Have a request answered: in two where there is a budget, the thought up to it and the rest of the completion.

    The first request ends where a thought that begins at once has used up its budget. If the model still thinks there,
    the thought is cut at its budget and closed by the markers of its family. The second request continues the tokens.
    Both are made of nothing but the configuration and the tokens before them, so that they are the same whenever the
    completion is made again, and with every kind of server. `thinking_token_budget` of vLLM counts otherwise, needs
    options of the server, and is not known to others.

    Args:
        fleet: the servers.
        asked: the request for the whole completion.
        prompt: its prompt.
        renderer: the model's.
        budget: tokens of the longest thought; None: no limit.
        check_of: from a prompt to the check of its answer.

    Raises:
        FleetDownError, GaveUpError, RefusedError: see `Fleet.deliver`.
    """
    markers = renderer.markers
    if budget is None or markers is None:
        return await fleet.deliver(asked)
    most: int = asked.body["max_tokens"]
    first_length = min(most, budget + (0 if prompt.in_thought else len(markers.begin)))
    first, delivery = await fleet.deliver(replace(asked, body=asked.body | {"max_tokens": first_length}))
    choice = first["choices"][0]
    if choice["finish_reason"] == "stop" or first_length == most:
        return first, delivery
    begun, reached = list(choice["token_ids"]), False
    divided = markers.divide(begun, opened=prompt.in_thought)
    if divided.answer is None and divided.thought is not None:
        closing = renderer.vocabulary.encode(markers.family.closing, False)[0]
        begun, reached = begun[: divided.thought[0] + budget] + list(closing), True
    if len(begun) >= most:
        return first, delivery
    ids = prompt.token_ids + begun
    body = asked.body | {"prompt": ids, "max_tokens": most - len(begun), "seed": continued_seed(asked.body["seed"])}
    if "ndif" in body:  # what is edited are the tokens of the answer, those of the thought included
        body["ndif"] = body["ndif"] | {"prompt_tokens": len(prompt.token_ids)}
    rest, ending = await fleet.deliver(replace(asked, body=body, check=check_of(ids)))
    return _joined(first, rest, begun, renderer.plain(begun), reached=reached), _both(delivery, ending)


def _joined(
    first: dict[str, Any], rest: dict[str, Any], begun: Sequence[int], text: str, *, reached: bool
) -> dict[str, Any]:
    """One response out of two: that of the rest, whose completion begins with these tokens."""
    choice = rest["choices"][0]
    tokens = [*begun, *choice["token_ids"]]
    prompt = first["choices"][0]["prompt_token_ids"]
    whole = choice | {"text": text + choice["text"], "token_ids": tokens, "prompt_token_ids": prompt}
    if reached:
        whole[BUDGET_REACHED] = True
    counts = {"prompt_tokens": len(prompt), "completion_tokens": len(tokens), "total_tokens": len(prompt) + len(tokens)}
    return rest | {"choices": [whole], "usage": rest["usage"] | counts}


def _both(first: Delivery, rest: Delivery) -> Delivery:
    """Return how both parts came about; the worker is that of the second."""
    return replace(
        rest,
        attempts=[*first.attempts, *rest.attempts],
        started=first.started,
        seconds=first.seconds + rest.seconds,
    )
