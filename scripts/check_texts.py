"""Check the texts of tones and their ratings: lengths, repetitions, balance between valences, agreement."""

import argparse
import csv
import hashlib
import random
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from emoprobe.config.errors import ConfigError
from emoprobe.config.files import parse_config
from emoprobe.config.reading import merged, read_config_values
from emoprobe.config.science.prompt import Variant
from emoprobe.conversations import tones as checks
from emoprobe.results import atomic

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT / "results/models/smollm2-135m-instruct/tokenizer.json"
RATINGS = ROOT / "config/tones/ratings.csv"
SCALES = {"valence": range(1, 8), "arousal": range(1, 8), "instruction": range(2)}


class RatingError(ValueError):
    """Raised when a file of ratings is unreadable; the message names the file and the line."""


def tones_of(paths: Iterable[Path]) -> dict[str, Variant]:
    """Return the variants with texts of several configuration files together.

    Raises:
        ConfigError: a file cannot be used.
    """
    values: dict[str, object] = {"variants": {"control": {}}}
    for path in paths:
        values = merged(values, {"variants": read_config_values(path).get("variants", {})})
    return {name: variant for name, variant in parse_config(values).variants.items() if variant.paraphrases}


def identifier(text: str) -> str:
    """Return eight hexadecimal digits that stand for a text and reveal nothing of its tone."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def sheet(tones: Mapping[str, Variant], seed: int) -> str:
    """Return a sheet for raters who do not know the tones: all texts with identifiers, in a seeded random order."""
    texts = [text for tone in tones.values() for text in tone.paraphrases]
    random.Random(seed).shuffle(texts)
    return "".join(f"{line}\n" for line in ["id\ttext", *(f"{identifier(text)}\t{text}" for text in texts)])


def combined(tones: Mapping[str, Variant], paths: list[Path]) -> str:
    """Return the table of ratings (CSV) from one filled sheet for each rater.

    Raises:
        RatingError: a sheet lacks a text, or a rating is not on its scale.
    """
    sheets = [_rows(path, "\t") for path in paths]
    lines = [",".join(["tone", "text", *(f"{name}_{n + 1}" for name in SCALES for n in range(len(paths)))])]
    for tone, variant in tones.items():
        for text in variant.paraphrases:
            rows = [rows.get(identifier(text)) for rows in sheets]
            for path, row in zip(paths, rows, strict=True):
                if row is None or any(not _on_scale(name, row.get(name)) for name in SCALES):
                    raise RatingError(f"{path}: no complete rating of {identifier(text)} ({text})")
            quoted = '"' + text.replace('"', '""') + '"'
            lines.append(",".join([tone, quoted, *(str(row[name]) for name in SCALES for row in rows if row)]))
    return "".join(f"{line}\n" for line in lines)


def _rows(path: Path, delimiter: str) -> dict[str, dict[str, str]]:
    """Return the rows of a table by their identifier."""
    with path.open(encoding="utf-8", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file, delimiter=delimiter) if row.get("id")}


def _on_scale(name: str, value: str | None) -> bool:
    return value is not None and value.strip().isdecimal() and int(value) in SCALES[name]


def read_ratings(path: Path) -> dict[str, checks.Ratings]:
    """Return the ratings of each text, each as an array of shape (raters,).

    Raises:
        RatingError: a rating is not on its scale.
    """
    ratings: dict[str, checks.Ratings] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            by_scale = {name: [value for key, value in row.items() if key.startswith(f"{name}_")] for name in SCALES}
            for name, values in by_scale.items():
                if not values or not all(_on_scale(name, value) for value in values):
                    raise RatingError(f"{path}, line {number}: no {name} from {SCALES[name][0]} to {SCALES[name][-1]}")
            ratings[row["text"]] = {name: np.array(values, dtype=np.float64) for name, values in by_scale.items()}
    return ratings


def print_texts(tones: Mapping[str, Variant], tokens: checks.Tokens) -> None:
    """Print mean and standard deviation of each measure by tone, and the balance between the valences."""
    print(f"{'tone':16}{'texts':>6}{'near-dup.':>10}{'4-grams':>8}", *(f"{name:>18}" for name in checks.MEASURES))
    for name, tone in tones.items():
        texts = tone.paraphrases
        cells = [
            f"{values.mean():9.2f} ± {values.std(ddof=1) if len(values) > 1 else 0:5.2f}"
            for values in checks.measured(texts, tokens).values()
        ]
        repeated, alike = len(checks.repeated(texts)), len(checks.duplicates(texts))
        print(f"{name:16}{len(texts):6}{alike:10}{repeated:8}", *(f"{cell:>18}" for cell in cells))
    for name, (difference, ratio) in checks.balances(tones, tokens).items():
        print(f"positive − negative, {name}: {difference:+.2f} standard deviations; ratio of variances {ratio:.2f}")


def print_ratings(tones: Mapping[str, Variant], ratings: Mapping[str, checks.Ratings]) -> None:
    """Print the mean ratings of each tone and the agreement of the raters."""
    rated = {name: [ratings[text] for text in tone.paraphrases if text in ratings] for name, tone in tones.items()}
    for name, rows in rated.items():
        if rows:
            means = (f"{scale} {np.mean([row[scale].mean() for row in rows]):.2f}" for scale in SCALES)
            print(f"{name}, mean ratings of {len(rows)} texts: {', '.join(means)}")
    every = [row for rows in rated.values() for row in rows]
    for scale in SCALES if every else ():
        values = np.array([row[scale] for row in every])
        alpha = checks.alpha(values)
        agreement = "all ratings are the same" if np.isnan(alpha) else f"Krippendorff's α {alpha:.2f}"
        print(f"{scale}, {values.shape[1]} raters: {agreement}")


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", nargs="+", type=Path, metavar="CONFIG", help="files with variants; checked together")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER, help="tokenizer.json (default: %(default)s)")
    parser.add_argument("--ratings", type=Path, default=RATINGS, help="table of ratings (default: %(default)s)")
    parser.add_argument("--sheet", type=Path, help="only write a sheet for raters, with id and text in random order")
    parser.add_argument("--seed", type=int, default=0, help="of that order (default: 0)")
    parser.add_argument(
        "--sheets",
        nargs="+",
        type=Path,
        help="only write the table of ratings, from one sheet for each rater with the columns id, "
        "valence and arousal (1 to 7), and instruction (0 or 1)",
    )
    arguments = parser.parse_args()
    try:
        tones = tones_of(arguments.configs)
        if arguments.sheet is not None:
            return atomic.write_text(arguments.sheet, sheet(tones, arguments.seed))
        if arguments.sheets is not None:
            return atomic.write_text(arguments.ratings, combined(tones, arguments.sheets))
        ratings = read_ratings(arguments.ratings) if arguments.ratings.exists() else {}
    except (ConfigError, RatingError) as error:
        parser.exit(2, f"{error}\n")
    if not arguments.tokenizer.is_file():
        parser.exit(
            2, f"--tokenizer {arguments.tokenizer}: no such file; a run of config/config.yaml prepares the model\n"
        )
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
    tokens = cache(lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids))
    print_texts(tones, tokens)
    print_ratings(tones, ratings)
    faults = [*checks.faults(tones, tokens), *(checks.rating_faults(tones, ratings) if ratings else ())]
    for fault in faults:
        print(fault, file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
