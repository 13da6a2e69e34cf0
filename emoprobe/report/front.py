"""The first screen of an experiment's page: its question, the answer, and a row for each comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from emoprobe.analysis.contrasts import PLANNED
from emoprobe.analysis.outcomes import (
    PRIMARY_MEASURE,
    as_judged,
    column_and_category,
    judge_of,
    measured_column,
    outcomes_of,
    primary_column,
    primary_of,
    subject,
    title_of,
    unit_of,
    value_of,
)
from emoprobe.config.experiment import Config
from emoprobe.report import links
from emoprobe.report.done import NAMED, dataset_name, example_of
from emoprobe.report.statements import amount
from emoprobe.report.statements.behaviour import bound, p_text, why
from emoprobe.results.statement import Verdict

PLACES = {
    "user_prefix": "before the question",
    "user_suffix": "after the question",
    "system_prefix": "before the system message",
    "system_suffix": "after the system message",
}
# Verdict → what the tally of comparisons says of variants that have it.
TALLIED = {
    Verdict.DIFFERENT: "different",
    Verdict.DIFFERENT_HERE: "different with the texts used",
    Verdict.EQUIVALENT: "equivalent",
    Verdict.EQUIVALENT_HERE: "equivalent with the texts used",
    Verdict.UNDECIDED: "undecided",
    Verdict.NOTE: "not tested",
}
# Target of a probe → its name in a sentence.
READ = {"valence": "the valence of the text", "correct": "whether the answer is right"}
# Verdict of a probe → its end of the sentence.
READABLE = {
    Verdict.FOUND: "can be read from the activations beyond the baselines",
    Verdict.NOT_FOUND: "is not shown to be readable from the activations beyond the baselines",
    Verdict.NOT_SEPARABLE: "cannot be separated from a simpler explanation in the activations",
}


@dataclass(frozen=True)
class Comparison:
    """A row of the page's table: a planned or primary contrast of the primary outcome.

    `bar` has the interval, the estimate and the margin as percentages of the width of a bar that all rows share; None
    without an interval. `share` and `reference_share` are the outcome of each, empty for means of several variants;
    `level` says what they are, `unit` is that of the difference. `address` is that of the conversations in the
    explorer.
    """

    name: str
    reference: str
    planned: bool
    valence: str
    example: str
    share: str
    reference_share: str
    level: str
    unit: str
    difference: str
    interval: str
    bar: dict[str, float] | None
    verdict: str
    why: str
    address: str


def question(config: Config, report: dict[str, Any]) -> str:
    """Return the question of an experiment in one sentence."""
    model, data = report["model"]["id"] or "the model", dataset_name(config)
    changed = f"how often {model} answers {data} correctly"
    if config.conversation.turns:
        changed = f"how often the last answer of {model} to {data} is right"
    outcome = primary_of(config)
    if not config.grades_answers:
        title = title_of(outcome.measures[0], outcome.value).removeprefix("the ")
        title = f"distribution of {outcome.label}" if outcome.categories else title
        changed = f"the {as_judged(title, outcome.judge)} in what {model} answers to {data}"
    parts = [f"does the tone of a text {_where(config)} change {changed}"]
    if report["probes"]:
        parts.append("can the tone be read from its activations")
    if report["steering"]:
        parts.append("does steering along a tone's direction change its answers")
    if report["autoencoders"]:
        parts.append("which features does it change")
    sentence = f"{', '.join(parts[:-1])}, and {parts[-1]}" if len(parts) > 1 else parts[0]
    return f"{sentence[0].upper()}{sentence[1:]}?"


def _where(config: Config) -> str:
    """Return where the variants' texts are in the conversation."""
    texts = [variant for variant in config.variants.values() if variant.text or variant.texts]
    turns = {1 if variant.turn == "first" else variant.turn for variant in texts}
    places = {variant.placement for variant in texts}
    if turns == {1} and len(places) == 1:
        return PLACES[places.pop()]
    if len(turns) == 1 and turns != {1}:
        turn = turns.pop()
        return {"last": "in the last turn", "all": "in every turn"}.get(str(turn), f"in turn {turn}")
    return "in the conversation"


def answer(report: dict[str, Any], margin: float | None) -> list[str]:
    """Return the answer in a few sentences: planned contrasts, a tally of the others, and what is inside the model."""
    rows = tested(report)
    about = {
        subject(row["measure"], row["variant"], row["reference"])
        for row in report["paired_tests"]
        if row["family"].endswith(PLANNED)
    }
    planned = [entry["text"] for entry in report["statements"] if entry["about"] in about]
    primary = [row for row in rows if row["family"].endswith("primary")]
    compared = [*dict.fromkeys(planned), *_tally(primary, margin, bool(planned))]
    if not compared:
        # Secondary are such as those with another reference than the primary one.
        secondary = bool(report["paired_tests"])
        compared = ["All comparisons are secondary." if secondary else "No variant is compared with another here."]
    return [*compared, *_inside(report)]


def comparisons(config: Config, report: dict[str, Any]) -> list[Comparison]:
    """Return a row for each planned or primary contrast, in the order of their table."""
    rows = tested(report)
    margin = margin_of(config, report) or 0.0
    ends = [abs(row[key]) for row in rows for key in ("low", "high") if row[key] is not None]
    least = 0.05 if all(map(unit_of, rows)) else 1e-9
    reach = max([least, 1.2 * margin, *(1.05 * end for end in ends)])
    valences = {row["variant"]: row["valence"] for row in report["accuracy"]}
    return [_comparison(row, config, _levels(report, row), valences, margin, reach) for row in rows]


def _levels(report: dict[str, Any], row: dict[str, Any]) -> dict[str, str]:
    """Return the outcome that a row is about in each variant, as a text."""
    if row["measure"] == PRIMARY_MEASURE:
        return {one["variant"]: _share(one) for one in report["accuracy"]}
    return {
        one["variant"]: f"{one['mean']:.3g}" if one["value"] == "number" else f"{one['mean']:.1%}"
        for one in report["outcomes"]
        if one["measure"] == row["measure"] and one["mean"] is not None
    }


def _comparison(
    row: dict[str, Any],
    config: Config,
    levels: dict[str, str],
    valences: dict[str, Any],
    margin: float,
    reach: float,
) -> Comparison:
    def place(value: float) -> float:
        return round(50 + 50 * value / reach, 2)

    known = row["low"] is not None
    variant = config.variants.get(row["variant"])
    _, category = column_and_category(row["measure"])
    unit = unit_of(row)
    return Comparison(
        name=row["variant"] if category is None else f"{row['variant']}: {category}",
        reference=row["reference"],
        planned=row["family"].endswith(PLANNED),
        valence=(variant.valence or "") if variant else "",
        example=example_of(config, row["variant"]),
        share=levels.get(row["variant"], ""),
        reference_share=levels.get(row["reference"], ""),
        level=_level_name(row),
        unit=unit,
        difference="–" if row["difference"] is None else amount(row["difference"], unit),
        interval=f"[{amount(row['low'], unit)}, {amount(row['high'], unit)}]" if known else "",
        bar={
            "low": place(row["low"]),
            "high": place(row["high"]),
            "estimate": place(row["difference"]),
            "margin_low": place(-margin),
            "margin_high": place(margin),
        }
        if known
        else None,
        verdict=row["verdict"],
        why=why(row, margin),
        address=links.contrast(row["variant"], row["reference"], valences),
    )


def _level_name(row: dict[str, Any]) -> str:
    if row["measure"] == PRIMARY_MEASURE:
        return "Right"
    return "Mean" if value_of(row) == "number" else "Share"


def tested(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of planned and primary contrasts of the primary outcome, the planned ones first.

    That is strict accuracy or, where it is not graded, the first outcome of the table that has such contrasts.
    """
    compared = [row for row in report["paired_tests"] if not row["family"].endswith("secondary")]
    first = primary_column(row["measure"] for row in compared)
    rows = [row for row in compared if measured_column(row["measure"]) == first]
    return sorted(rows, key=lambda row: not row["family"].endswith(PLANNED))


def margin_of(config: Config, report: dict[str, Any]) -> float | None:
    """Return the margin of equivalence of the outcome that `tested` is about; None where there is none."""
    columns = [measured_column(row["measure"]) for row in tested(report)]
    known = [outcome.margin for outcome in outcomes_of(config) if outcome.column in columns]
    return known[0] if known else primary_of(config).margin


def _tally(rows: Sequence[dict[str, Any]], margin: float | None, others: bool) -> list[str]:
    """Return a sentence that counts verdicts; `others`: contrasts that were planned are not among the rows."""
    if not rows:
        return []
    parts = []
    for verdict, words in TALLIED.items():
        names = [
            " ".join(filter(None, (row["variant"], column_and_category(row["measure"])[1])))
            for row in rows
            if row["verdict"] == verdict
        ]
        if names:
            named = f" ({', '.join(names)})" if len(names) <= NAMED else ""
            within = f" within {bound(rows[0], margin or 0.0)}" if words.startswith("equivalent") else ""
            parts.append(f"{len(names)} {'is' if len(names) == 1 else 'are'} {words}{within}{named}")
    references = " or ".join(dict.fromkeys(row["reference"] for row in rows))
    count = f"{len(rows)} {'other ' * others}comparison{'' if len(rows) == 1 else 's'}"
    title = title_of(measured_column(rows[0]["measure"]), value_of(rows[0]), judge_of(rows[0]))
    return [f"Of {count} with {references} in {title}, {', '.join(parts)}."]


def _inside(report: dict[str, Any]) -> list[str]:
    parts = []
    # The verdict is that of the statement: before the last look a probe has a result in its table, and none here.
    said = {entry["about"]: entry for entry in report["statements"] if entry["verdict"] in READABLE}
    for row in report["probes"]:
        entry = said.get(f"probe:{row['target']}")
        if entry is not None and row["target"] in READ:
            p = "" if entry["p"] is None else f", p {p_text(entry['p'])}"
            auroc = "" if row["auroc"] is None else f" (AUROC {row['auroc']:.2f}{p})"
            parts.append(f"{READ[row['target']]} {READABLE[entry['verdict']]}{auroc}")
    words_of = {
        "steering": ("direction", "to steer the answers"),
        "feature": ("tone", "to change features"),
    }
    for kind, (noun, words) in words_of.items():
        verdicts = [entry["verdict"] for entry in report["statements"] if entry["about"].startswith(f"{kind}:")]
        decided = [verdict for verdict in verdicts if verdict != Verdict.NOTE]
        if decided:
            shown = sum(verdict in (Verdict.FOUND, Verdict.DIFFERENT) for verdict in decided)
            subjects = f"{shown or 'none'} of {len(decided)} {noun}s are"
            if len(decided) == 1:
                subjects = f"the one {noun} is{'' if shown else ' not'}"
            parts.append(f"{subjects} shown {words} beyond the controls")
    return ["; ".join([parts[0][0].upper() + parts[0][1:], *parts[1:]]) + "."] if parts else []


def _share(row: dict[str, Any] | None) -> str:
    return "" if row is None or row["accuracy"] is None else f"{row['correct']}/{row['n']}"
