"""What the verdicts of a report mean, and what they do not."""

from __future__ import annotations

from emoprobe.results.statement import Verdict

MEANINGS: dict[Verdict, str] = {
    "different": "Were there no difference at all, data like these would come in less than 5 % of such experiments, "
    "over all contrasts of the family together. It does not say that the difference is large: the "
    "interval does.",
    "equivalent": "Differences larger than the margin (analysis.margin) are excluded at 5 % on either side, which is "
    "what the 90 % interval shows. It does not say that there is no difference.",
    "undecided": "Neither of the two: the data exclude neither no difference nor one beyond the margin. It is not "
    "evidence of no effect; more questions, texts or draws may decide.",
    "found": "What was looked for exceeds what comes by chance, wherever in the model one looks, and exceeds what "
    "simpler explanations reach; an interval, where there is one, excludes 0. Of a probe it says nothing about cause; "
    "of a direction it says that a push along it changes log p(gold) more than a random push does, while the text is "
    "still coherent, and not that the model makes use of it by itself.",
    "not_found": "It was looked for and does not exceed chance or a simpler explanation, with this much data. It may "
    "still be there.",
    "note": "Something about the data that limits what can be concluded.",
}
