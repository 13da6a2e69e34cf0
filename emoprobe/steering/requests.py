"""What a capture server is asked for a steered trajectory and for its scores, and how its answers are read."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emoprobe.conversations import scoring
from emoprobe.conversations.responses import ResponseError, check_response
from emoprobe.results.layout import Layout
from emoprobe.results.trajectory import AgentState
from emoprobe.steering.grid import SteeringEdit

KEY = "direction"
Check = Callable[[Any], dict[str, Any]]


class ChangedDirectionError(ValueError):
    """A direction's file that has changed since it was asked for."""


def edit_body(edit: SteeringEdit, layout: Layout, root: Path) -> dict[str, Any]:
    """An entry of `ndif.steering`. The hash of the direction's file goes along, so that no other one can be applied.

    Args:
        edit: what is done.
        layout: where the direction lies.
        root: the server's root, which the file's path is relative to.

    Raises:
        OSError: the file cannot be read.
    """
    path = layout.direction(edit.direction)
    return {
        "file": str(path.relative_to(root)),
        "key": KEY,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "layers": list(edit.layers),
        "operation": edit.operation,
        "dose": edit.dose,
        "phase": edit.phase,
    }


def with_rows(steering: list[dict[str, Any]], root: Path) -> list[dict[str, Any]]:
    """The same edits for a server that shares no disk: with what their files hold for their layers.

    Args:
        steering: edits as `edit_body` makes them.
        root: the folder that their files' paths are relative to.

    Raises:
        OSError: a file cannot be read.
        ChangedDirectionError: a file is no longer the one that is asked for.
    """
    return [edit | _rows(root / edit["file"], edit["sha256"], tuple(sorted(set(edit["layers"])))) for edit in steering]


def _rows(path: Path, sha256: str, layers: tuple[int, ...]) -> dict[str, Any]:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ChangedDirectionError(f"{path} is another direction than the trajectory was steered along; run again")
    from safetensors.numpy import load  # it brings NumPy, which the pool does without

    tensors = load(content)
    rows, lengths = tensors[KEY][list(layers)], tensors[f"{KEY}.norm"][list(layers)]
    return {
        "rows": base64.b64encode(rows.astype("<f4").tobytes()).decode("ascii"),
        "lengths": [float(length) for length in lengths],
    }


def steering_of(state: AgentState) -> list[dict[str, Any]]:
    """The edits that a trajectory was asked for."""
    edits: list[dict[str, Any]] = (state.request.get("ndif") or {}).get("steering") or []
    return edits


def edited_tokens(state: AgentState) -> int | None:
    """To how many tokens of a trajectory its edits were applied; None where no server answered."""
    if state.error is not None:
        return None
    return sum(_tokens(entry) for entry in (state.response.get("ndif") or {}).get("steering") or [])


def check_steered(steering: list[dict[str, Any]], prompt_ids: list[int]) -> Check:
    """A check of a completion of a prompt that was asked for under some edits: it must echo each."""

    def check(answer: Any) -> dict[str, Any]:
        response = check_response(answer, prompt_ids)
        _check_echo(response, steering)
        return response

    return check


def check_scored(count: int, steering: list[dict[str, Any]], kl: int = 0) -> Check:
    """A check of scores: as of those without edits, and an echo of each edit; where they are compared, `kl` divergences
    and log-probabilities without the edits.
    """
    check_tokens = scoring.check_scored(count)

    def check(answer: Any) -> dict[str, Any]:
        scored = check_tokens(answer)
        try:
            divergences = answer["ndif"]["kl"] if kl else []
            without = answer["ndif"]["unedited"] if kl else []
        except (KeyError, TypeError):
            raise ResponseError(f"the answer does not compare {kl} tokens: {str(answer)[:200]}") from None
        if len(divergences) != kl or not all(map(math.isfinite, [*divergences, *without])) or len(without) < kl:
            raise ResponseError(f"the answer does not compare {kl} tokens: {str([divergences, without])[:200]}")
        _check_echo(answer, steering)
        return scored

    return check


def score_body(
    model: str, ids: list[int], prompt_tokens: int, steering: list[dict[str, Any]], kl: int = 0
) -> dict[str, Any]:
    """The body of a request for the log-probabilities of tokens, under some edits; `kl` of them are also compared."""
    body = scoring.score_body(model, ids)
    if steering:
        body["ndif"] = {"steering": steering, "prompt_tokens": prompt_tokens} | ({"kl": kl} if kl else {})
    return body


def unedited(answer: dict[str, Any]) -> list[float]:
    """Those of the tokens after the prompt without the edits, out of one in which `kl` tokens were compared."""
    values: list[float] = answer["ndif"]["unedited"]
    return values


def perplexity(logs: list[float]) -> float:
    """The perplexity of tokens with these log-probabilities."""
    return math.exp(min(-sum(logs) / len(logs), 700.0))


def _check_echo(answer: dict[str, Any], steering: list[dict[str, Any]]) -> None:
    """Check that every edit was made.

    Raises:
        ResponseError: the answer does not say so. A server that knows no edits answers as if none had been asked for.
    """
    if not steering:
        return
    crumb = answer.get("ndif")
    echoed = crumb.get("steering") if isinstance(crumb, dict) else None
    if not isinstance(echoed, list) or len(echoed) != len(steering):
        raise ResponseError("the answer does not tell that it was steered: its server may know no ndif.steering")
    for requested, entry in zip(steering, echoed, strict=True):
        wrong = [key for key, value in requested.items() if not isinstance(entry, dict) or entry.get(key) != value]
        if wrong:
            raise ResponseError(f"the answer was steered otherwise than asked for: {', '.join(wrong)} in {entry}")
        if "tokens" not in entry:
            raise ResponseError("the answer does not tell how many tokens were edited")


def _tokens(entry: dict[str, Any]) -> int:
    """The edited tokens of an echoed edit, which has one number for each choice, or one in all."""
    tokens = entry["tokens"]
    return sum(tokens) if isinstance(tokens, list) else int(tokens)
