"""What a change plans again: the rerun table, row by row, on a finished experiment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from emoprobe.results.tables import read_table
from tests.workspace import Workspace, copy_of_code, jobs_in

COMPARED = {"analyze_behaviour": 1, "draw_figures": 1, "report_experiment": 1}
ANALYSIS = {"tabulate_trajectories": 1, "build_explorer": 1, **COMPARED}
TABLES = {**ANALYSIS, "verify": 1}
PLAN = {"plan_analysis": 1}
DESCRIBED = {"describe_experiment": 1, "report_experiment": 1}


SERVERS: dict[str, Any] = {
    "count": 3, "endpoints": ["http://127.0.0.1:9"], "requests": 7, "attempts": 1, "restarts": 0, "port": 9000,
    "start_timeout": 5.0, "hang_timeout": 5.0, "keep_alive": 5.0, "timeout": 5.0, "log_level": "debug",
    "kv_cache_gib": 1, "batch_tokens": 64, "memory_gib": 1.0,
}  # fmt: skip
NEW = {"describe_experiment": 1, **TABLES}
EVERYTHING = {**PLAN, "generate": 16, **NEW}
CALM = {"texts": ["It is a quiet day.", "All is still."], "valence": "neutral"}  # as it is in the finished experiment
NAG = "You keep getting this wrong."


@pytest.mark.parametrize(
    ("change", "planned"),
    [
        ({"workers": SERVERS}, {}),
        ({"dataset": {"samples": 8}}, {"generate": 4 * 4, "prepare_sample": 4, **NEW}),
        ({"dataset": {"samples": 2}}, NEW),
        ({"variants": {"pressure": {"text": "Hurry!"}}}, {"generate": 4, **NEW}),
        ({"variants": {"frustration": {"text": "Not again!", "valence": "negative"}}}, {"generate": 4, **NEW}),
        (
            {"dataset": {"samples": 8}, "variants": {"frustration": {"text": "Not again!"}}},
            {"generate": 4 * 4 + 4, "prepare_sample": 4, **NEW},
        ),
        ({"variants": {"frustration": {"text": NAG, "valence": "neutral"}}}, {"describe_experiment": 1, **ANALYSIS}),
        ({"generation": {"draws": 3}}, {"generate": 2 * 16, **NEW}),
        ({"prompt": {"formats": 2}}, {"generate": 2 * 4, **NEW}),
        ({"variants": {"calm": {**CALM, "asks": 2}}}, {"generate": 4, **NEW}),
        ({"generation": {"allowed_failures": 0.25}}, DESCRIBED),
        ({"probes": {"folds": 3}}, DESCRIBED),  # without captures
        ({"analysis": {"margin": 0.2}}, {**COMPARED, **DESCRIBED}),
        ({"generation": {"temperature": 0.5}}, EVERYTHING),
        ({"generation": {"max_tokens": 33}}, EVERYTHING),
        ({"generation": {"engine": {"max_model_len": 2048}}}, EVERYTHING),
        ({"generation": {"engine": {"compile": True}}}, EVERYTHING),
        ({"generation": {"engine": {"extra_args": ["--x"]}}}, EVERYTHING),
        ({"prompt": {"system": "Other."}}, EVERYTHING),
        ({"prompt": {"prefill": "So"}}, EVERYTHING),
        ({"conversation": {"kind": "scripted", "turns": [{"text": "Again."}]}}, EVERYTHING),
        ({"model": {"dtype": "bfloat16"}}, {"prepare_model": 1, **EVERYTHING}),
        ({"experiment": {"seed": 7}}, {"prepare_sample": 4, **EVERYTHING}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_changed_key_plans_what_depends_on_it(
    after: Callable[..., Workspace], change: dict[str, Any], planned: dict[str, int]
) -> None:
    assert after(**change).planned() == planned


def test_values_on_the_command_line_keep_their_types(after: Callable[..., Workspace]) -> None:
    workspace = after()
    assert workspace.planned("--config", "workers={count: 3, port: 9000}") == {}
    assert workspace.planned("--config", "dataset={samples: 5}")["generate"] == 4


def test_a_changed_transform_plans_that_variant(after: Callable[..., Workspace]) -> None:
    workspace = after()
    (workspace.folder / "nagging.py").write_text(
        "def nag(m):\n    return [*m[:-1], {**m[-1], 'content': m[-1]['content'] + ' Well?'}]\n"
    )
    assert workspace.planned() == {"generate": 4, **TABLES}


def test_a_deleted_trajectory_comes_back_byte_for_byte(after: Callable[..., Workspace]) -> None:
    workspace = after()
    before = workspace.trajectories()
    (workspace.layout.pair("calm", "gsm8k_0003") / "trajectory.jsonl").unlink()
    assert workspace.planned() == {"generate": 1, **TABLES}
    workspace.run()
    assert workspace.trajectories() == before
    assert workspace.planned() == {}


# Module → what is planned after a change of its code.
CHANGED_CODE: dict[str, dict[str, int]] = {
    "graders/grading.py": ANALYSIS,
    "graders/answers.py": ANALYSIS,
    "results/tables.py": ANALYSIS,
    "analysis/paired_tests.py": COMPARED,
    "report/figures/behaviour.py": {"draw_figures": 1, "report_experiment": 1},
    "report/statements/behaviour.py": {"report_experiment": 1},
    "explorer/search.py": {"build_explorer": 1},
    "analysis/probes/auroc.py": {},
    "results/atomic.py": {},
}


def test_asks_and_formats_are_made_once_and_told(after: Callable[..., Workspace]) -> None:
    texts = [f"This is text {number}." for number in range(4)]
    workspace = after(prompt={"formats": 1}, variants={"filler": {"texts": texts, "asks": 2}})
    workspace.run()
    root = workspace.layout.root
    told = {one["about"]: one["text"] for one in json.loads((root / "report.json").read_text())["statements"]}
    assert "filler 2 times" in told["data:asks"]
    assert "1 other format of control's prompt" in told["data:formats"]
    table = read_table(root, "trajectories")
    assert table[table["variant"] == "filler"].groupby("sample_id")["paraphrase"].nunique().eq(2).all()
    assert workspace.planned() == {}
    second = workspace.layout.pair("filler", "gsm8k_0001-d2") / "trajectory.jsonl"
    before = second.read_bytes()
    second.unlink()
    workspace.run(str(second.relative_to(workspace.folder)))
    assert second.read_bytes() == before
    workspace.config["variants"]["filler"]["asks"] = 3
    assert workspace.planned()["generate"] == 4
    workspace.config["variants"]["filler"]["asks"] = 1
    assert "generate" not in workspace.planned()
    # The second draw was the second ask, with another text: of the filler only the first draw stays.
    workspace.config["variants"]["filler"]["asks"] = 2
    workspace.config["generation"]["draws"] = 2
    assert workspace.planned()["generate"] == 5 * 4 + 3 * 4


def test_changed_code_plans_what_it_computes(after: Callable[..., Workspace], tmp_path: Path) -> None:
    workspace = after()
    workspace.code = copy_of_code(tmp_path / "code")
    modules = {path: path.read_text() for path in (workspace.code / "emoprobe" / name for name in CHANGED_CODE)}
    for path, text in modules.items():
        path.write_text(f'{text}\n# A comment.\n"""A text."""\n')
    assert workspace.planned() == {}
    for (path, text), planned in zip(modules.items(), CHANGED_CODE.values(), strict=True):
        path.write_text(f"{text}\nCHANGED = True\n")
        assert workspace.planned() == planned, path
        path.write_text(text)


def test_an_answer_is_never_older_than_the_plan(after: Callable[..., Workspace]) -> None:
    workspace = after()
    planned_at = workspace.layout.plan.stat().st_mtime
    answers = list(workspace.layout.root.glob("*/*/trajectory.jsonl"))
    assert answers
    assert all(path.stat().st_mtime >= planned_at for path in answers)


def test_one_target_is_made_alone(after: Callable[..., Workspace]) -> None:
    workspace = after()
    target = "results/tiny/calm/gsm8k_0003/trajectory.jsonl"
    (workspace.folder / target).unlink()
    (workspace.folder / "results/tiny/calm/gsm8k_0004/trajectory.jsonl").unlink()
    assert workspace.planned(target) == {"generate": 1}


SAMPLE, MODEL, REGISTERED = "samples/gsm8k_0003.json", "model.json", "analysis_plan.json"


# Which looks were registered decides what is tested.
TESTED = {"analyze_behaviour": 1, "draw_figures": 1}
# Lost files, what is planned then, and what a plan says of it.
LOST: list[tuple[list[str], dict[str, int], list[str]]] = [
    ([], {}, []),
    ([SAMPLE], {"prepare_sample": 1}, ["samples/gsm8k_0003.json is missing; it will be made again; 16 answers stay"]),
    ([SAMPLE, "samples/gsm8k_0001.json"], {"prepare_sample": 2}, ["2 files of results/tiny/samples are missing"]),
    (
        [REGISTERED],
        {**PLAN, **TESTED, "report_experiment": 1},
        ["analysis_plan.json is missing; it will be made again; 16"],
    ),
    ([MODEL], {"prepare_model": 1, **DESCRIBED}, ["model.json is missing; it will be made again; 16 answers stay"]),
    (
        [MODEL, REGISTERED, SAMPLE],
        {"prepare_model": 1, "prepare_sample": 1, **PLAN, **TESTED, **DESCRIBED},
        ["model.json is missing", "analysis_plan.json is missing", "gsm8k_0003.json is missing"],
    ),
    (["metadata.json"], DESCRIBED, []),
    (["experiment.yaml"], DESCRIBED, []),
    (["experiment_config.json"], DESCRIBED, []),
    (["verified.json"], {"verify": 1}, []),
    (["report.json"], {"report_experiment": 1}, []),
    (["explorer/index.html"], {"build_explorer": 1}, []),
    (["tables/accuracy.parquet"], COMPARED, []),
]


def test_a_lost_file_plans_itself_and_no_answer(after: Callable[..., Workspace], tmp_path: Path) -> None:
    workspace = after()
    aside = tmp_path / "aside"
    for lost, planned, said in LOST:
        for name in lost:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            (workspace.layout.root / name).rename(aside / name)
        output = workspace.run("-n")
        assert jobs_in(output) == planned, lost
        assert all(line in output for line in said)
        assert output.count("missing; " if lost else "missing") == len(said)
        for name in lost:
            (aside / name).rename(workspace.layout.root / name)


@pytest.mark.parametrize(
    "lost",
    [
        [SAMPLE, "samples/gsm8k_0001.json", "report.json"],
        [MODEL, REGISTERED, SAMPLE],
        ["metadata.json", "experiment.yaml", "experiment_config.json", "verified.json", "tables/accuracy.parquet"],
    ],
)
def test_lost_files_are_made_again_and_no_answer(after: Callable[..., Workspace], lost: list[str]) -> None:
    workspace = after()
    before = answers(workspace)
    for name in lost:
        (workspace.layout.root / name).unlink()
    workspace.run()
    assert all((workspace.layout.root / name).exists() for name in lost)
    assert answers(workspace) == before
    assert workspace.planned() == {}


def test_a_lost_plan_is_made_before_answers_that_change(after: Callable[..., Workspace]) -> None:
    workspace = after(generation={"temperature": 0.5})
    for name in (REGISTERED, MODEL):
        (workspace.layout.root / name).unlink()
    expected = {**PLAN, "prepare_model": 1, "generate": 16, "describe_experiment": 1, **TABLES}
    assert workspace.planned() == expected
    workspace.run()
    planned_at = workspace.layout.plan.stat().st_mtime
    assert all(date >= planned_at for _, date in answers(workspace).values())
    assert workspace.planned() == {}


def test_a_new_answer_waits_for_a_lost_model(after: Callable[..., Workspace]) -> None:
    workspace = after(dataset={"samples": 5})
    workspace.layout.model.unlink()
    planned = {"prepare_model": 1, "prepare_sample": 1, "generate": 4, "describe_experiment": 1, **TABLES}
    assert workspace.planned() == planned
    workspace.run()
    dates = [date for name, (_, date) in answers(workspace).items() if "gsm8k_0005" in name]
    assert min(dates) >= workspace.layout.model.stat().st_mtime
    assert workspace.planned() == {}


def answers(workspace: Workspace) -> dict[str, tuple[bytes, float]]:
    """Every file of every answer with its content and its date."""
    found = workspace.layout.root.glob("*/gsm8k_*/*.json*")
    return {str(path): (path.read_bytes(), path.stat().st_mtime) for path in sorted(found)}


def test_the_order_of_variants_plans_the_tables(after: Callable[..., Workspace]) -> None:
    workspace = after()
    workspace.config["variants"] = dict(reversed(workspace.config["variants"].items()))
    assert workspace.planned() == {"describe_experiment": 1, **ANALYSIS}
    workspace.run()
    shown = yaml.safe_load(workspace.layout.resolved_yaml.read_text())["variants"]
    assert list(shown) == list(workspace.config["variants"])
    assert workspace.planned() == {}


@pytest.mark.parametrize("name", ["agent_state.json", "sample.json"])
def test_every_file_of_a_trajectory_counts(after: Callable[..., Workspace], name: str) -> None:
    workspace = after()
    (workspace.layout.pair("calm", "gsm8k_0003") / name).unlink()
    assert workspace.planned() == {"generate": 1, **TABLES}


def test_a_changed_data_file_plans_every_trajectory(after: Callable[..., Workspace]) -> None:
    workspace = after()
    data = workspace.folder / "data.jsonl"
    data.write_text('{"question": "1 + 1?", "answer": "2"}\n' * 4)
    workspace.config["dataset"]["source"] = "data.jsonl"
    workspace.run()
    assert workspace.planned() == {}
    data.write_text('{"question": "1 + 2?", "answer": "3"}\n' * 4)
    assert workspace.planned() == {**PLAN, "prepare_sample": 4, "generate": 16, **TABLES}


def test_a_run_that_leaves_the_report_out_does_not_show_it(after: Callable[..., Workspace]) -> None:
    """Tables are made by another margin; the report is that of before, until a run includes it."""
    workspace = after(analysis={"margin": 0.3})
    output = workspace.run("--until", "analyze_behaviour")
    assert "tiny: this run did not include results/tiny/report.json, which was made " in output
    assert "trajectories of" not in output.partition("Job stats")[2]
    output = workspace.run()
    assert "tiny: 16 trajectories of" in output
    assert "based on the tables of behaviour and the plan" in output
    assert "did not include" not in output
