"""Human labels of answers that a judge judged: which are to be given, and which there are."""

from __future__ import annotations

import csv
import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emoprobe.analysis.outcomes import ANSWERED, HUMAN, PLACE
from emoprobe.config.experiment import Config
from emoprobe.config.science.judge import JudgeGrader
from emoprobe.conversations.judging import answers_of
from emoprobe.conversations.samples import sample_ids
from emoprobe.graders.registry import DTYPES
from emoprobe.results import atomic
from emoprobe.results.layout import Layout, draw_id
from emoprobe.results.trajectory import Trajectory

TRUTH = {"true": True, "1": True, "false": False, "0": False}


class LabelError(ValueError):
    """Raised for a file of labels that cannot be used; the message names file and line and says what to do."""


def label_id(seed: int, variant: str, name: str) -> str:
    """Return the name of an answer in the file of answers to label, which tells nobody the variant."""
    return hashlib.sha256(f"{seed}/{variant}/{name}".encode()).hexdigest()[:12]


def drawn_order(config: Config, samples: Iterable[str]) -> list[str]:
    """Return questions in the random order, which follows from the seed, in which they are to be labelled.

    It is drawn within each look of `analysis.looks`: those of an earlier look come first, in the order that they had.
    """
    seed, looks = config.experiment.seed, sorted(config.analysis.looks or ())
    places = {sample: place for place, sample in enumerate(sample_ids(config.dataset))} if looks else {}

    def rank(sample: str) -> tuple[int, bytes]:
        return bisect_right(looks, places.get(sample, 0)), hashlib.sha256(f"{seed}:label:{sample}".encode()).digest()

    return sorted(set(samples), key=rank)


def write_answers_to_label(config: Config, layout: Layout, table: pd.DataFrame) -> None:
    """Write `judgements/to_label.csv`: all answers, question by question in the drawn order, each under its id.

    People label from its top, both or all variants of a question, and stop where they planned to.
    """
    seed = config.experiment.seed
    place = {sample: number for number, sample in enumerate(drawn_order(config, table["sample_id"].astype(str)), 1)}
    rows: list[tuple[int, str, str, str]] = []
    for row in table[table["completion"].notna()].to_dict("records"):
        key = label_id(seed, row["variant"], draw_id(row["sample_id"], int(row["draw"])))
        question = "" if pd.isna(row["question"]) else str(row["question"])
        rows.append((place[row["sample_id"]], key, question, text_of(layout, row)))
    # By id within a question, so that the order of the variants is no order here.
    rows.sort(key=lambda row: row[:2])
    columns = ["question_number", "id", "question", "answer"]
    text = pd.DataFrame(rows, columns=columns).assign(value="").to_csv(index=False, lineterminator="\n")
    atomic.write_text(layout.to_label, text)


def text_of(layout: Layout, row: Mapping[Any, Any]) -> str:
    """Return the text that a judge was shown of a row of the trajectories: all answers of the model, joined."""
    folder = layout.pair(str(row["variant"]), draw_id(str(row["sample_id"]), int(row["draw"])))
    return "\n\n".join(answers_of(Trajectory.read(folder)))


def with_labels(config: Config, table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of trajectories with the columns of the labels; as it is where there are none.

    Raises:
        LabelError: a file of labels cannot be used.
    """
    judges = [judge for judge in config.judges if judge.labels is not None]
    if not judges:
        return table
    seed = config.experiment.seed
    keys = zip(table["variant"], table["sample_id"], table["draw"], strict=True)
    names = [(str(variant), draw_id(str(sample), int(draw))) for variant, sample, draw in keys]
    place = {sample: number for number, sample in enumerate(drawn_order(config, table["sample_id"].astype(str)))}
    columns: dict[str, Any] = {
        PLACE: table["sample_id"].astype(str).map(place),
        ANSWERED: np.where(table["completion"].notna(), 1.0, np.nan),
    }
    for judge in judges:
        known = _read(judge, seed, names)
        values = [known.get(name) for name in names]
        columns[HUMAN + judge.outcome] = pd.Series(values, index=table.index, dtype=DTYPES[judge.type])
    return table.assign(**columns)


def _read(judge: JudgeGrader, seed: int, names: list[tuple[str, str]]) -> dict[tuple[str, str], Any]:
    """Return the labels of a judge's file, by variant and folder."""
    path = Path(judge.labels or "")
    where = f"graders.{judge.outcome}.labels = {path}"
    ids, known = {label_id(seed, *name): name for name in names}, set(names)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelError(f"{where}: cannot be read ({error})") from None
    found: dict[tuple[str, str], Any] = {}
    for number, line in enumerate(lines, 2):
        if "value" not in line or not ("id" in line or {"variant", "sample"} <= line.keys()):
            raise LabelError(f"{where}: needs the columns value and id, or value, variant and sample")
        text = (line["value"] or "").strip()
        if not text:
            continue
        name = ids.get(line["id"] or "") if "id" in line else (line["variant"] or "", line["sample"] or "")
        if name is None or name not in known:
            raise LabelError(f"{where}, line {number}: is of no answer of this experiment; remove the line")
        if name in found:
            raise LabelError(f"{where}, line {number}: labels an answer twice; keep one")
        found[name] = _value(judge, text, f"{where}, line {number}")
    return found


def _value(judge: JudgeGrader, text: str, where: str) -> Any:
    if judge.type == "binary" and text.lower() in TRUTH:
        return TRUTH[text.lower()]
    if judge.type == "category" and text in judge.names:
        return text
    if judge.type == "number" and judge.values_in is not None:
        low, high = judge.values_in
        try:
            if low <= float(text) <= high:
                return float(text)
        except ValueError:
            pass
    raise LabelError(f"{where}: {text!r:.40} is no value of the judge; correct it")
