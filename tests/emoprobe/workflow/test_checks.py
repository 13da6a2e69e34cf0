"""What a plan finds wrong with a configuration before anything runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from emoprobe.config.files import parse_config
from emoprobe.config.science.dataset import Dataset
from emoprobe.tasks.sources import check_source
from emoprobe.tasks.variants import load_transform
from emoprobe.workflow import checks
from emoprobe.workflow.checks import check_config
from tests.workspace import ROOT


def problems(tmp_path: Path, cache: Path | None = None, **sections: Any) -> list[str]:
    """The problems of a configuration that is good but for some sections."""
    return check_config(parse_config({"variants": {"control": {}}, **sections}), cache, tmp_path / "models")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("nice", "wrong"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    load_transform.cache_clear()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model directory with 3 layers: its names and shapes alone."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 3}))
    (folder / "tokenizer.json").write_text("{}")
    modules = ("input_layernorm", "self_attn.q_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp.up_proj")
    names = [f"model.layers.{layer}.{module}.weight" for layer in range(3) for module in modules]
    save_file({name: np.zeros(1, dtype=np.float32) for name in names}, folder / "model.safetensors")
    return folder


def write_rows(path: Path, count: int) -> Path:
    rows = [{"question": f"{number}?", "answer": number, "options": ["x", "y"]} for number in range(count)]
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_text("\n".join(json.dumps(row) + "\n" for row in rows))  # blank lines between them are no rows
    return path


def test_a_good_configuration_has_no_problems(tmp_path: Path, model: Path) -> None:
    assert problems(tmp_path) == []
    (tmp_path / "nice.py").write_text("def f(messages):\n    return messages\n")
    write_rows(tmp_path / "d.jsonl", 8)
    (tmp_path / "sums").mkdir()
    write_rows(tmp_path / "sums/test.jsonl", 1)
    for dataset in (
        {"source": "d.jsonl", "samples": 8},
        {"source": str(write_rows(tmp_path / "d.parquet", 8)), "samples": 8, "group": "options"},
        {"source": "reasoning_gym:chain_sum", "arguments": {"max_terms": 3}},
        {"source": "./sums"},
        {"source": "gsm8k"},
        {"source": "owner/name", "choices": "options"},
    ):
        assert problems(tmp_path, dataset=dataset) == []
    variants = {
        "control": {},
        "nice": {"transform": "nice:f"},
        "tone": {"text": "Be calm."},
        "words": {"scramble": "tone"},
    }
    points = ["input_layernorm.output", ".output", "self_attn.o_proj.input", "mlp.act_fn.output", "rotary_emb.output"]
    assert (
        problems(
            tmp_path,
            variants=variants,
            analysis={"references": ["control", "words"]},
            model={"source": str(model)},
            capture={"layers": [0, 2, -3], "hook_points": points},
            workers={"endpoints": ["http://host:8000/v1"]},
        )
        == []
    )


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b'{"question": "a", "answer": 1}', 1),
        (b'{"question": "a", "answer": 1}\n{}\n{}', 3),
        (b'{"question": "a", "answer": 1}\r\n{}\r\n', 2),
        (b'\xef\xbb\xbf{"question": "a", "answer": 1}\n\n{}\n', 2),
        (b'\n\r\n{"question": "a", "answer": 1}\n  \n\t\n {}\n', 2),
        (b'{"question": "a", "answer": 1}\n' * 100_000, 100_000),
        (b'{"question": "a", "answer": 1}\n' * 100_000 + b"\n{}", 100_001),
    ],
)
def test_rows_are_counted_as_they_are_drawn(tmp_path: Path, content: bytes, rows: int) -> None:
    (tmp_path / "d.jsonl").write_bytes(content)
    assert problems(tmp_path, dataset={"source": "d.jsonl", "samples": rows}) == []
    (line,) = problems(tmp_path, dataset={"source": "d.jsonl", "samples": rows + 1})
    assert f"has only {rows} rows" in line


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"samples": 9}, ["dataset.samples = 9", "has only 8 rows"]),
        ({"question": "query"}, ["no column 'query'", "dataset.question", "question, answer, options"]),
        ({"answer": "answer.value"}, ["no column 'answer.value'", "dataset.answer"]),
        ({"choices": "choices"}, ["no column 'choices'", "dataset.choices"]),
        ({"group": "template"}, ["no column 'template'", "dataset.group"]),
        ({"arguments": {"a": 1}}, ["dataset.arguments", "only the tasks of reasoning_gym"]),
    ],
)
def test_data_files(tmp_path: Path, suffix: str, settings: dict[str, Any], words: list[str]) -> None:
    path = write_rows(tmp_path / f"d{suffix}", 8)
    (line,) = problems(tmp_path, dataset={"source": str(path), "samples": 8, **settings})
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ({"source": "nowhere.jsonl"}, ["dataset.source = 'nowhere.jsonl'", "does not exist"]),
        ({"source": "nowhere.parquet"}, ["dataset.source = 'nowhere.parquet'", "does not exist"]),
        ({"source": "./nowhere"}, ["dataset.source = './nowhere'", "the directory nowhere does not exist"]),
        ({"source": "./empty"}, ["dataset.source = './empty'", "is empty"]),
        ({"source": "broken.jsonl"}, ["dataset.source: line 1 of broken.jsonl", "no JSON"]),
        ({"source": "broken.parquet"}, ["broken.parquet is no readable Parquet file"]),
        ({"source": "nothing.jsonl"}, ["nothing.jsonl is empty"]),
        ({"source": "math"}, ["dataset.source = 'math'", "must be gsm_symbolic", "reasoning_gym:TASK"]),
        ({"source": "reasoning_gym:sums"}, ["dataset.source = 'reasoning_gym:sums'", "no task"]),
        ({"source": "reasoning_gym:gcd", "arguments": {"x": 1}}, ["dataset.arguments.x", "known: min_numbers"]),
        ({"source": "reasoning_gym:ab"}, ["dataset.source = 'reasoning_gym:ab'", "not every answer is a number"]),
        (
            {"source": "reasoning_gym:products", "arguments": {"max_digits": 1}, "samples": 101},
            ["dataset.samples = 101", "only 100 different questions"],
        ),
        ({"source": "gsm_symbolic", "arguments": {"difficulty": 7.0}}, ["dataset.arguments", "does not take them"]),
        ({"source": "gsm_symbolic", "choices": "options"}, ["dataset.choices", "have no options"]),
    ],
)
def test_other_sources(tmp_path: Path, dataset: dict[str, Any], words: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jsonl").write_text("{")
    (tmp_path / "broken.parquet").write_text("PAR1")
    (tmp_path / "nothing.jsonl").write_text("\n \n")
    (line,) = problems(tmp_path, dataset=dataset)
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ({"transform": "no_such_module:f"}, ["variants.v.transform", "cannot be imported"]),
        ({"transform": "nice:g"}, ["variants.v.transform", "cannot be imported"]),
        ({"transform": "wrong:f"}, ["variants.v.transform", "SyntaxError"]),
        ({"transform": "nice:number"}, ["variants.v.transform", "is no function"]),
        ({"scramble": "tone"}, ["variants.v.scramble = 'tone'", "is no variant"]),
        ({"scramble": "control"}, ["variants.v.scramble = 'control'", "has no text"]),
    ],
)
def test_variants(tmp_path: Path, variant: dict[str, Any], words: list[str]) -> None:
    (tmp_path / "nice.py").write_text("number = 3\ndef f(messages):\n    return messages\n")
    (tmp_path / "wrong.py").write_text("def f(:\n")
    (line,) = problems(tmp_path, variants={"control": {}, "v": variant})
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("capture", "words"),
    [
        ({"layers": [0, 3]}, ["capture.layers = 3", "has 3 layers, 0 to 2"]),
        ({"layers": [-4]}, ["capture.layers = -4"]),
        (
            {"hook_points": ["post_atention_layernorm.output"]},
            ["capture.hook_points = 'post_atention_layernorm.output'", "did you mean post_attention_layernorm?"],
        ),
        ({"hook_points": ["self_attn.o_prj.input"]}, ["did you mean self_attn.o_proj?"]),
    ],
)
def test_layers_and_hook_points_of_a_local_model(
    tmp_path: Path, model: Path, capture: dict[str, Any], words: list[str]
) -> None:
    (line,) = problems(tmp_path, model={"source": "./tiny"}, capture=capture)
    for word in words:
        assert word in line
    assert problems(tmp_path, model={"source": "./tiny"}, capture=capture | {"enabled": False}) == []
    (model / "config.json").write_text(json.dumps({"text_config": {"n_layer": 3}}))
    assert problems(tmp_path, model={"source": "./tiny"}, capture=capture) == [line]


def test_the_embedded_model_is_looked_at_where_it_was_converted(tmp_path: Path, model: Path) -> None:
    assert problems(tmp_path, capture={"layers": [99]}) == []
    (tmp_path / "models").mkdir()
    os.rename(model, tmp_path / "models/smollm2-135m-instruct")
    assert len(problems(tmp_path, capture={"layers": [99]})) == 1


FEATURED = {"enabled": True, "layer": 1}
TONES = {"control": {}, "joy": {"text": "How nice!"}}


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"layer": 2}, []),
        ({"layer": 3}, ["features.layer = 3", "has 3 layers"]),
        ({"layer": -4}, ["features.layer = -4"]),
        ({"enabled": False, "layer": 9}, []),
        ({"autoencoder": {"source": "./sae"}}, []),
        ({"autoencoder": {"source": "./sae", "folder": "layers.1"}}, ["features.autoencoder.folder"]),
        ({"autoencoder": {"source": "./narrow"}}, ["reads 4 values", "another model's"]),
        ({"autoencoder": {"source": "./nowhere"}}, ["needs cfg.json"]),
    ],
)
def test_features(tmp_path: Path, model: Path, features: dict[str, Any], words: list[str]) -> None:
    (model / "config.json").write_text(json.dumps({"num_hidden_layers": 3, "hidden_size": 8}))
    for name, width in (("sae", 8), ("narrow", 4)):
        (tmp_path / name).mkdir()
        save_file({"b_dec": np.zeros(width, dtype=np.float32)}, tmp_path / name / "sae.safetensors")
        (tmp_path / name / "cfg.json").write_text("{}")
    found = problems(tmp_path, model={"source": str(model)}, variants=TONES, features={**FEATURED, **features})
    assert len(found) == bool(words), found
    assert all(word in found[0] for word in words)


def test_features_need_a_tone(tmp_path: Path, model: Path) -> None:
    (found,) = problems(tmp_path, model={"source": str(model)}, features=FEATURED)
    assert "add a tone" in found


@pytest.mark.parametrize(
    ("lost", "word"),
    [("config.json", "no config.json"), ("model.safetensors", "no *.safetensors"), ("tokenizer.json", "no tokenizer")],
)
def test_incomplete_models(tmp_path: Path, model: Path, lost: str, word: str) -> None:
    (model / lost).unlink()
    (line,) = problems(tmp_path, model={"source": "./tiny"})
    assert line.startswith("model.source")
    assert word in line
    (line,) = problems(tmp_path, model={"source": "./nowhere"})
    assert "the directory nowhere does not exist" in line


def test_endpoints(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, workers={"endpoints": ["http://host:99999/v1"]})
    assert line.startswith("workers.endpoints = 'http://host:99999/v1'")


def test_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (line,) = problems(tmp_path, workers={"slurm": [{}]})
    assert line.startswith("workers.slurm: sbatch is not on the path")
    (tmp_path / "sbatch").touch(mode=0o755)
    assert problems(tmp_path, workers={"slurm": [{}]}) == []
    shapes = [{"gres": "gpu:2"}, {"gres": "gpu:1"}]
    (line,) = problems(tmp_path, workers={"slurm": shapes}, generation={"engine": {"tensor_parallel": 2}})
    assert line.startswith("workers.slurm.1.gres = 'gpu:1': generation.engine.tensor_parallel needs 2 GPUs")


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        dataset={"source": "nowhere.jsonl"},
        variants={"control": {}, "a": {"scramble": "x"}, "b": {"transform": "no_such:f"}},
        model={"source": "./nowhere"},
    )
    assert [line.split(" ")[0].rstrip(":") for line in found] == [
        "dataset.source",
        "variants.a.scramble",
        "variants.b.transform",
        "model.source",
    ]


def test_slow_checks_are_remembered_until_something_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(dataset: Dataset, seed: int) -> list[str]:
        asked.append(dataset.source)
        return check_source(dataset, seed)

    monkeypatch.setattr(checks, "check_source", ask)
    cache = tmp_path / "cache"
    task = {"source": "reasoning_gym:gcd", "arguments": {"x": 1}}
    first = problems(tmp_path, cache, dataset=task)
    assert problems(tmp_path, cache, dataset=task) == first != []
    assert len(asked) == 1
    assert problems(tmp_path, cache, dataset={"source": "reasoning_gym:gcd"}) == []
    path = write_rows(tmp_path / "d.parquet", 8)
    for expected in (3, 3):
        assert problems(tmp_path, cache, dataset={"source": str(path), "samples": 8}) == []
        assert len(asked) == expected
    write_rows(path, 7)
    assert len(problems(tmp_path, cache, dataset={"source": str(path), "samples": 8})) == 1
    (cache / "checks.json").write_text("damaged")
    assert problems(tmp_path, cache, dataset=task) == first


IMPORTED = r"^from (?:emoprobe|server)\b[^(\n]*(?:\([^)]*\))?"
IMPORTS = """
import sys
from emoprobe.config.files import parse_config
from emoprobe.workflow.checks import check_config
config = parse_config({"variants": {"control": {}}, "model": {"source": sys.argv[1]}, "capture": {"layers": [0]}})
heavy = ("torch", "transformers", "datasets", "pandas", "httpx", "rich", "sympy", "matplotlib")
print(check_config(config), address_path.__name__, [name for name in heavy if name in sys.modules])
"""


def test_a_plan_brings_no_heavy_package(model: Path) -> None:
    by_rules = re.findall(IMPORTED, (ROOT / "rules/common.smk").read_text(), re.MULTILINE)
    script = "\n".join([*by_rules, IMPORTS])
    done = subprocess.run(
        [sys.executable, "-c", script, str(model)], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120
    )
    assert done.stdout.strip() == "[] address_path []"
