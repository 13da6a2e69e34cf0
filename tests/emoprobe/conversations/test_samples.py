"""Questions and gold answers from every kind of source."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emoprobe.config.experiment import Config
from emoprobe.config.files import Study, parse_config
from emoprobe.config.science.dataset import Dataset
from emoprobe.config.section import NAME
from emoprobe.conversations.samples import (
    DataError,
    Drawer,
    draw,
    draw_id,
    experiment_pairs,
    identity,
    located,
    row_digests,
    sample_id,
    sample_ids,
    sample_index,
    split_draw_id,
    with_ids,
)
from emoprobe.conversations.sources import check_source, hub
from emoprobe.conversations.variants import opening_messages
from emoprobe.graders.answers import gold_letter, gold_number
from emoprobe.results.activation_folder import METADATA
from emoprobe.results.layout import Layout
from emoprobe.results.record import DamagedError
from emoprobe.results.trajectory import Sample
from emoprobe.workflow.data_checks import repeated_questions
from scripts import push_activations
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
        ("3,5", None),
        ("#### 2,5", None),
        ("0,123", None),
        ("10,5%", None),
        ("1,2,3", None),
        ("1.234,56", Fraction(30864, 25)),
        ("1 234", 1234),
        ("1,00,000", 100_000),
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
    assert int(str(many[0].answer)) == many[0].source["row"] + 1


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
    [("nowhere.jsonl", "does not exist"), ("math", "must be gsm_symbolic"), ("data.txt", "must be gsm_symbolic")],
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
from emoprobe.conversations.samples import draw
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
    assert [int(str(sample.answer)) for sample in found] == [sample.source["row"] + 1 for sample in found]
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
        assert sample_index(Config(dataset=dataset), sample_id(dataset, index)) == index


def test_a_damaged_sample_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "gsm8k_0001.json").write_text("{")
    with pytest.raises(DamagedError, match="delete it and run again"):
        Sample.read(tmp_path / "gsm8k_0001.json")


def test_draws_have_folders_of_their_own() -> None:
    config = parse_config(
        {
            "dataset": {"samples": 2},
            "generation": {"temperature": 1.0, "draws": 3},
            "variants": {"control": {}, "v": {}},
        }
    )
    names = [name for variant, name in experiment_pairs(config) if variant == "v"]
    assert names == [
        "gsm8k_0001", "gsm8k_0001-d2", "gsm8k_0001-d3", "gsm8k_0002", "gsm8k_0002-d2", "gsm8k_0002-d3",
    ]  # fmt: skip
    assert len(set(experiment_pairs(config))) == 12
    assert sample_index(Config(), "gsm8k_0002-d3") == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gsm8k_0001", ("gsm8k_0001", 1)),
        ("gsm8k_0001-d2", ("gsm8k_0001", 2)),
        ("gsm8k_0001-d10", ("gsm8k_0001", 10)),
        ("my-d2_0001", ("my-d2_0001", 1)),
        ("my-d2_0001-d3", ("my-d2_0001", 3)),
        ("x_0001-d2_0001", ("x_0001-d2_0001", 1)),
        ("gsm8k_0001-d1", ("gsm8k_0001-d1", 1)),
        ("gsm8k_0001-d02", ("gsm8k_0001-d02", 1)),
        ("question-d2", ("question-d2", 1)),
        ("q1", ("q1", 1)),
        ("q_a-b-d2", ("q_a-b", 2)),
    ],
)
def test_names_of_draws_are_unambiguous(name: str, expected: tuple[str, int]) -> None:
    assert split_draw_id(name) == expected


@given(
    st.from_regex(NAME, fullmatch=True).filter(lambda name: len(name) <= 64), st.integers(0, 10**6), st.integers(1, 999)
)
def test_names_of_draws_read_back(prefix: str, index: int, draw_number: int) -> None:
    identifier = sample_id(Dataset.model_construct(id_prefix=prefix), index)
    assert split_draw_id(draw_id(identifier, draw_number)) == (identifier, draw_number)
    assert sample_index(Config(), draw_id(identifier, draw_number)) == index


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"), ("b", "B"), ("(B)", "B"), ("B.", "B"), (1, "B"), ("1", "B"), ("Rome", "B"), (" Rome ", "B"), (0, "A"),
        ("E", None), (4, None), (-1, None), ("4", None), ("Berlin", None), (None, None), (True, None), (1.0, None), ("", None),
    ],
)  # fmt: skip
def test_gold_letters(answer: Any, letter: str | None) -> None:
    assert gold_letter(answer, ["Paris", "Rome", "Oslo", "Bern"]) == letter


def test_a_gold_answer_that_may_mean_two_options_is_none() -> None:
    assert gold_letter("1", ["1", "2"]) is None  # the text of A, the index of B
    assert gold_letter("2", ["1", "2"]) == "B"
    assert gold_letter("B", ["B", "A"]) is None
    assert gold_letter("x", ["x", "x"]) is None
    many = [f"option {number}" for number in range(40)]
    assert gold_letter("option 25", many) == "Z"
    assert gold_letter("option 30", many) is gold_letter(30, many) is None


def test_multiple_choice_shows_its_options_and_has_a_letter(tmp_path: Path) -> None:
    rows = [{"q": {"text": "Capital?"}, "options": {"text": ["Paris", "Rome"]}, "key": "B", "area": 7}]
    path = write_jsonl(tmp_path / "d.jsonl", rows)
    columns: dict[str, Any] = {"question": "q.text", "answer": "key", "choices": "options.text", "group": "area"}
    (sample,) = draw(Dataset(source=str(path), samples=1, **columns), 0)
    assert sample.question == "Capital?\nA. Paris\nB. Rome"
    assert (sample.answer, sample.choices, sample.group) == ("B", ["Paris", "Rome"], "7")
    pd.DataFrame(rows).to_parquet(tmp_path / "d.parquet")
    assert list(draw(Dataset(source=str(tmp_path / "d.parquet"), samples=1, **columns), 0)) == [sample]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"options": "A or B", "answer": "A"}, ["row 1", "2 to 26 options", "'options'", "dataset.choices"]),
        ({"options": ["x"], "answer": "A"}, ["2 to 26 options"]),
        ({"options": ["x", 3], "answer": "A"}, ["2 to 26 options"]),
        ({"options": ["x", " "], "answer": "A"}, ["2 to 26 options"]),
        ({"options": ["x", "y"], "answer": "C"}, ["'answer'", "letter, index (from 0) or text", "'C'"]),
        ({"answer": "C"}, ["no column 'options'", "dataset.choices", "question, answer"]),
    ],
)
def test_bad_options_are_named(tmp_path: Path, row: dict[str, Any], words: list[str]) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", [{"question": "a?", **row}])
    with pytest.raises(DataError) as caught:
        list(draw(Dataset(source=str(path), samples=1, choices="options"), 0))
    for word in words:
        assert word in str(caught.value)


def test_a_missing_nested_column_is_named_with_those_there_are(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", [{"question": "a?", "answer": {"number": 3, "unit": "m"}}])
    (sample,) = draw(Dataset(source=str(path), samples=1, answer="answer.number"), 0)
    assert sample.answer == "3"
    with pytest.raises(DataError, match=r"no column 'answer\.value'.*question, answer\.number, answer\.unit"):
        list(draw(Dataset(source=str(path), samples=1, answer="answer.value"), 0))


def test_the_embedded_samples_have_their_template_as_group() -> None:
    groups = [sample.group or "" for sample in draw(Dataset(samples=100), 42)]
    assert all(group.startswith("gsm_symbolic:") for group in groups)
    assert 30 < len(set(groups)) < 100


def reasoning_task(name: str, samples: int = 12, **arguments: Any) -> Dataset:
    return Dataset(source=f"reasoning_gym:{name}", arguments=arguments, samples=samples)


def test_tasks_keep_what_their_difficulty_varies_in() -> None:
    varied = [sample.group or "" for sample in draw(reasoning_task("chain_sum", max_terms=3, max_digits=1), 1)]
    assert set(varied) == {"num_terms=2", "num_terms=3"}
    assert {sample.group for sample in draw(reasoning_task("products", max_digits=1), 1)} == {None}
    kinds = {sample.group for sample in draw(reasoning_task("aiw"), 1)}
    assert len(kinds) > 1


# Tasks with numbers as answers, which rows must follow from seed and position alone.
NUMERIC_TASKS = (
    "aiw", "basic_arithmetic", "binary_alternation", "chain_sum", "circuit_logic", "coin_flip",
    "count_bits", "count_primes", "decimal_arithmetic", "decimal_chain_sum", "dice", "gcd", "gsm_symbolic",
    "largest_island", "lcm", "leg_counting", "letter_counting", "maze", "number_format", "number_sequence",
    "power_function", "products", "rectangle_count", "rotten_oranges", "self_reference", "simple_equations",
    "simple_geometry",
)  # fmt: skip


@pytest.mark.parametrize("task", NUMERIC_TASKS)
def test_the_first_rows_of_a_task_do_not_depend_on_how_many_or_in_which_order(task: str) -> None:
    few, many = (Drawer(reasoning_task(task, samples), 3) for samples in (2, 6))
    backwards = [many.sample(index) for index in reversed(range(6))][::-1]
    assert [few.sample(index) for index in range(2)] == backwards[:2]
    assert len({sample.question for sample in backwards}) == 6
    assert all(Fraction(str(sample.answer)) is not None for sample in backwards)


def test_a_task_asks_nothing_twice() -> None:
    found = list(draw(reasoning_task("products", samples=100, max_digits=1), 42))
    assert len({sample.question for sample in found}) == 100
    with pytest.raises(DataError, match=r"dataset\.samples = 101: .* only 100 different questions"):
        Drawer(reasoning_task("products", samples=101, max_digits=1), 42)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (
            reasoning_task("chain_sums"),
            ["dataset.source", "no task 'chain_sums'", "did you mean reasoning_gym:chain_sum?"],
        ),
        (reasoning_task("chain_sum", max_term=2), ["dataset.arguments.max_term", "did you mean 'max_terms'?"]),
        (reasoning_task("chain_sum", max_terms=1), ["dataset.arguments", "max_terms must be >= min_terms"]),
        (reasoning_task("chain_sum", max_terms="x"), ["dataset.arguments", "TypeError"]),
        (reasoning_task("chain_sum", seed=1), ["dataset.arguments.seed", "set by the experiment"]),
        (reasoning_task("chain_sum", size=9), ["dataset.arguments.size", "set by the experiment"]),
        (reasoning_task("spell_backward"), ["no number as answer"]),
    ],
)
def test_bad_tasks_are_named(dataset: Dataset, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        list(draw(dataset, 0))
    for word in words:
        assert word in str(caught.value)
    assert len(check_source(dataset, 0)) == 1


@pytest.fixture
def local_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with two configurations, as a clone from the hub has them."""
    folder = tmp_path / "sums"
    folder.mkdir()
    for name, offset in (("small", 0), ("large", 1000)):
        write_jsonl(
            folder / f"{name}.jsonl",
            [
                {"q": f"{number + offset}?", "a": {"value": number + offset}, "kind": f"k{number % 2}"}
                for number in range(9)
            ],
        )
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: dev\n    path: {name}.jsonl\n" for name in ("small", "large")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_hugging_face_data_set_has_a_path_config_split_and_columns(local_hub: Path) -> None:
    settings: dict[str, Any] = {"split": "dev", "question": "q", "answer": "a.value", "group": "kind", "samples": 4}
    found = list(draw(Dataset(source="./sums", config="large", **settings), 3))
    assert all(sample.question == f"{sample.answer}?" for sample in found)
    assert all(int(str(sample.answer)) == 1000 + sample.source["row"] for sample in found)
    assert {sample.group for sample in found} <= {"k0", "k1"}
    assert list(draw(Dataset(source="./sums", config="large", **settings | {"samples": 9}), 3))[:4] == found
    small = list(draw(Dataset(source=str(local_hub), config="small", **settings), 3))
    assert [sample.source["row"] for sample in small] == [sample.source["row"] for sample in found]
    with pytest.raises(DataError, match=r"dataset\.source: \./sums, config huge, split dev, could not be read"):
        list(draw(Dataset(source="./sums", config="huge", **settings), 3))
    with pytest.raises(DataError, match="only 9 rows in split dev"):
        list(draw(Dataset(source="./sums", config="small", **settings | {"samples": 10}), 3))
    with pytest.raises(DataError, match=r"no column 'question'.*dataset\.question.*q, a\.value, kind"):
        list(draw(Dataset(source="./sums", config="small", split="dev", samples=1), 3))


def test_the_identity_of_local_data_covers_its_content(local_hub: Path) -> None:
    dataset = Dataset(source="./sums", config="small")
    before = identity(dataset, 1)
    assert identity(Dataset(source="./sums", config="small", samples=99), 1) == before
    assert identity(dataset, 2) != before
    (local_hub / "small.jsonl").write_text('{"q": "1?", "a": {"value": 1}}\n')
    assert identity(dataset, 1) != before


def test_local_data_is_found_from_elsewhere(tmp_path: Path) -> None:
    for source in ("./sums", "sums.jsonl", "../sums.parquet"):
        assert located(Dataset(source=source), tmp_path).source == str(tmp_path / source)
    for source in ("/data/sums", "gsm8k", "gsm_symbolic", "owner/name", "reasoning_gym:gcd"):
        assert located(Dataset(source=source), tmp_path).source == source


THREADS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from emoprobe.config.science.dataset import Dataset
from emoprobe.conversations.sources.reasoning_gym import open_task
sys.setswitchinterval(1e-5)
tasks = ["gsm_symbolic", "reasoning_gym:chain_sum", "reasoning_gym:simple_equations", "reasoning_gym:gcd"] * 2
with ThreadPoolExecutor(len(tasks)) as pool:
    found = list(pool.map(lambda task: len(open_task(Dataset(source=task, samples=2), 42).row(1).question) > 0, tasks))
import reasoning_gym
print(all(found), len(reasoning_gym.create_dataset("gcd", seed=1, size=3)))
"""


def test_tasks_are_opened_by_threads_side_by_side() -> None:
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout == "True 3\n", done.stderr[-2000:]


@pytest.mark.parametrize("name", ["plain", "a[1]*?", "(2) O'N & #7; 10:30 {x} %2e ~$H"])
def test_a_local_directory_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / name / "set"
    folder.mkdir(parents=True)
    write_jsonl(folder / "test.jsonl", rows(5))
    assert len(list(draw(Dataset(source=str(folder), split="test", samples=5), 1))) == 5


def named_rows(*names: Any) -> list[dict[str, Any]]:
    return [{"uid": name, "question": f"What is {name} + 1?", "answer": "1"} for name in names]


def own(path: Path, samples: int) -> Config:
    return parse_config(
        {
            "dataset": {"source": str(path), "samples": samples, "id": "uid", "id_prefix": "q"},
            "variants": {"control": {}, "joy": {"texts": [f"Lovely {number}!" for number in range(5)]}},
        }
    )


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz", "data.csv", "data.csv.gz", "data.parquet"])
def test_rows_added_at_both_ends_change_nothing_of_the_others(tmp_path: Path, name: str) -> None:
    """Names, order, files, digests and texts of the rows with ids stay, whatever comes before and after them."""

    def drawn(*names: Any) -> tuple[dict[str, Any], Config]:
        path = tmp_path / name
        frame = pd.DataFrame(named_rows(*names))
        if name.endswith(".parquet"):
            frame.to_parquet(path)
        elif ".csv" in name:
            frame.to_csv(path, index=False)
        else:
            frame.to_json(path, orient="records", lines=True)
        config = with_ids(own(path, len(names)))
        seed, drawer = config.experiment.seed, Drawer(config.dataset, config.experiment.seed)
        digests = row_digests(config.dataset, seed)
        found = {}
        for sample in sample_ids(config.dataset):
            made = drawer.named(sample)
            assert made.index == sample_index(config, sample) == sample_index(config, f"{sample}-d2")
            found[sample] = (made, digests[sample], opening_messages(config, "joy", made.question, made.index))
        assert [made for made, *_ in found.values()] == list(draw(config.dataset, seed))
        return found, config

    before, config = drawn(*map(str, range(100, 120)))
    after, larger = drawn("new-1", *map(str, range(100, 120)), "new_2", "7")
    assert [sample for sample in after if sample in before] == list(before)
    assert {sample: after[sample] for sample in before} == before
    assert set(after) - set(before) == {"q_new-1", "q_new_2", "q_7"}
    assert identity(config.dataset, 42) == identity(larger.dataset, 42)
    texts = {made[2][-1]["content"].split("!")[0] for made in before.values()}
    assert len(texts) >= 4  # 20 questions take nearly all of five texts
    assert list(drawn(*map(str, reversed(range(100, 120))))[0]) == list(before)


def test_a_file_with_ids_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", named_rows("a", "b"))
    opened: list[Drawer] = []
    made = Drawer.__init__

    def count(self: Drawer, *values: Any) -> None:
        opened.append(self)
        made(self, *values)

    monkeypatch.setattr(Drawer, "__init__", count)
    config = with_ids(own(path, 2))
    assert sorted(row_digests(config.dataset, config.experiment.seed)) == sorted(sample_ids(config.dataset))
    assert len(opened) == 1
    write_jsonl(path, named_rows("a", "other"))
    assert sorted(sample_ids(with_ids(own(path, 2)).dataset)) == ["q_a", "q_other"]
    assert len(opened) == 2


def test_activations_are_copied_without_the_file_of_the_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {
        "dataset": {"source": "gone.jsonl", "id": "uid"},
        "variants": {"control": {}},
        "storage": {"url": "s3://b/p"},
    }
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config))
    layout = Layout(tmp_path / "run")
    for name in ("control/gsm8k_a", "removed/gsm8k_a"):
        folder = layout.root / "activations" / name
        folder.mkdir(parents=True)
        (folder / METADATA).write_text("{}")
    pushed: list[tuple[str, str]] = []
    monkeypatch.setattr(sys, "argv", ["push", "--config", str(path), "--experiment", str(layout.root)])
    monkeypatch.setattr(push_activations, "push", lambda _, pairs, settings: pushed.extend(pairs))
    push_activations.main()
    assert pushed == [("control", "gsm8k_a")]


@pytest.mark.parametrize(
    ("names", "row", "words"),
    [
        ([1, 2, 1], "row 3 of", "has the id of row 1"),
        (["a", "A"], "row 2 of", "has the id of row 1"),
        (["a", ""], "row 2 of", "has no id in column 'uid'"),
        (["a", None], "row 2 of", "has no id"),
        ([True], "row 1 of", "has no id"),
        ([1.5], "row 1 of", "has no id"),
        (["a/b"], "row 1 of", "cannot be the name of a folder"),
        (["../b"], "row 1 of", "cannot be the name of a folder"),
        (["a.b"], "row 1 of", "cannot be the name of a folder"),
        (["x" * 70], "row 1 of", "at most 64 characters"),
        (["a-d2"], "row 1 of", "no -d2 at its end"),
    ],
)
def test_ids_that_cannot_be_used_are_named(tmp_path: Path, names: list[Any], row: str, words: str) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", named_rows(*names))
    with pytest.raises(DataError) as caught:
        with_ids(own(path, 1))
    assert f"{row} {path}" in str(caught.value)
    assert words in str(caught.value)


def test_a_column_of_ids_that_is_missing_is_named(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "data.jsonl", [{"question": "1 + 1?", "answer": "2"}])
    with pytest.raises(DataError, match=r"name the column of the id in dataset\.id"):
        with_ids(own(path, 1))


def test_questions_that_come_up_more_than_once_are_counted(tmp_path: Path) -> None:
    asked = [("a", "1"), ("b", "2"), ("a", "1"), ("b", "3"), ("c", "1")]
    path = write_jsonl(
        tmp_path / "data.jsonl", [{"question": question, "answer": answer} for question, answer in asked]
    )
    config = parse_config({"dataset": {"source": str(path), "samples": 5}})
    (line,) = repeated_questions(Study(None, {"x": config}), None)
    assert line.startswith(
        "x: dataset.source: 2 questions come up more than once, in 4 of 5 samples; 2 of these are equal"
    )
    assert repeated_questions(Study(None, {"x": own(write_jsonl(path, named_rows(1, 2)), 2)}), None) == []
