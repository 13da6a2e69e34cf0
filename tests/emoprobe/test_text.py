"""Any text that a question, a variant or an answer may hold goes through every file unchanged."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emoprobe import load_config
from emoprobe.analysis.trajectory_table import count_steps, trajectory_table
from emoprobe.config.errors import ConfigError
from emoprobe.config.files import parse_config
from emoprobe.config.reading import to_yaml
from emoprobe.config.science.dataset import Dataset
from emoprobe.conversations.responses import ResponseError, check_response
from emoprobe.conversations.samples import DataError, draw
from emoprobe.conversations.variants import TransformError, apply_transform
from emoprobe.results import atomic
from emoprobe.results.layout import Layout
from emoprobe.results.tables import read_table, write_table
from emoprobe.results.trajectory import Sample, Trajectory
from emoprobe.stages.folder import analyze_folder
from emoprobe.text import first_line, half_surrogate, split_lines
from tests.workspace import ROOT

# What `str.splitlines`, universal newlines or YAML take for the end of a line.
BREAKS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
CONTROLS = ["\x00", "\x1b", "\x7f", "\x9f", "\ufeff", "\ufffe", "\U0001f600"]
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Modules that may call `splitlines`, and why: what they split is neither a user's text nor a model's.
MAY_SPLIT = {
    "emoprobe/models/hardware.py": "what nvidia-smi lists",
    "emoprobe/graders/extraction.py": "an answer, held to the cases of the grader",
    "emoprobe/graders/grading.py": "an answer, held to the cases of the grader",
    "emoprobe/workflow/heavy_checks.py": "what a process of our own prints",
    "emoprobe/workflow/model_checks.py": "a file of /proc",
    "server/pool/client.py": "a file of /proc",
    "emoprobe/workflow/outcome.py": "a log, to indent it for a person",
    "emoprobe/workflow/progress.py": "the first line of a log, for a person",
    "scripts/lock.py": "a lock file",
    "server/deploy/skypilot.py": "what SkyPilot prints",
    "server/pool/launch.py": "what nvidia-smi lists",
    "server/pool/server_log.py": "a server's log, for a person",
    "server/pool/slurm/cluster.py": "what SLURM's commands list",
    "server/supervisor.py": "files of /proc",
}


def test_nothing_else_splits_at_more_than_line_feeds() -> None:
    found = set()
    for folder in ("emoprobe", "server", "scripts", "snakemake_scheduler_plugin_emoprobe"):
        for path in (ROOT / folder).rglob("*.py"):
            calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute))
            if any(call.attr == "splitlines" for call in calls):
                found.add(str(path.relative_to(ROOT)))
    assert found <= MAY_SPLIT.keys(), "use emoprobe.text.split_lines, or say here why the text is nobody's"


@pytest.mark.parametrize("character", BREAKS[1:] + CONTROLS)
def test_lines_end_at_line_feeds_alone(character: str) -> None:
    assert split_lines(f"a{character}b") == (["a", "b"] if character == "\n" else f"a{character}b".split("\n"))
    assert count_steps(f"1 + 1{character}= 2\nso 2") == (3 if "\n" in character else 2)


@pytest.mark.parametrize(
    ("message", "line"),
    [("", "LostError"), (" \n", "LostError"), ("\n\nwhy \nwhere", "why"), ("one\u2028line", "one\u2028line")],
)
def test_the_first_line_of_an_error_is_never_empty(message: str, line: str) -> None:
    class LostError(Exception): ...

    assert first_line(LostError(message)) == line


@many
@given(question=texts, answer=texts)
@example(question="Pat has 3.\u2028Lee has 4.", answer="a\x85b\u2029\x0bc\x1c\r\nd")
def test_a_trajectory_is_read_as_it_was_written(tmp_path: Path, question: str, answer: str) -> None:
    layout = Layout(tmp_path)
    sample = Sample(sample_id="q_0001", index=0, question=question, answer="7", source={"solution": answer})
    sample.write(layout.sample("q_0001"))
    assert Sample.read(layout.sample("q_0001")) == sample
    made = Trajectory([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])
    made.write(layout.pair("control", "q_0001"))
    assert Trajectory.read(layout.pair("control", "q_0001")).messages == made.messages
    table = trajectory_table(tmp_path, [("control", "q_0001")])
    write_table(layout, "trajectories", table)
    row = read_table(tmp_path, "trajectories").iloc[0]
    assert (row["question"], row["completion"]) == (question, answer)


@many
@given(text=texts.filter(str.strip))
@example(text="a\x85b")
@example(text="a\x7fb\ufffe")
@example(text="\u2028b")
@example(text="1e5")
def test_a_config_is_read_as_it_was_written(tmp_path: Path, text: str) -> None:
    """By the jobs of a run, as JSON, and from the results, as YAML."""
    config = parse_config({"variants": {"control": {}, "x": {"text": text}}, "prompt": {"system": text}})
    path = tmp_path / "plan.json"
    path.write_text(atomic.to_json(config.resolved()), encoding="utf-8")
    atomic.write_text(tmp_path / "experiment.yaml", to_yaml(config.resolved()))
    assert load_config(path).resolved() == config.resolved()
    assert load_config(tmp_path).resolved() == config.resolved()


@many
@given(question=texts.filter(str.strip), following=texts.filter(str.strip))
@example(question="Pat has 3.\u2028Lee has 4.", following="\x85\u2029?")
def test_a_line_of_a_data_file_ends_at_its_line_feed(tmp_path: Path, question: str, following: str) -> None:
    path = tmp_path / "data.jsonl"
    rows = [{"question": text, "answer": 2} for text in (question, following)]
    path.write_text("\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8", newline="")
    found = {sample.question for sample in draw(Dataset(source=str(path), samples=2), 0)}
    assert found == {question.strip(), following.strip()}


def test_a_report_is_made_of_every_character(tmp_path: Path) -> None:
    for number, character in enumerate(BREAKS + CONTROLS):
        for variant in ("control", "curt"):
            asked, answered = f"3{character}4?", f"so{character}Answer: 7"
            Trajectory([{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]).write(
                tmp_path / variant / f"q{number}"
            )
            values = {"sample_data": {"question": asked, "answer": "7"}}
            atomic.write_json(tmp_path / variant / f"q{number}" / "sample.json", values)
    layout = analyze_folder(tmp_path)
    table = read_table(tmp_path, "trajectories")
    assert {*table["question"]} == {f"3{character}4?" for character in BREAKS + CONTROLS}
    assert {*table["completion"]} == {f"so{character}Answer: 7" for character in BREAKS + CONTROLS}
    assert table["lenient"].all()
    assert json.loads(layout.report.read_text())["trajectories"] == len(table)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("a\ud83d", "here"),
        ({"a": [{"b": "x"}, {"b": "\udc00"}]}, "here.a.1.b"),
        ({"\ud83d": 1}, "here.\\ud83d"),
        ({"a": "\ud83d\ude00"}, "here.a"),  # two halves that no decoder put together
        ({"a": "\U0001f600", "b": [1, None, 2.5, True]}, None),
    ],
)
def test_half_a_surrogate_pair_is_placed(value: Any, place: str | None) -> None:
    assert half_surrogate(value, "here") == place


def test_values_that_share_parts_take_no_longer() -> None:
    values: Any = ["x"]
    for _ in range(60):
        values = [values, values]
    assert half_surrogate(values) is None


@pytest.mark.parametrize("field", ["question", "answer", "level"])
def test_half_a_surrogate_pair_in_a_data_file_names_the_row(tmp_path: Path, field: str) -> None:
    row = {"question": "1 + 1?", "answer": "2", "level": "easy"}
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(row | {field: row[field] + "\ud83d"}) + "\n")
    with pytest.raises(DataError, match=r"row 1 of .*d\.jsonl holds half a surrogate pair"):
        list(draw(Dataset(source=str(path), samples=1, group="level"), 0))


def test_text_of_a_parquet_file_that_is_no_utf8_names_the_row(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.array([b"1 + 1?", b"half \xed\xa0\xbd"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"question": texts, "answer": ["2", "2"]}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match=r"row 2 of .*d\.parquet holds text that is no UTF-8"):
        list(draw(Dataset(source=str(tmp_path / "d.parquet"), samples=2), 0))


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"variants": {"control": {}, "x": {"text": "\ud83d"}}}, "variants.x.text"),
        ({"prompt": {"system": "\ud83d"}}, "prompt.system"),
        ({"prompt": {"examples": [{"question": "a", "answer": "\ud83d"}]}}, "prompt.examples.0.answer"),
        ({"generation": {"stop": ["\ud83d"]}}, "generation.stop.0"),
    ],
)
def test_half_a_surrogate_pair_in_a_config_names_the_key(values: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key}: holds half a surrogate pair"):
        parse_config(yaml.safe_load(json.dumps(values)))


def halve(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*messages, {"role": "user", "content": "\ud83d"}]


def test_half_a_surrogate_pair_from_a_transform_names_the_variant() -> None:
    with pytest.raises(
        TransformError, match=r"variants\.odd\.transform.*item 0 holds half a surrogate pair \(content\)"
    ):
        apply_transform("odd", f"{__name__}:halve", [])


def test_half_a_surrogate_pair_from_a_server_is_no_answer() -> None:
    choice = {"text": "\ud83d", "finish_reason": "stop", "token_ids": [1], "prompt_token_ids": [1]}
    with pytest.raises(ResponseError, match="half a surrogate pair"):
        check_response({"choices": [choice], "usage": {"completion_tokens": 1}}, [1])
