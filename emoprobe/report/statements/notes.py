"""Notes on the limits of an experiment, one sentence each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from emoprobe.analysis.limits import Limit, LimitKind
from emoprobe.config.science.analysis import TONE_TEXTS
from emoprobe.config.section import CONTROL, FILLER
from emoprobe.report.statements import points
from emoprobe.report.statements.judges import guess, judged
from emoprobe.results.preregistration import PowerRow
from emoprobe.results.statement import Statement, Verdict

TEMPLATE_CHARACTERS = 300  # that are shown of a template's text
SAMPLES = 5  # that are named


def notes(limits: Iterable[Limit]) -> list[Statement]:
    """Return a note for each limit, in their order."""
    statements = []
    for limit in limits:
        about, phrase = PHRASES[limit.kind]
        text = phrase.format(**limit.numbers) if isinstance(phrase, str) else phrase(**limit.numbers)
        statements.append(Statement(about=f"data:{about}", verdict=Verdict.NOTE, text=text, estimate=limit.estimate))
    return statements


def _deviates(sha256: str, deviations: list[str]) -> str:
    return f"The analysis deviates from its plan (sha256 {sha256}): {'; '.join(deviations)}."


def _power(rows: list[PowerRow]) -> str:
    first = rows[0]
    subject = "a tone" if first.texts > 1 else "a single text"
    texts = f"{first.texts} texts a tone and " if first.texts > 1 else ""
    return (
        f"Stated before the run, for {texts}{first.questions} questions and the noisiest answers there can be: a "
        f"difference between {subject} and {first.reference} is noticed in at least {first.power:.0%} of runs if it is "
        f"at least {_reach(rows)}. Smaller ones may well go unnoticed."
    )


def _own_noise(error: float, detectable: float, questions: int, power: float) -> str:
    wanted = [size for size in (0.1, 0.05) if size < detectable]
    needed = " and ".join(
        f"about {math.ceil(questions * (detectable / size) ** 2 / 10) * 10:,} for {points(size, False)}"
        for size in wanted
    )
    return (
        f"With the noise of these answers (standard error {points(error, False)} points over {questions} questions) a "
        f"difference from the primary reference is noticed in {power:.0%} of runs if it is at least "
        f"{points(detectable, False)} points"
        + (f"; as many texts a question would take {needed} points." if wanted else ".")
    )


def _history(number: int, answered: int) -> str:
    before = f"{number - 1} came before this one" if number > 1 else "none came before this one"
    return (
        f"Of the plans that were written in this folder, {before}; {answered} of {number} "
        f"{'was' if answered == 1 else 'were'} written when it held answers. preregistrations.jsonl has each."
    )


def _look(questions: int, looks: list[int], weight: float) -> str:
    rest = (
        "."
        if questions == looks[-1]
        else "; probes, steering and features are tested at the last one alone, and described here."
    )
    return (
        f"Look {looks.index(questions) + 1} of {len(looks)} ({', '.join(map(str, looks))} questions, registered in "
        f"advance): tests of accuracy use {weight:.0%} of the level here{rest}"
    )


def _no_look(questions: int, looks: list[int]) -> str:
    return (
        f"{questions} questions have trajectories, and tests were registered for {' and '.join(map(str, looks))}: all "
        "is described and nothing is tested, as sizes that are chosen after a look make false verdicts likely. "
        "Register sizes in analysis.looks before a run."
    )


def _texts_used(texts: int, needed: int, share: float, names: list[str]) -> str:
    subject = "one text" if texts == 1 else f"{texts} texts"
    which = f"Comparisons that {' or '.join(names)} takes part in" if names else "Comparisons"
    return (
        f"{which} are about the texts used, and not about tones: a tone has {subject}, and a claim about it takes "
        f"{needed}. If {'it does not break' if texts == 1 else f'none of {subject} breaks'} the answer, up to "
        f"{share:.0%} of all texts of that tone may still break it."
    )


def _texts_unseen(texts: int, share: float, others: bool) -> str:
    return (
        f"{'Every other tone is known through at least' if others else 'A tone is known through'} {texts} texts: if "
        f"none of them breaks the answer, up to {share:.1%} of all its texts may still break it."
    )


def _reach(rows: list[PowerRow]) -> str:
    """Return the differences that are noticed: one for each assumption on the texts of a tone, if they differ."""
    worlds: dict[str, list[str]] = {}
    for row in rows:
        difference = "" if row.detectable is None else f"{points(row.detectable, False)} points"
        alike = "all have the same effect" if row.text_deviation == 0 else f"differ by {row.text_deviation:g} logit"
        worlds.setdefault(difference, []).append(alike)
    if rows[0].texts < TONE_TEXTS:
        return ", or ".join(worlds)
    return ", or ".join(
        f"{difference} where the texts of one tone {alike[0]}"
        if len(alike) == 1
        else f"{difference}, whether the texts of one tone {' or '.join(alike)}"
        for difference, alike in worlds.items()
    )


def _few_texts(row: PowerRow) -> str:
    limit = "no difference" if row.limit is None else f"no difference below {points(row.limit, False)} points"
    return (
        f"Needs more texts: where the texts of a tone differ by {row.text_deviation:g} logit, {limit} is "
        f"noticed in {row.power:.0%} of runs with {row.texts} texts, however many questions there are."
    )


def _tokens(rows: list[Any], reference: str, tolerance: float) -> str:
    listed = ", ".join(f"{row.variant} {row.ratio:.2f}" for row in rows)
    return (
        f"Length is not held equal: mean tokens of texts relative to {reference} are {listed}, beyond the tolerance of "
        f"{tolerance:.0%}."
    )


def _few_groups(count: int) -> str:
    return (
        f"Questions come from {count} group{'s' if count > 1 else ''}: too few to speak for others, so comparisons "
        "are about questions of these groups."
    )


def _repeated(count: int, ids: int) -> str:
    return (
        f"{count} question{' comes' if count == 1 else 's come'} under several ids ({ids} in all). Copies of a "
        "question count as one unit in every comparison, so there is less data than the number of ids suggests."
    )


def _graded_otherwise(rows: list[dict[str, Any]]) -> str:
    apart = (
        f"{row['variant']}-{row['reference']} {points(row['lenient'])} instead of {points(row['strict'])} points"
        for row in rows
    )
    return f"Graded leniently, differences come out otherwise: {', '.join(apart)}."


def _failures(count: int, rows: list[dict[str, Any]]) -> str:
    listed = ", ".join(
        f"{row['variant']} {row['failures']}"
        + (f" (accuracy between {row['if_failures_wrong']:.3f} and {row['if_failures_right']:.3f})" if row["n"] else "")
        for row in rows
    )
    return (
        f"No server answered {count} requests: {listed}. A verdict stands only if it holds however those would have "
        "been answered."
    )


def _truncated(share: float, variant: str, most: float, graded: bool) -> str:
    cut = f"{share:.0%} of the completions were cut off at max_tokens ({variant} most, {most:.0%}); "
    if not graded:
        return f"{cut}graders read what was written until then."
    return (
        f"{cut}a completion that was cut off counts as wrong. The rows `untruncated` of paired_tests leave such "
        "questions out and are not tested, as the outcome selects them."
    )


def _cut_off_thoughts(count: int, total: int, counts: dict[str, int]) -> str:
    return (
        f"{count} of {total} completions were cut off at max_tokens within a thought, so that they hold no answer: "
        f"{_listed(counts)}. Raise generation.max_tokens, or limit thoughts with generation.thinking."
    )


def _mixed(counts: dict[str, int]) -> str:
    return (
        f"Answers were computed on different hardware: {_listed(counts)}. Rounding differs between them, so an answer "
        "that is made again on another of them may be another one."
    )


def _batches(counts: dict[str, int]) -> str:
    return (
        f"{_listed(counts)}: vLLM has no batch invariance there, which needs compute capability 8.0. An answer can "
        "depend on what else was in its batch, so answers are reproducible per batch and not alone."
    )


def _batches_off(counts: dict[str, int], why: str) -> str:
    return (
        f"{_listed(counts)}: vLLM computed without batch-invariant kernels, as {why}. An answer can depend on what "
        "else was in its batch, so answers are reproducible per batch and not alone."
    )


def _by_capture_server(what: str, counts: dict[str, int]) -> str:
    return (
        f"{what} were generated by the capture server, which has no batch-invariant kernels on a GPU "
        f"({', '.join(counts)}). One that is made again may be another one, as what else is in its batch changes "
        "rounding."
    )


def _unpinned(model: str, urls: list[str], answered: dict[str, int]) -> str:
    named = f" It named its models {_listed(answered, 'call')}." if answered else ""
    return (
        f"Answers are those of {model} at {', '.join(urls)}, whose weights are not pinned: the same name may stand for "
        f"another model at another time, and an answer that is made again may be another one.{named}"
    )


def _listed(counts: dict[str, int], what: str = "answer") -> str:
    return ", ".join(f"{name} ({count} {what}{'' if count == 1 else 's'})" for name, count in counts.items())


def _unknown(missing: list[str]) -> str:
    return f"Not recorded in this folder, so unknown: {', '.join(missing)}."


def _template(text: str) -> str:
    shown = text if len(text) <= TEMPLATE_CHARACTERS else f"{text[:TEMPLATE_CHARACTERS].rstrip()} …"
    return f"The chat template adds text to every prompt that no message holds: \u201c{' '.join(shown.split())}\u201d."


def _markup(tokens: list[str], samples: list[str]) -> str:
    named = ", ".join(samples[:SAMPLES]) + (", …" if len(samples) > SAMPLES else "")
    return (
        f"Questions write out control tokens of the model ({', '.join(tokens)}), which it reads as markup and not as "
        f"text: {named}."
    )


def _asked(asks: dict[str, int]) -> str:
    listed = ", ".join(f"{name} {count} times" for name, count in asks.items())
    return (
        f"Asked more than once, with another text each time: {listed}. The mean over these answers to a question is "
        "compared, and agreement counts all of them."
    )


def _format_noise(
    formats: list[dict[str, Any]],
    tones: list[dict[str, Any]],
    low: float,
    high: float,
    spread: float,
    reached: float,
    within: list[str],
) -> str:
    one = len(formats) == 1
    shown = (
        f"at least one changes it by more than {points(reached, False)} points"
        if reached
        else "none is shown to change it"
    )
    text = (
        f"Format noise: {len(formats)} other format{'' if one else 's'} of control's prompt "
        f"change{'s' if one else ''} strict accuracy by {points(low)} to {points(high)} points (best minus worst "
        f"format, the spread of Sclar et al. 2024: {points(spread, False)}); {shown} (95 %, like all bounds here)."
    )
    effects = "; ".join(
        f"{row['variant']} {points(row['difference'])} (at most {points(row['most'], False)})" for row in tones
    )
    if not tones:
        return text
    end = f"Within format noise: {', '.join(within)}." if within else "No tone is shown to be within format noise."
    return f"{text} Tones against {tones[0]['reference']}, with the most that an effect can be: {effects}. {end}"


_ALIKE = "so accuracy cannot distinguish tones: equal scores say nothing about them."
_HEADROOM = "{share:.1%} of all answers are correct: there is little room for a difference of accuracies."
# Kind → subject, and the sentence: a template for the limit's numbers, or a function of them.
PHRASES: dict[LimitKind, tuple[str, str | Callable[..., str]]] = {
    LimitKind.NO_PLAN: (
        "plan",
        "There is no plan from before the run: comparisons follow the defaults, and their power is unknown.",
    ),
    LimitKind.PLAN_FOLLOWED: ("plan", "The analysis follows the plan from before the run (sha256 {sha256})."),
    LimitKind.PLAN_DEVIATES: ("plan", _deviates),
    LimitKind.POWER: ("power", _power),
    LimitKind.OUT_OF_REACH: (
        "reach",
        "Not reachable at this n: with {questions} questions no difference, however large, is noticed in {power:.0%} "
        "of runs.",
    ),
    LimitKind.PLAN_HISTORY: ("plans", _history),
    LimitKind.OWN_NOISE: ("noise", _own_noise),
    LimitKind.NO_LOOK: ("looks", _no_look),
    LimitKind.LOOK: ("looks", _look),
    LimitKind.FEW_TEXTS: ("reach", _few_texts),
    LimitKind.TEXTS_USED: ("texts", _texts_used),
    LimitKind.TEXTS_UNSEEN: ("texts", _texts_unseen),
    LimitKind.TOKENS_UNMATCHED: ("tokens", _tokens),
    LimitKind.ONE_VARIANT: ("references", "Nothing is compared: there is one variant, {variant}."),
    LimitKind.NO_REFERENCE: (
        "references",
        f"Nothing is compared: no variant is a reference. Name the one that the others are compared with {CONTROL} or "
        f"{FILLER} (`emoprobe import` does it with --reference).",
    ),
    LimitKind.NO_FILLER: (
        "references",
        "There is no filler of neutral texts, so the effect of a tone cannot be separated from that of any added text.",
    ),
    LimitKind.NO_TEXT: (
        "references",
        "The primary reference, control, adds no text, so comparisons with it do not separate the effect of a tone "
        "from that of any added text.",
    ),
    LimitKind.GROUPS: (
        "groups",
        "Questions come from {count} groups, such as templates. What a group shares widens every interval of accuracy; "
        "the power that was stated before the run does not know of it and is that of separate questions.",
    ),
    LimitKind.FEW_GROUPS: ("groups", _few_groups),
    LimitKind.REPEATED: ("repeated", _repeated),
    LimitKind.NOTHING_GRADED: ("floor", "No trajectory has a grade."),
    LimitKind.ALL_WRONG: ("floor", f"No answer is correct, {_ALIKE}"),
    LimitKind.ALL_CORRECT: ("ceiling", f"Every answer is correct, {_ALIKE}"),
    LimitKind.NEAR_FLOOR: ("floor", _HEADROOM),
    LimitKind.NEAR_CEILING: ("ceiling", _HEADROOM),
    LimitKind.TRUNCATED: ("truncation", _truncated),
    LimitKind.THOUGHT_CUT_OFF: ("thoughts", _cut_off_thoughts),
    LimitKind.UNMARKED: (
        "extraction",
        "In up to {most:.0%} of a variant's completions ({variant}), no answer is marked as final: these are wrong by "
        "the strict grade, and the lenient grade takes their last number.",
    ),
    LimitKind.GRADED_OTHERWISE: ("lenient", _graded_otherwise),
    LimitKind.REQUESTS_FAILED: ("failures", _failures),
    LimitKind.ABSENT: (
        "absent",
        "{count} of {planned} trajectories are absent, though their question was asked otherwise. A verdict holds only "
        "if it does whatever they would be; measures without limits, such as tokens, are not tested.",
    ),
    LimitKind.SAMPLING_NOISE: (
        "draws",
        "Two draws of one variant on one question disagree in {share:.0%} of cases: sampling alone makes about that "
        "many flips between variants that are alike.",
    ),
    LimitKind.ASKED: ("asks", _asked),
    LimitKind.FORMAT_NOISE: ("formats", _format_noise),
    LimitKind.MIXED_HARDWARE: ("hardware", _mixed),
    LimitKind.UNPINNED: ("weights", _unpinned),
    LimitKind.ONE_JUDGE: (
        "judges",
        "One judge alone decides, {model} ({judge}): how far another one would agree is unknown. Add a second model or "
        "rubric to graders.",
    ),
    LimitKind.JUDGES: ("judges", judged),
    LimitKind.GUESS: ("guess", guess),
    LimitKind.BATCH_DEPENDENT: ("batches", _batches),
    LimitKind.BATCH_INVARIANCE_OFF: ("batches", _batches_off),
    LimitKind.GENERATED_BY_CAPTURE_SERVER: ("capture_server", _by_capture_server),
    LimitKind.UNKNOWN_ORIGIN: ("provenance", _unknown),
    LimitKind.LEFTOVERS: (
        "leftovers",
        "{count} trajectories in the folder are not in its experiment.yaml and are left out.",
    ),
    LimitKind.FIRST_ANSWERS_DIFFER: (
        "first_answers",
        "The first answer to {count} of {questions} questions is right with some variants and wrong with others "
        "that have the same first turn: decoding was not reproducible. Survival is compared on questions that both "
        "sides of a comparison answered right at first.",
    ),
    LimitKind.UNREADABLE_ACTIVATIONS: ("activations", "No activations can be read: {error}."),
    LimitKind.NO_CONFIG: (
        "config",
        f"There is no experiment.yaml: the references are {CONTROL} and {FILLER}, where they exist. Valences are "
        "unknown, and so is which question had which text; comparisons are therefore about the texts used here.",
    ),
    LimitKind.NO_SAMPLES: (
        "samples",
        "There is no folder samples/: gold answers come from each sample.json, and every question counts as separate, "
        "although some may share a template.",
    ),
    LimitKind.UNANSWERED: (
        "answers",
        "Conversations without a message of the assistant are left out: {count}.",
    ),
    LimitKind.UNGRADED: ("grades", "{count} of {total} answers have no known gold answer and are left out."),
    LimitKind.UNKNOWN_FINISH: (
        "finish",
        "This folder does not record whether completions were cut off: each counts as finished.",
    ),
    LimitKind.TEMPLATE_TEXT: ("template", _template),
    LimitKind.CONTROL_TOKENS: ("markup", _markup),
}
