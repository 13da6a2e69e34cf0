"""How a decoder layer writes to the residual stream, read off one pass on the meta device: shapes, and no numbers.

A layer adds what its attention and its MLP block give to the stream that enters it. Where these parts can be read
differs from family to family: Llama's MLP block gives what is added, Gemma 2 norms it once more, Granite scales it,
BLOOM's block adds the stream itself. So nothing is looked up by name here: additions are followed from a layer's
output back to its input, and what they add is matched with what goes into and comes out of the layer's modules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Key = tuple[int, int]  # a tensor and its version: what is written in place becomes another value
SAME = {"view", "_unsafe_view", "reshape", "alias", "detach", "clone", "_to_copy", "unsqueeze", "squeeze"}


@dataclass(frozen=True)
class ReadPoint:
    """A point to read a part of the residual stream: a weighted sum over a layer's modules.

    `terms` are (factor, site), a site being a module path and its side, such as `mlp.output`.
    """

    terms: tuple[tuple[float, str], ...]

    def __str__(self) -> str:
        text = ""
        for factor, site in self.terms:
            sign = "-" if factor < 0 else "+"
            size = "" if abs(factor) == 1 else f"{abs(factor):g} * "
            text += f" {sign} {size}{site}" if text or factor < 0 else f"{size}{site}"
        return text.strip()

    def __add__(self, other: ReadPoint) -> ReadPoint:
        total: dict[str, float] = {}
        for factor, site in self.terms + other.terms:
            total[site] = total.get(site, 0.0) + factor
        return ReadPoint(tuple((factor, site) for site, factor in total.items() if factor))

    def __neg__(self) -> ReadPoint:
        return ReadPoint(tuple((-factor, site) for factor, site in self.terms))

    def __sub__(self, other: ReadPoint) -> ReadPoint:
        return self + -other


ENTRY, EXIT = ReadPoint(((1.0, ".input"),)), ReadPoint(((1.0, ".output"),))


@dataclass(frozen=True)
class ValueOrigin:
    """Origin of a value. `factor` is the number that it was multiplied by, if any."""

    operation: str
    parents: tuple[Key, ...]
    factor: float | None
    mixes_tokens: bool


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operations that run inside of it, and keeps their results so that none takes another's identity."""

    def __init__(self, tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tokens = tokens
        self._made: dict[Key, ValueOrigin] = {}
        self._kept: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and record it."""
        kwargs = kwargs or {}
        parents = tuple(self.key(value) for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor))
        numbers = [value for value in args if isinstance(value, int | float)]
        result = func(*args, **kwargs)
        operation = func.overloadpacket.__name__
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                number, version = self.key(value)
                in_place = (number, version) in parents
                attention = "softmax" in operation and value.dim() >= 3 and value.shape[-2] == self._tokens
                factor = float(numbers[0]) if operation.rstrip("_") == "mul" and numbers else None
                made = ValueOrigin(operation.rstrip("_"), parents, factor, attention)
                # A view takes the version of what it looks at, once this function has returned.
                looked_at = parents[0][1] if parents and getattr(func, "is_view", False) else version
                self._made[number, looked_at + in_place] = made
        return result

    def key(self, tensor: torch.Tensor) -> Key:
        """The identity of a value."""
        self._kept.append(tensor)
        return id(tensor), tensor._version

    def made(self, key: Key) -> ValueOrigin | None:
        """Return the origin of a value; None for one that came from outside."""
        return self._made.get(key)

    def depends(self, key: Key, matches: Callable[[Key], bool], stop: Key) -> bool:
        """Return whether a value was made from one that is looked for, not looking beyond `stop`."""
        open_keys, seen = [key], {stop}
        while open_keys:
            here = open_keys.pop()
            if matches(here):
                return True
            if here not in seen and here in self._made:
                open_keys.extend(self._made[here].parents)
            seen.add(here)
        return False


class LayerPass:
    """One layer's pass: the values at its sites, and what the stream gained between its two ends."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._sites: dict[Key, str] = {}
        self._entry: Key | None = None
        self._exit: Key | None = None

    def see(self, site: str, value: torch.Tensor) -> None:
        """Note the value at a site; of several sites with one value, the outermost module's output counts."""
        key = self._operations.key(value)
        if site == ".input":
            self._entry = key
        elif site == ".output":
            self._exit = key
        else:
            self._sites[key] = min(self._sites.get(key, site), site, key=_depth)

    def places(self) -> dict[str, ReadPoint | str]:
        """The five parts of the stream by name; a text says why there is no such place."""
        edges: dict[str, ReadPoint | str] = {"resid_pre": ENTRY, "resid_post": EXIT}
        reason = "the layer's output is not its input plus what one attention block and one MLP block add"
        added = self._added(self._exit) if self._entry is not None and self._exit is not None else None
        if added is None or len(added) != 2:
            return edges | dict.fromkeys(("attn_out", "resid_mid", "mlp_out"), reason)
        (first, middle), (second, _) = added
        if middle is not None and self._operations.depends(second, middle.__eq__, self._entry or second):
            return edges | self._one_after_the_other(first, middle, second)
        attending = [key for key in (first, second) if self._attends(key)]
        if len(attending) != 1:
            return edges | dict.fromkeys(("attn_out", "resid_mid", "mlp_out"), reason)
        attention, mlp = (first, second) if attending == [first] else (second, first)
        return edges | self._side_by_side(attention, mlp)

    def _one_after_the_other(self, attention: Key, middle: Key, mlp: Key) -> dict[str, ReadPoint | str]:
        if not self._attends(attention):
            return dict.fromkeys(("attn_out", "resid_mid", "mlp_out"), "the layer's first block is no attention")
        between, gained = self._place(middle), self._place(attention)
        if between is None and gained is None:
            return dict.fromkeys(("attn_out", "resid_mid", "mlp_out"), "no module takes or gives what attention adds")
        if between is None:
            between = ENTRY + gained  # type: ignore[operator]
        return {
            "attn_out": gained or between - ENTRY,
            "resid_mid": between,
            "mlp_out": self._place(mlp) or EXIT - between,
        }

    def _side_by_side(self, attention: Key, mlp: Key) -> dict[str, ReadPoint | str]:
        places = {"attn_out": self._place(attention), "mlp_out": self._place(mlp)}
        for name, other in (("attn_out", "mlp_out"), ("mlp_out", "attn_out")):
            known = places[other]
            if places[name] is None and known is not None:
                places[name] = EXIT - ENTRY - known
        nowhere = "no module takes or gives what it adds"
        points: dict[str, ReadPoint | str] = {name: place or nowhere for name, place in places.items()}
        return points | {"resid_mid": "attention and MLP stand side by side: the stream has no value between them"}

    @property
    def attends(self) -> bool:
        """Whether the layer mixes tokens by attention."""
        return self._exit is not None and self._attends(self._exit)

    def _attends(self, key: Key) -> bool:
        def mixes(candidate: Key) -> bool:
            made = self._operations.made(candidate)
            return made is not None and made.mixes_tokens

        return self._operations.depends(key, mixes, self._entry or key)

    def _added(self, key: Key | None) -> list[tuple[Key, Key | None]] | None:
        """Return the terms added to the layer's input, in order, each with the sum after it; None if this is no sum.

        What was added in one piece that no module takes or gives is taken apart; there is no sum between its parts.
        """
        if key is None or key == self._entry:
            return [] if key is not None else None
        made = self._operations.made(key)
        if made is None:
            return None
        if made.operation in SAME:
            return self._added(made.parents[0])
        if made.operation != "add" or len(made.parents) != 2:
            return None
        for stream, other in (made.parents, made.parents[::-1]):
            before = self._added(stream)
            if before is not None:
                parts = self._parts(other)
                return before + [(part, None) for part in parts[:-1]] + [(parts[-1], key)]
        return None

    def _parts(self, key: Key) -> list[Key]:
        made = self._operations.made(key)
        if self._place(key) is not None or made is None or made.operation != "add" or len(made.parents) != 2:
            return [key]
        return [part for parent in made.parents for part in self._parts(parent)]

    def _place(self, key: Key) -> ReadPoint | None:
        """Return where a value can be read; reshaped or multiplied by a number it is the same."""
        if key in self._sites:
            return ReadPoint(((1.0, self._sites[key]),))
        made = self._operations.made(key)
        if made is None or not made.parents:
            return None
        if made.operation in SAME:
            return self._place(made.parents[0])
        if made.factor is not None:
            place = self._place(made.parents[0])
            return place and ReadPoint(tuple((factor * made.factor, site) for factor, site in place.terms))
        return None


def _depth(site: str) -> tuple[int, bool]:
    return site.count("."), site.endswith(".input")
