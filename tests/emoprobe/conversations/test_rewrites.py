"""The shipped rewrites of questions, and transforms that read a file beside their module."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from config.experiments import rewrites
from emoprobe.config.files import load_config, parse_config
from emoprobe.conversations.samples import draw
from emoprobe.conversations.variants import TransformError, identity, opening_messages
from tests.workspace import ROOT

SHIPPED = ROOT / "config/experiments/rewrites.yaml"
TONES = ("neutral", "frustration", "impatience", "excitement")


def numbers(text: str) -> Counter[str]:
    return Counter(re.findall(r"\d+", text))


@pytest.mark.parametrize("row", rewrites.ROWS, ids=lambda row: str(row["id"]))
def test_rewrites_keep_the_numbers_and_so_the_answer(row: dict[str, str]) -> None:
    assert eval(row["equation"]) == row["answer"]
    for text in (row["question"], *(row[tone] for tone in TONES)):
        assert numbers(text) == numbers(row["equation"])
    assert len({row["question"], *(row[tone] for tone in TONES)}) == 1 + len(TONES)


def test_every_question_is_asked_in_the_words_of_its_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config(SHIPPED)
    samples = list(draw(config.dataset, config.experiment.seed))
    rows = {f"problem_{row['id']}": row for row in rewrites.ROWS}
    assert {sample.sample_id for sample in samples} == rows.keys()
    for sample in samples:
        row, asked = rows[sample.sample_id], opening_messages(config, "control", sample.question, sample.index)
        for tone in TONES:
            found = opening_messages(config, f"{tone}_rewritten", sample.question, sample.index)
            expected = asked[-1]["content"].replace(row["question"], row[tone])
            assert found == [*asked[:-1], {"role": "user", "content": expected}]
    with pytest.raises(TransformError, match="add a row for it"):
        opening_messages(config, "neutral_rewritten", "What is 2 + 3?", 0)


def test_a_file_beside_a_module_is_part_of_its_transform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "table_of_words.py").write_text("def same(messages):\n    return messages\n")
    config = parse_config({"variants": {"control": {}, "other": {"transform": "table_of_words:same"}}})
    found = [identity(config, "other")]
    for name, text in (("table_of_words.jsonl", "{}\n"), ("table_of_words.jsonl", "[]\n"), ("table.jsonl", "{}\n")):
        (tmp_path / name).write_text(text)
        found.append(identity(config, "other"))
    assert len(set(found)) == 3
    assert found[2] == found[3]
