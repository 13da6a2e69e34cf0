"""Checks of the texts of tones: enough of them, of one length, about a feeling alone, and balanced between valences."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from emoprobe.config.science.prompt import Variant

# Texts that a tone has at least; the range of their tokens.
LEAST, TOKENS = 64, range(23, 26)
# Texts of one tone that may share a sequence of `REPEATED` words; no two texts at all share one of `CLAUSE`.
SHARING, REPEATED, CLAUSE, OPENING = 3, 4, 6, 2
# Balanced means: differing by at most so many pooled standard deviations, with variances in a ratio of at most so much
# (Rubin 2001, Health Services and Outcomes Research Methodology 2: 169–188).
DIFFERENCE, RATIO = 0.25, 2.0
MEASURES = ("tokens", "words", "full stops", "commas", "exclamation marks")
# Scales of the ratings: 1 to 7, and 4 is neutral; texts of a neutral variant are rated within so much of it.
NEUTRAL, NEAR = 4.0, 1.0

# Words of an instruction on how to work, of the task itself, or that belong into a sum.
INSTRUCTIONS = """step steps slow slowly slower careful carefully check checks checking double-check quick
    quickly hurry fast faster rush rushing speed think reason focus concentrate attention effort try explain
    show must should please accurate accurately accuracy precise precisely exact exactly"""
TASK = """answer answers question questions problem problems task tasks result results solution solve solved
    calculate compute number numbers math maths arithmetic exercise correct correctly wrong right mistake
    mistakes error errors"""
NUMBERS = """zero one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty
    hundred thousand million first second third fourth fifth half quarter double triple single pair dozen
    couple once twice both times plus minus sum add added subtract multiply divide count counted equal
    equals"""
BANNED = {*INSTRUCTIONS.split(), *TASK.split(), *NUMBERS.split()}

Tokens = Callable[[str], int]
Measured = Mapping[str, NDArray[np.float64]]
Ratings = Mapping[str, NDArray[np.float64]]


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, hyphens and apostrophes inside them kept."""
    return re.findall(r"[a-z]+(?:[-'’][a-z]+)*", text.lower())


def sequences(text: str, length: int) -> set[str]:
    """Return every sequence of so many words of a text."""
    found = words(text)
    return {" ".join(found[at : at + length]) for at in range(len(found) - length + 1)}


def measured(texts: Sequence[str], tokens: Tokens) -> Measured:
    """Return each of `MEASURES` of each text, as arrays of shape (texts,)."""
    rows = [(tokens(text), len(words(text)), text.count("."), text.count(","), text.count("!")) for text in texts]
    return dict(zip(MEASURES, np.array(rows, dtype=np.float64).reshape(-1, len(MEASURES)).T, strict=True))


def standardised_difference(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the difference of two means in pooled standard deviations; infinite where only the means vary."""
    difference = float(one.mean() - other.mean())
    deviation = float(np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / 2))
    return difference / deviation if deviation else np.copysign(np.inf, difference) if difference else 0.0


def balances(tones: Mapping[str, Variant], tokens: Tokens) -> dict[str, tuple[float, float]]:
    """Return the standardised difference and the ratio of variances of positive against negative texts, by measure."""
    sides = {
        side: measured([text for tone in tones.values() if tone.valence == side for text in tone.paraphrases], tokens)
        for side in ("positive", "negative")
    }
    if any(len(side["tokens"]) < 2 for side in sides.values()):
        return {}
    pairs = {name: (sides["positive"][name], sides["negative"][name]) for name in MEASURES}
    return {name: (standardised_difference(*pair), _variance_ratio(*pair)) for name, pair in pairs.items()}


def _variance_ratio(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    variances = sorted([float(one.var(ddof=1)), float(other.var(ddof=1))])
    return variances[1] / variances[0] if variances[0] else 1.0 if not variances[1] else np.inf


def repeated(texts: Sequence[str]) -> dict[str, int]:
    """Return the sequences of `REPEATED` words that occur in more than `SHARING` texts, with the number of texts."""
    counts = Counter(sequence for text in texts for sequence in sequences(text, REPEATED))
    return {sequence: count for sequence, count in counts.items() if count > SHARING}


def duplicates(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of texts with the same words, or with `CLAUSE` words in a row that are the same."""
    by_clause: defaultdict[str, list[str]] = defaultdict(list)
    for text in texts:
        for clause in {" ".join(words(text)), *sequences(text, CLAUSE)}:
            by_clause[clause].append(text)
    return sorted({pair for sharing in by_clause.values() for pair in combinations(sharing, 2)})


def faults(tones: Mapping[str, Variant], tokens: Tokens) -> Iterator[str]:
    """Yield one line for each fault of the texts of tones.

    Args:
        tones: variants by name; those without a text are left out.
        tokens: returns the number of tokens of a text.
    """
    tones = {name: tone for name, tone in tones.items() if tone.paraphrases}
    most = max((len(tone.paraphrases) for tone in tones.values()), default=0)
    for name, tone in tones.items():
        texts = tone.paraphrases
        if len(texts) < max(LEAST, most):
            yield f"{name}: {len(texts)} texts; write at least {max(LEAST, most)}, as many as every other tone has"
        for text in texts:
            yield from (f"{name}: {problem}: {text}" for problem in _problems(text, tokens(text)))
        for sequence, count in repeated(texts).items():
            yield f"{name}: {count} texts contain {sequence!r}; at most {SHARING} may"
    every = [text for tone in tones.values() for text in tone.paraphrases]
    for one, other in duplicates(every):
        yield f"near-duplicates, write another: {one} | {other}"
    for opening, count in Counter(" ".join(words(text)[:OPENING]) for text in every).items():
        if count > 1:
            yield f"{count} texts begin with {opening!r}; begin each in another way"
    for measure, (difference, ratio) in balances(tones, tokens).items():
        if abs(difference) > DIFFERENCE or ratio > RATIO:
            yield (
                f"{measure}: positive texts differ from negative ones by {difference:+.2f} standard deviations, their "
                f"variances by a factor of {ratio:.2f}; balance them to {DIFFERENCE} and {RATIO:g}"
            )


def _problems(text: str, tokens: int) -> Iterator[str]:
    if tokens not in TOKENS:
        yield f"{tokens} tokens instead of {TOKENS[0]} to {TOKENS[-1]}"
    if banned := sorted(BANNED & set(words(text))):
        yield f"words of an instruction, task or number ({', '.join(banned)})"
    if re.search(r"[\d:?{}<>]", text):
        yield "a digit, colon, question mark or bracket"
    if text != text.strip() or not text[0].isupper() or text[-1] not in ".!":
        yield "does not begin with a capital and end with a full stop or exclamation mark"


def alpha(ratings: NDArray[np.float64]) -> float:
    """Return Krippendorff's α of interval data; NaN where all ratings are the same.

    One minus observed over expected disagreement, the mean squared difference of two ratings of one unit and of any
    two ratings (Krippendorff 2011, Computing Krippendorff's Alpha-Reliability).

    Args:
        ratings: of shape (units, raters), NaN where one is missing; a unit with one rating does not count.
    """
    units = [unit[~np.isnan(unit)] for unit in ratings]
    units = [unit for unit in units if len(unit) > 1]
    every = np.concatenate(units)
    expected = every.var(ddof=1)
    observed = sum(len(unit) * unit.var(ddof=1) for unit in units) / len(every)
    return float(1 - observed / expected) if expected else float("nan")


def rating_faults(tones: Mapping[str, Variant], ratings: Mapping[str, Ratings]) -> Iterator[str]:
    """Yield one line for each text, or tone, whose ratings contradict its label.

    Args:
        tones: variants by name.
        ratings: `valence` and `arousal` (1 to 7) and `instruction` (0 or 1: whether the text contains one) of each
            text, each as an array of shape (raters,).
    """
    arousal: dict[str, float] = {}
    for name, tone in tones.items():
        rated = [text for text in tone.paraphrases if text in ratings]
        for text in tone.paraphrases:
            if text not in ratings:
                yield f"{name}: not rated: {text}"
        for text in rated:
            mean = float(ratings[text]["valence"].mean())
            if not _agrees(tone.valence, mean):
                yield f"{name}: rated {mean:.1f} in valence, but labelled {tone.valence}: {text}"
            if (seeing := int(ratings[text]["instruction"].sum())) > 1:
                yield f"{name}: {seeing} raters see an instruction: {text}"
        if rated:
            arousal[name] = float(np.mean([ratings[text]["arousal"].mean() for text in rated]))
    for high, low in ((high, low) for high in arousal for low in arousal):
        labels = (tones[high].valence, tones[high].arousal, tones[low].arousal)
        if labels == (tones[low].valence, "high", "low") and arousal[high] <= arousal[low]:
            yield f"{high} is rated {arousal[high]:.1f} in arousal, {low} {arousal[low]:.1f}: exchange their labels"


def _agrees(valence: str | None, mean: float) -> bool:
    """Return whether a mean rating of valence is on the side of neutral that a label says."""
    if valence == "neutral":
        return abs(mean - NEUTRAL) <= NEAR
    return valence is None or (mean < NEUTRAL if valence == "negative" else mean > NEUTRAL)
