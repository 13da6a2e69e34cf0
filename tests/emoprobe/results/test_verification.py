"""`verify` names every file that is not as it was written, and what to delete; what is whole it leaves in peace."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from emoprobe.analysis.preregistration import analysis_plan
from emoprobe.config.files import parse_config
from emoprobe.config.reading import to_yaml
from emoprobe.conversations.rendering import RenderedPrompt
from emoprobe.conversations.requests import chat_request
from emoprobe.conversations.responses import Delivery, check_response, completed
from emoprobe.conversations.samples import experiment_pairs
from emoprobe.models.source import ModelCard
from emoprobe.report.closing import study_text, summary_text
from emoprobe.results import atomic
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import SCORES, Layout, draw_id
from emoprobe.results.record import DamagedError
from emoprobe.results.tables import frame, read_table, write_table
from emoprobe.results.trajectory import Attempt, Sample, Scores, Trajectory
from emoprobe.results.verification import Verification, check_records, verify

CONFIG = parse_config(
    {
        "experiment": {"name": "tiny"},
        "dataset": {"samples": 3, "id_prefix": "q"},
        "variants": {"control": {}, "calm": {"text": "Be calm."}},
        "generation": {"draws": 2, "temperature": 0.5},
        "capture": {"enabled": False},
    }
)
STEERED = [("joy/add-all/L1/d0.2", "control", "q_0001"), ("joy/add-all/L1/d0.4", "control", "q_0001")]
DELIVERY = Delivery("vllm-0", [Attempt(worker="vllm-0")], "2026-01-01T00:00:00+00:00", 0.5)


def made(sample: Sample, variant: str, draw: int = 1, ndif: dict[str, Any] | None = None) -> Trajectory:
    request = chat_request(CONFIG, "m", variant, sample, draw) | ({"ndif": ndif} if ndif else {})
    prompt = RenderedPrompt("…", [1, 2, sample.index])
    choice = {
        "text": f"Answer: {sample.answer}{draw}",
        "finish_reason": "stop",
        "token_ids": [5, draw],
        "prompt_token_ids": prompt.token_ids,
    }
    answer = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
    response = check_response(answer, prompt.token_ids)
    return completed(CONFIG, variant, sample, request, prompt, response, DELIVERY, draw=draw)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A finished experiment, small but with a file of every kind that is derived."""
    layout = Layout(tmp_path / "tiny")
    samples = [
        Sample(
            sample_id=f"q_000{number + 1}", index=number, question=f"{number} + 12?", answer=f"{number + 12}", source={}
        )
        for number in range(3)
    ]
    for sample in samples:
        sample.write(layout.sample(sample.sample_id))
        for variant in CONFIG.variants:
            for draw in (1, 2):
                made(sample, variant, draw).write(layout.pair(variant, draw_id(sample.sample_id, draw)))
    for condition, variant, name in STEERED:
        edit = {"file": "tiny/steering/directions/joy.safetensors", "operation": "add", "phase": "all", "layers": [1]}
        ndif = {"steering": [edit | {"dose": float(condition.rpartition("/d")[2])}]}
        made(samples[0], variant, 1, ndif).write(layout.steered(condition, variant, name))
        Scores(log_p_gold=-1.25, perplexity=2.5, kl=[0.0], tokens=2).write(
            layout.steered(condition, variant, name) / SCORES
        )
    for name in ("trajectories", "accuracy"):
        write_table(layout, name, frame(TABLES[name], [{"variant": "control"}] * 20))
    atomic.write_json(layout.model, ModelCard("m", "/m", None, "0" * 64, 100).to_json())
    atomic.write_json(layout.plan, analysis_plan(CONFIG, None, None, None).values())
    atomic.write_json(layout.report, {"statements": [], "accuracy": []})
    atomic.write_json(layout.verified, Verification(checked=12, problems=[]).values())
    atomic.write_json(layout.metadata, {"experiment_name": "tiny", "random_seed": 42})
    atomic.write_json(layout.resolved_json, CONFIG.resolved())
    atomic.write_text(layout.resolved_yaml, to_yaml(CONFIG.resolved()))
    atomic.write_text(layout.report_html, "<!doctype html>\n<html></html>\n")
    atomic.write_text(layout.figure("accuracy"), "<svg></svg>\n")
    for path in (layout.directions(), layout.direction("joy")):
        path.parent.mkdir(parents=True)
        save_file({"joy": np.ones((2, 4), dtype=np.float32)}, path)
    assert problems(layout) == []
    return layout


def problems(layout: Layout) -> list[str]:
    return verify(layout, experiment_pairs(CONFIG), [], STEERED).problems


def digit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def forget_hashes(layout: Layout) -> None:
    """Make a folder as version 0.2 left it."""
    for path in layout.root.rglob("agent_state.json"):
        path.write_text(
            json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "hashes"})
        )
    for path in layout.root.rglob(SCORES):
        path.write_text(
            json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "sha256"})
        )


PAIR = "calm/q_0002"
CHANGES: dict[str, Callable[[Path], None]] = {
    f"{PAIR}/trajectory.jsonl": lambda path: digit(path, "Answer: 131", "Answer: 137"),
    f"{PAIR}/agent_state.json": lambda path: digit(path, "Answer: 131", "Answer: 137"),
    f"{PAIR}/sample.json": lambda path: digit(path, '"answer": "13"', '"answer": "14"'),
    "samples/q_0002.json": lambda path: digit(path, '"answer": "13"', '"answer": "14"'),
}


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("path", CHANGES)
def test_a_changed_digit_is_named(layout: Layout, path: str, hashed: bool) -> None:
    if not hashed:
        forget_hashes(layout)
    CHANGES[path](layout.root / path)
    (found,) = problems(layout)
    assert str(layout.root / Path(path).parent) in found
    assert "delete" in found
    assert "run again" in found


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        (f"{PAIR}/agent_state.json", '"completion_token_ids": [5', '"completion_token_ids": [6'),
        (f"{PAIR}/agent_state.json", '"finish_reason": "stop"', '"finish_reason": "length"'),
        (f"{PAIR}/sample.json", '"correctness": 0.0', '"correctness": 1.0'),
        (f"{PAIR}/sample.json", "13", "31"),
        (f"{PAIR}/trajectory.jsonl", "1 + 12?", "1 + 13?"),
        ("samples/q_0002.json", '"group": null', '"group": "sums"'),
        ("steering/joy/add-all/L1/d0.2/control/q_0001/scores.json", "-1.25", "-1.35"),
        ("steering/joy/add-all/L1/d0.2/control/q_0001/trajectory.jsonl", "Answer: 12", "Answer: 92"),
    ],
)
def test_what_only_a_hash_can_notice_is_named(layout: Layout, path: str, old: str, new: str) -> None:
    digit(layout.root / path, old, new)
    (found,) = problems(layout)
    assert str((layout.root / path).parent) in found
    assert "delete" in found


SMALL = ["analysis_plan.json", "model.json", "report.json", "verified.json", "metadata.json", "experiment_config.json"]
TABLES_AND_PAGES = ["tables/trajectories.parquet", "tables/accuracy.parquet", "figures/accuracy.svg", "report.html"]
TENSORS = ["probes/directions.safetensors", "steering/directions/joy.safetensors"]
OF_A_PAIR = [f"{PAIR}/{name}" for name in ("trajectory.jsonl", "agent_state.json", "sample.json")]


@pytest.mark.parametrize("how", ["half", "empty"])
@pytest.mark.parametrize("path", [*SMALL, *TABLES_AND_PAGES, *TENSORS, *OF_A_PAIR, "samples/q_0002.json"])
def test_a_truncated_file_is_named_once(layout: Layout, path: str, how: str) -> None:
    whole = (layout.root / path).read_bytes()
    (layout.root / path).write_bytes(whole[: len(whole) // 2] if how == "half" else b"")
    (found,) = problems(layout)
    assert found.startswith(f"{layout.root / path} is damaged")
    assert found.endswith("; delete it and run again")


@pytest.mark.parametrize("path", [*SMALL, *TABLES_AND_PAGES])
def test_a_dry_run_names_it_as_well(layout: Layout, path: str) -> None:
    truncate(layout.root / path)
    (found,) = check_records(layout)
    assert found.startswith(f"{layout.root / path} is damaged")
    (layout.root / path).unlink()
    assert check_records(layout) == []


def test_a_damaged_config_is_named(layout: Layout) -> None:
    digit(layout.resolved_yaml, "seed: 42", "seed: 43")
    assert problems(layout) == [
        f"{layout.resolved_yaml} and {layout.resolved_json} disagree; delete both and run again"
    ]


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"{PAIR}", "control/q_0002"),
        (f"{PAIR}", "calm/q_0003"),
        (f"{PAIR}", "calm/q_0002-d2"),
        tuple(f"steering/{'/'.join(each)}" for each in STEERED),
    ],
)
def test_swapped_trajectories_are_named(layout: Layout, one: str, other: str, hashed: bool) -> None:
    if not hashed:
        forget_hashes(layout)
    first, second, aside = layout.root / one, layout.root / other, layout.root / "aside"
    shutil.move(first, aside)
    shutil.move(second, first)
    shutil.move(aside, second)
    found = problems(layout)
    assert all(any(str(folder) in line and "delete" in line for line in found) for folder in (first, second))


@pytest.mark.parametrize("hashed", [True, False])
@pytest.mark.parametrize("file", ["trajectory.jsonl", "agent_state.json", "sample.json"])
def test_a_file_of_another_draw_is_named(layout: Layout, file: str, hashed: bool) -> None:
    if not hashed:
        forget_hashes(layout)
    shutil.copy(layout.pair("calm", "q_0002-d2") / file, layout.pair("calm", "q_0002") / file)
    found = problems(layout)
    assert any(str(layout.pair("calm", "q_0002")) in line for line in found)


def test_a_folder_of_version_0_2_is_whole_and_unchecked_in_that_respect(layout: Layout) -> None:
    forget_hashes(layout)
    found = verify(layout, experiment_pairs(CONFIG), [], STEERED)
    assert (found.problems, found.checked, found.unhashed) == ([], 14, 14)


@pytest.mark.parametrize("request_", [{"messages": "x"}, {"messages": [1]}, {"ndif": {"steering": [{"layers": 1}]}}])
def test_a_request_of_another_form_is_named(layout: Layout, request_: dict[str, Any]) -> None:
    path = layout.steered(*STEERED[0]) / "agent_state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"request": request_}))
    assert all(str(path.parent) in line and "delete" in line for line in problems(layout))
    assert problems(layout)


def test_a_missing_question_is_named(layout: Layout) -> None:
    layout.sample("q_0001").unlink()
    assert problems(layout) == [
        f"{layout.sample('q_0001')} is missing; run Snakemake again, which makes what is missing"
    ]


def test_a_folder_of_tokens_that_is_being_captured_is_no_fault(layout: Layout) -> None:
    folder = layout.tokens("joy", "q_0001")
    folder.mkdir(parents=True)
    assert problems(layout) == []
    (folder / "metadata.json").write_text("{")
    assert str(folder) in "\n".join(problems(layout))


def test_readers_name_the_file_that_is_damaged(layout: Layout) -> None:
    """What a rule that cannot go on prints."""
    truncate(layout.table("trajectories"))
    truncate(layout.model)
    truncate(layout.report)
    for read, path in (
        (lambda: read_table(layout.root, "trajectories"), layout.table("trajectories")),
        (lambda: ModelCard.read(layout.model), layout.model),
    ):
        with pytest.raises(DamagedError, match=f"{path} is damaged"):
            read()
    assert f"{layout.report} is damaged" in summary_text(layout.report)
    assert f"{layout.report} is damaged" in study_text(layout.report)
    atomic.write_json(layout.model, {"source": "m"})
    with pytest.raises(DamagedError, match=f"{layout.model} is damaged"):
        ModelCard.read(layout.model)
