"""Sentences on judges: what they gave, how far they agree, and what the order and the variant of answers do to them."""

from __future__ import annotations

from typing import Any

from emoprobe.analysis.statistics import LEVEL
from emoprobe.report.statements.behaviour import p_text

_WITHOUT_VALUE = {"unusable": "without a usable reply or answer", "failed": "without a reply or trajectory"}


def judged(rows: list[dict[str, Any]]) -> str:
    """Say what the judges of one trait gave, how far they agree, and how far answers give the variant away.

    Args:
        rows: of the table `judges`.
    """
    first, several = rows[0], len(rows) > 1
    parts = []
    for row in rows:
        lost = [f"{row[key]} {words}" for key, words in _WITHOUT_VALUE.items() if row[key]]
        parts.append(
            f"{row['model']} ({row['judge']}) gave {row['n']} of {row['judgements']} values"
            + (f" ({', '.join(lost)})" if lost else "")
        )
    things = "answers" if first["compare_with"] is None else "pairs"
    text = f"Judged blind: {'; '.join(parts)}."
    if several and first["alpha"] is not None:
        text += f" They agree by Krippendorff's α = {first['alpha']:.2f} on {first['units']} {things}."
    elif several:
        why = "no value varies" if first["units"] else f"no two of them have values of the same {things}"
        text += f" Their agreement is not known, as {why}."
    text += "".join(_orders(row) for row in rows if row["compare_with"] is not None)
    if quoting := max(row["quoting"] for row in rows):
        what = "answers hold the text of their variant"
        if first["compare_with"] is not None:
            what = "pairs have an answer that holds the text of its variant"
        text += f" {quoting} {what}, so that a judge could know it."
    if first["separability"] is not None:
        text += (
            f" Words alone tell the variant of an answer with an AUROC of {first['separability']:.2f} (0.5: not at "
            "all); as far as they do, a judge can lean towards a tone without knowing its name."
        )
    return text


def _orders(row: dict[str, Any]) -> str:
    """Say what the order of two answers does to a judge that compares."""
    first, second, p = row["first_orders"], row["second_orders"], row["position_p"]
    text = (
        f" {row['model']} ({row['judge']}) compares with {row['compare_with']}: both orders agree on "
        f"{row['same_orders']} of {row['n']} pairs, on {first} it prefers the first answer both times, and on {second} "
        "the second"
    )
    if p is None or p >= LEVEL:
        return f"{text}."
    return f"{text}: it prefers by position (p {p_text(p)}), which counts as no preference."


def guess(row: dict[str, Any]) -> str:
    """Say how well a judge guesses the variant of an answer, by its row of the table `judges`."""
    judge = f"{row['model']} ({row['judge']})"
    if not row["guesses"]:
        return f"{judge} was asked to guess the variant, and no question has two guesses."
    right = (
        f"{judge} guesses the variant of {row['guessed']:.1%} of {row['guesses']} answers right, and "
        f"{row['guess_chance']:.1%} would be by chance (p {p_text(row['guess_p'])})"
    )
    if row["guess_p"] < LEVEL:
        return f"{right}: answers give their variant away, so that a judge which leans towards a tone can know it."
    return f"{right}: it is not shown that answers give their variant away."
