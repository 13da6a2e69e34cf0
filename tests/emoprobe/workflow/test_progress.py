"""How far a plan is, out of files alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from emoprobe.config.files import parse_config
from emoprobe.results.activation_folder import ActivationFolder
from emoprobe.results.layout import Layout
from emoprobe.results.trajectory import AgentState, Scores, Timing, Trajectory, Usage
from emoprobe.workflow.progress import FileCount, snapshot, token_rates

NOW = 1_000_000.0
CONFIG: dict[str, Any] = {
    "dataset": {"samples": 4},
    "variants": {"control": {}, "calm": {"text": "It is quiet."}},
    "generation": {"draws": 2, "temperature": 1.0},
    "capture": {"samples": 1},
}


def make(layout: Layout, variant: str, name: str, age: float) -> None:
    """A trajectory that was made some seconds before now, by a worker that took ten for 50 tokens."""
    state = AgentState(worker_id="vllm-0", usage=Usage(completion_tokens=50), timing=Timing(seconds=10.0))
    Trajectory([{"role": "assistant", "content": "4"}], state).write(layout.pair(variant, name))
    for path in layout.pair(variant, name).iterdir():
        os.utime(path, (NOW - age, NOW - age))


def test_a_plan_is_counted_by_experiment_and_variant(tmp_path: Path) -> None:
    configs = {name: parse_config({"experiment": {"name": name}, **CONFIG}) for name in ("one", "two")}
    layout = Layout.of("one", tmp_path)
    for name in ("gsm8k_0001", "gsm8k_0001-d2", "gsm8k_0002"):
        make(layout, "calm", name, 10.0)
    ActivationFolder.write_failure(layout.activations("calm", "gsm8k_0001-d2"), "no server answered")
    (layout.root / "logs/generate/control").mkdir(parents=True)
    (layout.root / "logs/generate/control/gsm8k_0003.log").write_text("control/gsm8k_0003: no\nmore\n")
    (layout.root / "logs/generate/control/gsm8k_0004.log").touch()
    progress = snapshot(configs, tmp_path, NOW)
    one, two = progress.experiments
    control, calm = one.variants
    # Four samples in two draws; of the captures only the first sample's.
    assert (control.trajectories.count, calm.trajectories.count, calm.trajectories.total) == (0, 3, 8)
    assert (calm.activations.count, calm.activations.total) == (1, 2)
    assert (one.trajectories.total, two.trajectories.count) == (16, 0)
    assert one.failures == [("generate control/gsm8k_0003", "control/gsm8k_0003: no")]
    assert progress.trajectory_rate == 0.3
    assert progress.eta is not None
    assert round(progress.eta) == round((32 - 3) / 0.3 + (8 - 1) / 0.3)
    assert token_rates(configs, tmp_path, NOW) == {"vllm-0": 150 / 20}


def test_steered_trajectories_and_their_scores_are_counted(tmp_path: Path) -> None:
    variants = {"control": {}, "joy": {"text": "Wonderful!", "valence": "positive"}}
    steering = {"enabled": True, "layers": [1], "doses": [0.5], "operations": ["add"]}
    steering["controls"] = {"random": 1, "shuffled": 2}
    config = parse_config({**CONFIG, "variants": variants, "capture": {}, "steering": steering})
    layout = Layout.of("one", tmp_path)
    names = ("gsm8k_0001", "gsm8k_0002", "gsm8k_0003", "gsm8k_0004")
    for name in names:
        make(Layout(layout.root / "steering/joy/add-all/L1/d0.5"), "control", name, 10.0)
        Scores(log_p_gold=-1.0).write(layout.steered("joy/add-all/L1/d0.5", "control", name) / "scores.json")
    (layout.root / "logs/score/none/control").mkdir(parents=True)
    (layout.root / "logs/score/none/control/gsm8k_0001.log").write_text("no\n")
    (layout.root / "logs/direction/directions").mkdir(parents=True)
    (layout.root / "logs/direction/directions/random-01.log").write_text("no activations\n")
    (one,) = snapshot({"one": config}, tmp_path, NOW).experiments
    # Two questions in two draws: without an edit, along joy, a shuffled one twice, and a random one; two are steered.
    assert (one.steered.count, one.steered.total) == (one.scores.count, one.scores.total) == (2 * 1, 4 * 5)
    assert sorted(name for name, _ in one.failures) == [
        "direction directions/random-01",
        "score none/control/gsm8k_0001",
    ]


def test_captures_of_every_token_are_counted(tmp_path: Path) -> None:
    config = parse_config({**CONFIG, "capture": {"enabled": False}, "features": {"enabled": True, "layer": 1}})
    layout = Layout.of("one", tmp_path)
    ActivationFolder.write_failure(layout.tokens("calm", "gsm8k_0001-d2"), "no server answered")
    for kind, name in (
        ("tokens", "calm/gsm8k_0001"),
        ("tokens", "calm/gsm8k_0001-d2"),
        ("sample", "questions/gsm8k_0001"),
    ):
        (layout.root / "logs" / kind / name).parent.mkdir(parents=True, exist_ok=True)
        (layout.root / "logs" / kind / f"{name}.log").write_text("no\n")
    (one,) = snapshot({"one": config}, tmp_path, NOW).experiments
    assert (one.tokens.count, one.tokens.total, one.activations.total) == (1, 2 * 4 * 2, 0)
    assert sorted(one.failures) == [("sample questions/gsm8k_0001", "no"), ("tokens calm/gsm8k_0001", "no")]


def test_a_plan_of_which_nothing_is_made_has_no_estimate(tmp_path: Path) -> None:
    progress = snapshot({"one": parse_config({"experiment": {"name": "one"}, **CONFIG})}, tmp_path, NOW)
    assert (progress.eta, progress.last_file, progress.trajectory_rate) == (None, None, 0.0)


def test_old_files_tell_no_rate() -> None:
    assert FileCount([0.0, 1.0, 2.0], 9).rate(1000.0) == 0.0
    assert FileCount([999.0], 9).rate(1000.0) == 0.0
    assert FileCount([990.0, 995.0], 9).rate(1000.0) == 0.2
