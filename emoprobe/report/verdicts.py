"""The meaning of each verdict: the one home of what the page and `docs/verdicts.md` say."""

from __future__ import annotations

from typing import NamedTuple

from emoprobe.results.statement import Verdict


class Meaning(NamedTuple):
    """Meaning of a verdict, and what it does not imply; the latter is empty for a note."""

    says: str
    not_says: str = ""


MEANINGS: dict[Verdict, Meaning] = {
    Verdict.DIFFERENT: Meaning(
        "with no difference at all, data like these would come in less than 5 % of such experiments, over all "
        "contrasts of the family together",
        "that the difference is large or matters: see the interval",
    ),
    Verdict.EQUIVALENT: Meaning(
        "a difference beyond the margin (`analysis.margin`, 10 percentage points by default) is excluded at 5 % on "
        "either side, over the family likewise (two one-sided tests, which correspond to the 90 % interval)",
        "that there is no difference",
    ),
    Verdict.DIFFERENT_HERE: Meaning(
        "as `different`, but for the texts used alone: there are fewer than 24, or it is unknown which question had "
        "which. Questions are the units",
        "that other texts of the tone would do so too",
    ),
    Verdict.EQUIVALENT_HERE: Meaning(
        "as `equivalent`, but for the texts used alone",
        "that other texts of the tone would do so too: with 8 texts none of which breaks the answer, 31 % of all its "
        "texts may break it",
    ),
    Verdict.UNDECIDED: Meaning(
        "neither of the two, or too little data for a test",
        "that there is no effect. More questions may decide only where their number was registered as a look",
    ),
    Verdict.FOUND: Meaning(
        "the effect exceeds chance, wherever in the model one looks, and the simpler explanations that the sentence "
        "lists",
        "that the model uses it: a probe says nothing about cause, steering along a direction nothing about what the "
        "model does without an edit; nor that no other explanation is left, such as the topic in other words",
    ),
    Verdict.NOT_FOUND: Meaning(
        "the effect was tested and is not shown to exceed both chance and simpler explanations, with this much data",
        "that it does not exist",
    ),
    Verdict.NOT_SEPARABLE: Meaning(
        "a simpler explanation goes together with the label so closely that these data cannot tell the two apart",
        "that the simpler explanation is the right one",
    ),
    Verdict.NOTE: Meaning("a property of the data that limits what can be concluded, or a description without a test"),
}


def verdict_table() -> str:
    """Return the meanings as a Markdown table."""
    rows = ["| verdict | it means | it does not mean |", "| --- | --- | --- |"]
    rows += [
        f"| {verdict.replace('_', ' ')} | {meaning.says} | {meaning.not_says} |".replace("|  |", "| |")
        for verdict, meaning in MEANINGS.items()
    ]
    return "\n".join(rows)
