"""What a plan finds wrong with steering before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from emoprobe.config.errors import ConfigError
from emoprobe.config.files import parse_config
from emoprobe.steering.grid import SteeringGrid
from emoprobe.workflow.steered import asked_questions
from emoprobe.workflow.steering_checks import check_steering, unreachable

TEXTS = [f"A table of {number} legs." for number in range(64)]
VARIANTS: dict[str, Any] = {
    "control": {},
    "filler": {"text": "A table."},
    "joy": {"text": "Wonderful!", "valence": "positive"},
}
CAPTURE: dict[str, Any] = {"hook_points": ["resid_post"]}


def problems(**sections: Any) -> list[str]:
    """The problems of a steering that is good but for what is given; `steering` itself is added to."""
    steering = {"enabled": True, **sections.pop("steering", {})}
    sections = {"variants": VARIANTS, "capture": CAPTURE, **sections}
    return check_steering(parse_config({**sections, "steering": steering}))


def test_a_good_one_has_no_problems() -> None:
    assert problems() == []
    assert problems(steering={"layers": "middle"}) == []
    assert check_steering(parse_config({"variants": {"control": {}}})) == []


def grid(texts: int = 64, samples: int = 48, filler: int = 64, **steering: Any) -> SteeringGrid:
    variants: dict[str, Any] = {"control": {}, "filler": {"texts": TEXTS[:filler]}}
    variants |= {"joy": {"texts": TEXTS[:texts], "valence": "positive"}}
    config = parse_config(
        {
            "dataset": {"samples": samples},
            "variants": variants,
            "capture": CAPTURE,
            "steering": {"enabled": True, "layers": [1], **steering},
        }
    )
    return SteeringGrid(config, (None,) * samples, 3)


@pytest.mark.parametrize(
    ("design", "texts"),
    [
        ({"texts": 8, "filler": 8}, 8),
        ({"samples": 46}, 23),
        ({"fit": {"questions": 20}}, 20),
        ({"filler": 8, "samples": 96}, 8),
        ({"filler": 1, "samples": 96}, 1),
        ({"filler": 23, "samples": 400}, 1),
    ],
)
def test_a_plan_tells_of_too_few_texts(design: dict[str, Any], texts: int) -> None:
    """Texts of the tone and of the filler that share questions count as one."""
    (told,) = unreachable(grid(**design))
    assert f"on directions of joy: it takes 24 texts in the fitting half (there are {texts}, " in told


def test_a_plan_tells_that_probes_get_no_verdict() -> None:
    (told,) = unreachable(grid(methods=["diff_means", "probe"]))
    assert told.startswith("steering.methods = 'probe': directions of probes get no verdict")


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        (
            {"random": 38},
            ["the family tone or orthogonal: it takes", "39 random directions (there are 38)", "there are 20"],
        ),
        ({"shuffled": 18}, ["19 shuffled-label ones (there are 18)"]),
        ({"questions": 7}, ["with 7 questions", "it takes 8"]),
    ],
)
def test_a_plan_tells_of_verdicts_out_of_reach(controls: dict[str, Any], words: list[str]) -> None:
    assert list(unreachable(grid())) == []
    (told,) = unreachable(grid(controls=controls))
    assert all(word in told for word in words)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"capture": {}}, ["capture.hook_points", "resid_post", "add it"]),
        ({"capture": {"enabled": False}}, ["capture.enabled: true"]),
        ({"capture": {**CAPTURE, "positions": "all"}}, ["steering.fit.position = 'last_prompt'", "capture.positions"]),
        ({"capture": {**CAPTURE, "positions": ["response_mean"]}}, ["steering.fit.position", "response_mean"]),
        ({"steering": {"fit": {"position": "prefix_mean"}}}, ["prefix_mean", "orthogonal: false"]),
        ({"steering": {"tones": ["rage"]}}, ["steering.tones = 'rage'", "no variant", "joy"]),
        ({"steering": {"tones": ["filler"]}}, ["steering.tones = 'filler'", "compared with"]),
        ({"steering": {"variants": ["rage"]}}, ["steering.variants = 'rage'"]),
        ({"variants": {"control": {}}}, ["nothing to steer along"]),
        ({"steering": {"methods": ["probe"]}}, ["'ablate'", "diff_means"]),
        ({"steering": {"doses": [0.0], "operations": ["add"]}}, ["steering.doses", "nothing would be steered"]),
        ({"steering": {"layers": [29, 30]}}, ["steering.layers = 30", "has 30 layers"]),
        ({"steering": {"layers": [[3, 5]]}, "capture": {**CAPTURE, "layers": [3, -1]}}, ["layers = 5", "not captured"]),
        ({"model": {"source": "no/such-model"}}, ["'middle'", "depth of no/such-model", "list of layers"]),
        ({"steering": {"files": {"random-01": {"path": "x"}}}}, ["'random-01'", "rename"]),
        ({"steering": {"files": {"mine": {"path": "missing.safetensors"}}}}, ["steering.files.mine", "cannot be read"]),
        ({"dataset": {"samples": 3}}, ["3 questions", "at least 4"]),
        ({"dataset": {"source": "gsm8k", "group": "level"}}, ["dataset.group = 'level'", "save the data"]),
    ],
)  # fmt: skip
def test_each_problem_is_one_line(sections: dict[str, Any], words: list[str]) -> None:
    lines = problems(**sections)
    assert any(all(word in line for word in words) for line in lines), lines


def test_files_are_compared_with_the_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps({"num_hidden_layers": 3, "hidden_size": 8}))
    for tensor, word in ((np.ones(9), "9 values"), (np.ones((2, 8)), "3 layers"), (np.zeros(8), "zero")):
        save_file({"direction": tensor}, tmp_path / "mine.safetensors")
        file = {"path": str(tmp_path / "mine.safetensors")}
        (line,) = problems(model={"source": str(tmp_path / "model")}, steering={"files": {"mine": file}})
        assert line.startswith("steering.files.mine: ")
        assert word in line


def test_groups_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"question": f"{number} + 1?", "answer": number + 1, "kind": number % 7} for number in range(20)]
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = parse_config({"dataset": {"source": str(path), "group": "kind", "samples": 12}, "capture": {"samples": 9}})
    found = asked_questions(config, tmp_path)
    groups, questions = found
    assert len(groups) == len(set(questions)) == 9
    assert set(groups) <= {str(number) for number in range(7)}
    monkeypatch.setattr("emoprobe.conversations.samples.Drawer", None)
    assert asked_questions(config, tmp_path) == found


@pytest.mark.parametrize(
    ("steering", "words"),
    [
        ({"doses": [0.5, 0.5]}, ["steering.doses", "twice"]),
        ({"doses": [1e-9]}, ["steering.doses", "six digits"]),
        ({"doses": []}, ["steering.doses", "at least 1"]),
        ({"controls": {"doses": [3.0]}}, ["steering", "controls.doses names 3.0", "none of the doses"]),
        ({"layers": "all"}, ["steering.layers = 'all'", "middle"]),
        ({"layers": [-1]}, ["steering.layers", "from 0"]),
        ({"layers": [[5, 3]]}, ["steering.layers", "ascending"]),
        ({"scores": {"gold": "the answer"}}, ["steering.scores.gold", "{answer}"]),
        ({"files": {"a/b": {"path": "x"}}}, ["steering.files", "a/b"]),
        ({"controls": {"randm": 3}}, ["steering.controls.randm", "did you mean 'random'"]),
    ],
)  # fmt: skip
def test_wrong_keys_are_told(steering: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"variants": VARIANTS, "steering": steering})
    (line,) = caught.value.lines
    assert all(word in line for word in words), line


def test_a_direction_file_is_read_again_where_it_has_changed(tmp_path: Path) -> None:
    path, memory = tmp_path / "d.safetensors", tmp_path / "memory"
    settings = {"enabled": True, "files": {"mine": {"path": str(path), "key": "d"}}}
    config = parse_config({"variants": VARIANTS, "capture": CAPTURE, "steering": settings})
    save_file({"d": np.ones(7, np.float32)}, path)
    for _ in range(2):
        (line,) = check_steering(config, memory)
        assert "d has 7 values, the model's stream 576" in line
    save_file({"d": np.ones(576, np.float32)}, path)
    assert check_steering(config, memory) == []
    path.unlink()
    (line,) = check_steering(config, memory)
    assert "d.safetensors cannot be read" in line
