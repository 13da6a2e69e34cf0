"""Addresses in the explorer of the conversations behind a number, a point or a row of the report.

Addresses are relative to the folder of the experiment. `explorer/web/src/address.ts` and `filters.ts` read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from emoprobe.results.layout import draw_id

PAGE = "explorer/index.html"


def conversations(variants: Sequence[str] = (), **settings: Any) -> str:
    """Return the address of the grid with the conversations of some variants.

    Args:
        variants: their names; none: all variants.
        settings: of the grid, such as `sort="long"`.
    """
    names = {"variant": variants[0] if len(variants) == 1 else "+".join(map(_quoted, variants))} if variants else {}
    return f"{PAGE}#?{urlencode({**names, **settings}, quote_via=quote)}"


def captured(variants: Sequence[str] = (), **shown: Any) -> str:
    """Return the address of the conversations with activations.

    Args:
        variants: their names; none: all variants.
        shown: what is shown of the activations: `layer`, `hook`, `direction`, `token`.
    """
    return conversations(variants, inside=1, **shown)


def contrast(variant: str, reference: str, valences: Mapping[str, Any]) -> str:
    """Return the address of the questions whose outcome differs between two variants.

    A side that is the mean of several variants has no outcome: the address is then that of all their conversations.

    Args:
        variant: one side of a contrast.
        reference: the other side.
        valences: valence of each variant.
    """
    if variant in valences and reference in valences:
        return conversations([variant], flip="any", against=reference)
    return conversations([*_members(variant, valences), *_members(reference, valences)])


def conversation(variant: str, sample: str, draw: int = 1, **shown: Any) -> str:
    """Return the address of a conversation.

    Args:
        variant: its variant.
        sample: id of its question.
        draw: its draw, from 1.
        shown: what is shown of its activations; none: they are not shown.
    """
    search = f"?{urlencode({'inside': 1, **shown}, quote_via=quote)}" if shown else ""
    return f"{PAGE}#{_quoted(variant)}/{_quoted(draw_id(sample, draw))}{search}"


def steered(row: Mapping[Any, Any]) -> str:
    """Return the address of the conversations under a condition.

    Args:
        row: `direction`, `operation`, `phase`, `layers`, `dose` and `variant`, and for one conversation `sample_id` and
            `draw`, as rows of the tables of steering have them.
    """
    edit, dose = f"{row['operation']}-{row['phase']}", f"d{row['dose']:g}"
    parts = [row["direction"], edit, f"L{row['layers']}", dose, row["variant"]]
    if "sample_id" in row:
        parts.append(draw_id(row["sample_id"], row["draw"]))
    return f"{PAGE}#steering/{'/'.join(map(_quoted, parts))}"


def of_row(row: Mapping[str, Any], valences: Mapping[str, Any]) -> str | None:
    """Return the address of the conversations behind a row of any table; None where it names no variant."""
    if {"direction", "phase", "layers", "dose", "variant"} <= row.keys():
        return None if row["operation"] is None else steered(row)
    if row.get("variant") is None:
        return None
    if "sample_id" in row:
        return conversation(row["variant"], row["sample_id"], row["draw"])
    other = row.get("reference", row.get("other"))
    if isinstance(other, str) and other != row["variant"]:
        return contrast(row["variant"], other, valences)
    return conversations([row["variant"]])


def _members(side: str, valences: Mapping[str, Any]) -> Iterable[str]:
    """Variants of a side: a variant, all of a valence, or several that are joined by +."""
    if side in valences:
        return [side]
    return [name for name, valence in valences.items() if str(valence) == side] or side.split("+")


def _quoted(name: Any) -> str:
    return quote(str(name), safe="")
