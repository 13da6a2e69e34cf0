"""Questions and gold answers from every kind of source."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from emoprobe.config.science.dataset import Dataset
from emoprobe.results.record import DamagedError
from emoprobe.results.sample import Sample
from emoprobe.tasks.gold import gold_number
from emoprobe.tasks.samples import (
    DataError,
    draw,
    sample_id,
    sample_ids,
    sample_index,
)
from emoprobe.tasks.sources import hub
from tests.workspace import ROOT

SHARED_GSM8K = Path(__file__).parents[4] / "shared/data/gsm8k/test.jsonl"


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(count: int) -> list[dict[str, str]]:
    return [{"question": f"What is {number} + 1?", "answer": f"work\n#### {number + 1}"} for number in range(count)]


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("18", 18),
        (18, 18),
        (18.5, Fraction(37, 2)),
        (0.1, Fraction(1, 10)),
        ("work = 5\n#### 1,234", 1234),
        ("#### $1,234.50", Fraction(2469, 2)),
        ("#### -3", -3),
        ("#### 45%", 45),
        ("3/4", Fraction(3, 4)),
        ("70.", 70),
        (" 12 ", 12),
        ("twelve", None),
        ("", None),
        ("#### ", None),
        ("12 apples", None),
        (None, None),
        (True, None),
        (float("nan"), None),
        (float("inf"), None),
    ],
)
def test_gold_answers(answer: Any, gold: Fraction | int | None) -> None:
    assert gold_number(answer) == gold


def test_the_embedded_samples_stay_the_same_when_more_are_drawn() -> None:
    few, many = (list(draw(Dataset(samples=count), 42)) for count in (4, 12))
    assert [sample.sample_id for sample in few] == ["gsm8k_0001", "gsm8k_0002", "gsm8k_0003", "gsm8k_0004"]
    assert many[:4] == few
    assert list(draw(Dataset(samples=4), 43)) != few


def test_a_file_is_permuted_by_seed_and_its_beginning_stays(tmp_path: Path) -> None:
    source = str(write_jsonl(tmp_path / "d.jsonl", rows(50)))
    few, many = (list(draw(Dataset(source=source, samples=count), 7)) for count in (5, 50))
    assert many[:5] == few
    assert sorted(sample.source["row"] for sample in many) == list(range(50))
    assert [sample.source["row"] for sample in many] != list(range(50))
    assert many[0].question == f"What is {many[0].source['row']} + 1?"
    assert int(many[0].answer) == many[0].source["row"] + 1


def test_parquet_gives_what_jsonl_gives(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl", rows(20))
    pd.DataFrame(rows(20)).to_parquet(tmp_path / "d.parquet")
    found = [list(draw(Dataset(source=str(tmp_path / name), samples=9), 1)) for name in ("d.jsonl", "d.parquet")]
    assert found[0] == found[1]


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", [{"q": "1 + 1?", "n": 2}])
    (sample,) = draw(Dataset(source=str(path), samples=1, question="q", answer="n"), 0)
    assert (sample.question, sample.answer) == ("1 + 1?", "2")


@pytest.mark.parametrize(
    ("content", "dataset", "words"),
    [
        (b"", {}, ["is empty"]),
        (b'{"question": "a?", "answer": "1"}\n{broken\n', {"samples": 2}, ["line 2", "no JSON"]),
        (b"[1, 2]\n", {}, ["line 1", "no JSON object"]),
        (b'{"question": "\xff", "answer": "1"}\n', {}, ["line 1", "UTF-8", "iconv"]),
        ('{"question": "a?", "answer": "1"}'.encode("utf-16"), {}, ["line 1", "UTF-8", "iconv"]),
        ('{"question": "a?", "answer": "1"}'.encode("utf-16-be"), {}, ["line 1", "UTF-8", "iconv"]),
        ('{"question": "a?", "answer": "1"}'.encode("utf-32"), {}, ["line 1", "UTF-8", "iconv"]),
        ('{"question": "Käse?", "answer": "1"}'.encode("latin-1"), {}, ["line 1", "UTF-8", "iconv"]),
        (b"[" * 100_000, {}, ["line 1", "no JSON"]),
        (b"\x1f\x8b\x08\x00compressed", {}, ["line 1", "UTF-8"]),
        (b'{"query": "a?", "answer": "1"}\n', {}, ["no column 'question'", "dataset.question", "query, answer"]),
        (b'{"question": "a?", "gold": "1"}\n', {}, ["no column 'answer'", "dataset.answer"]),
        (b'{"question": "", "answer": "1"}\n', {}, ["row 1", "no question"]),
        (b'{"question": null, "answer": "1"}\n', {}, ["row 1", "no question"]),
        (b'{"question": "a?", "answer": "many"}\n', {}, ["row 1", "no number", "many"]),
        (b'{"question": "a?", "answer": "1"}\n', {"samples": 2}, ["dataset.samples = 2", "only 1 rows"]),
    ],
)
def test_bad_files_are_named_with_their_line(
    tmp_path: Path, content: bytes, dataset: dict[str, Any], words: list[str]
) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(draw(Dataset(**{"source": str(path), "samples": 1, **dataset}), 0))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("source", "word"),
    [("nowhere.jsonl", "does not exist"), ("math", "must be gsm_symbolic"), ("data.csv", "must be gsm_symbolic")],
)
def test_unknown_sources_are_refused(source: str, word: str) -> None:
    with pytest.raises(DataError, match=word):
        list(draw(Dataset(source=source, samples=1), 0))


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "d.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="no readable Parquet"):
        list(draw(Dataset(source=str(tmp_path / "d.parquet"), samples=1), 0))


MILLION = """
import resource, sys
from emoprobe.config.science.dataset import Dataset
from emoprobe.tasks.samples import draw
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = list(draw(Dataset(source=sys.argv[1], samples=5), 1))
print(len(found), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_million_rows_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    with open(path, "w") as file:
        file.writelines(f'{{"question": "What is {row} + 1?", "answer": {row + 1}}}\n' for row in range(1_000_000))
    done = subprocess.run(
        [sys.executable, "-c", MILLION, str(path)], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120
    )
    count, mebibytes = map(int, done.stdout.split())
    assert count == 5
    assert mebibytes < 500


def test_byte_order_mark_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_bytes(b'\xef\xbb\xbf{"question": "a?", "answer": "1"}\n\n  \n')
    (sample,) = draw(Dataset(source=str(tmp_path / "d.jsonl"), samples=1), 0)
    assert sample.question == "a?"


def test_gsm8k_is_loaded_by_the_datasets_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gsm8k").mkdir()
    write_jsonl(tmp_path / "gsm8k/test.jsonl", rows(10))
    (tmp_path / "gsm8k/README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: test\n    path: test.jsonl\n---\n"
    )
    monkeypatch.setitem(hub.SHORT_NAMES, "gsm8k", (str(tmp_path / "gsm8k"), "main"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    found = list(draw(Dataset(source="gsm8k", samples=3), 5))
    assert [int(sample.answer) for sample in found] == [sample.source["row"] + 1 for sample in found]
    with pytest.raises(DataError, match="only 10 rows in split test"):
        list(draw(Dataset(source="gsm8k", samples=11), 5))
    with pytest.raises(DataError, match="split valid"):
        list(draw(Dataset(source="gsm8k", split="valid", samples=1), 5))


@pytest.mark.skipif(not SHARED_GSM8K.exists(), reason="the GSM8K file is not beside the project")
def test_every_gold_answer_of_gsm8k_is_a_number() -> None:
    found = list(draw(Dataset(source=str(SHARED_GSM8K), samples=1319), 42))
    assert len({sample.sample_id for sample in found}) == 1319


def test_ids_follow_from_the_config_alone() -> None:
    dataset = Dataset(samples=12_000)
    assert sample_ids(dataset)[-1] == "gsm8k_12000"
    for index in (0, 41, 9_999, 11_999):
        assert sample_index(sample_id(dataset, index)) == index


def test_a_damaged_sample_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "gsm8k_0001.json").write_text("{")
    with pytest.raises(DamagedError, match="delete it and run again"):
        Sample.read(tmp_path / "gsm8k_0001.json")
