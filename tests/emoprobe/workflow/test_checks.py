"""What a plan finds wrong with a configuration before anything runs."""

import csv
import gzip
import json
import os
import re
import shutil
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
from emoprobe.conversations.samples import draw
from emoprobe.conversations.sources import check_source
from emoprobe.functions import load_function
from emoprobe.workflow import checks, heavy_checks, model_checks
from emoprobe.workflow.checks import check_config
from tests import byte_tokenizer
from tests.byte_tokenizer import CHATML
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
    load_function.cache_clear()
    # Whether activations can be captured takes a process that imports PyTorch: tests that are about it ask.
    monkeypatch.setattr(model_checks, "ask", lambda *_: [])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model directory with 3 layers: its names and shapes alone."""
    folder = byte_tokenizer.write(tmp_path / "tiny")
    (folder / "config.json").write_text(json.dumps({"num_hidden_layers": 3}))
    modules = ("input_layernorm", "self_attn.q_proj", "self_attn.o_proj", "post_attention_layernorm", "mlp.up_proj")
    names = [f"model.layers.{layer}.{module}.weight" for layer in range(3) for module in modules]
    save_file({name: np.zeros(1, dtype=np.float32) for name in names}, folder / "model.safetensors")
    return folder


def write_rows(path: Path, count: int) -> Path:
    rows = [{"question": f"{number}?", "answer": number, "options": ["x", "y"]} for number in range(count)]
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif ".csv" in path.name:
        pd.DataFrame(rows).to_csv(path, index=False)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    else:
        path.write_text("\n".join(json.dumps(row) + "\n" for row in rows))  # blank lines between them are no rows
    return path


def test_a_good_configuration_has_no_problems(tmp_path: Path, model: Path) -> None:
    assert problems(tmp_path) == []
    (tmp_path / "nice.py").write_text(
        "def f(messages):\n    return [*messages, {'role': 'assistant', 'content': 'So'}]\n"
    )
    write_rows(tmp_path / "d.jsonl", 8)
    (tmp_path / "sums").mkdir()
    write_rows(tmp_path / "sums/test.jsonl", 8)
    for dataset in (
        {"source": "d.jsonl", "samples": 8},
        {"source": str(write_rows(tmp_path / "d.parquet", 8)), "samples": 8, "group": "options"},
        {"source": str(write_rows(tmp_path / "d.csv", 8))},
        {"source": str(write_rows(tmp_path / "d.jsonl.gz", 8))},
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


ROW = b'{"question": "a", "answer": 1}'


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (ROW, 1),
        (ROW + b"\n" + ROW + b"\n" + ROW, 3),
        (ROW + b"\r\n" + ROW + b"\r\n", 2),
        (b"\xef\xbb\xbf" + ROW + b"\n\n" + ROW + b"\n", 2),
        (b"\n\r\n" + ROW + b"\n  \n\t\n " + ROW + b"\n", 2),
        ((ROW + b"\n") * 10_000 + b"\n" + ROW, 10_001),
        (b'{"question": "a\xe2\x80\xa8b",\r "answer": 1}\n' + ROW, 2),
    ],
)
def test_rows_are_counted_as_they_are_drawn(tmp_path: Path, content: bytes, rows: int) -> None:
    (tmp_path / "d.jsonl").write_bytes(content)
    assert problems(tmp_path, dataset={"source": "d.jsonl", "samples": rows}) == []
    (line,) = problems(tmp_path, dataset={"source": "d.jsonl", "samples": rows + 1})
    assert f"has only {rows} rows" in line


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet"])
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
        ({"source": "data/mine"}, ["dataset.source = 'data/mine'", "write ./data/mine, or rename it"]),
        ({"source": "data/mine.txt"}, ["dataset.source = 'data/mine.txt'", "of no kind that is read", ".csv.gz"]),
        ({"source": "./data/mine.txt"}, ["the file data/mine.txt is of no kind that is read"]),
        ({"source": "data/mine.JSONL"}, ["of no kind that is read"]),
        ({"source": "mine.txt"}, ["dataset.source = 'mine.txt'", "is here, but of no kind that is read"]),
        ({"source": "./data/dir.jsonl"}, ["the file data/dir.jsonl is a directory"]),
        ({"source": "openai/gsm8k"}, ["openai/gsm8k is a directory here"]),
        ({"source": "gsm8k"}, ["openai/gsm8k is a directory here"]),
        ({"source": "https://u:secret@host/x/y"}, ["dataset.source = 'https://…host/x/y'", "must be"]),
        ({"source": "cut.jsonl.gz"}, ["cut.jsonl.gz cannot be read"]),
        ({"source": "plain.csv.gz"}, ["plain.csv.gz cannot be read"]),
        ({"source": "latin.csv"}, ["latin.csv is not UTF-8 text"]),
        ({"source": "open.csv"}, ["open.csv: line 2 is no CSV"]),
        ({"source": "more.csv", "samples": 1}, ["line 2 of more.csv has 3 cells and the first row 2"]),
        ({"source": "twice.csv"}, ["names a column twice"]),
        ({"source": "head.csv"}, ["head.csv has no rows"]),
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
    for folder in ("data/mine", "data/dir.jsonl", "openai/gsm8k"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("data/mine.txt", "data/mine.JSONL", "mine.txt"):
        (tmp_path / file).touch()
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(ROW * 99)[:-20])
    (tmp_path / "plain.csv.gz").write_text("question,answer\n1+1,2\n")
    (tmp_path / "latin.csv").write_bytes("question,answer\nä,2\n".encode("latin-1"))
    (tmp_path / "open.csv").write_text('question,answer\n"1+1,2\n')
    (tmp_path / "more.csv").write_text("question,answer\n1,000,2\n")
    (tmp_path / "twice.csv").write_text("question,answer,answer\n1,2,3\n")
    (tmp_path / "head.csv").write_text("question,answer\n")
    (tmp_path / "broken.jsonl").write_text("{")
    (tmp_path / "broken.parquet").write_text("PAR1")
    (tmp_path / "nothing.jsonl").write_text("\n \n")
    (line,) = problems(tmp_path, dataset=dataset)
    assert "secret" not in line
    for word in words:
        assert word in line


def test_every_row_that_is_drawn_is_looked_at(tmp_path: Path) -> None:
    rows = [{"question": f"{number}?", "answer": number} for number in range(40)]
    for number, answer in ((7, "many"), (12, None), (25, True), (30, "2 or 3"), (39, float("inf"))):
        rows[number]["answer"] = answer
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = problems(tmp_path, dataset={"source": "d.jsonl", "samples": 40})
    assert len(found) == 4
    bad = {"8", "13", "26", "31", "40"}
    assert all(set(re.findall(r"row (\d+) of d.jsonl has no number", line)) & bad for line in found[:3])
    assert found[3] == "dataset.source: 2 more of the 40 rows drawn are at fault"
    # A row that is not drawn does no harm: the draw is the same whatever is wrong with the others.
    drawn = next(count for count in range(1, 41) if problems(tmp_path, dataset={"source": "d.jsonl", "samples": count}))
    assert drawn > 1


def test_rows_of_a_local_directory_are_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "sums").mkdir()
    (tmp_path / "sums/test.jsonl").write_text(
        '{"question": "1+1?", "answer": 2}\n{"question": "why?", "answer": "so"}\n'
    )
    (line,) = problems(tmp_path, dataset={"source": "./sums", "samples": 2})
    assert "row 2 of ./sums has no number as answer" in line


def test_a_csv_file_gives_the_rows_that_were_written(tmp_path: Path) -> None:
    questions = ['a "quoted" one, with a comma', "two\nlines", "a\u2028b", "plain"]
    with open(tmp_path / "d.csv", "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([["question", "answer"], *([question, "1,000"] for question in questions)])
    samples = list(draw(Dataset(source=str(tmp_path / "d.csv"), samples=4), 1))
    assert sorted(sample.question for sample in samples) == sorted(questions)
    assert {sample.answer for sample in samples} == {"1000"}


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


SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
DROPPED = CHATML.replace("for message in messages", "for message in messages if message['role'] != 'system'")


@pytest.mark.parametrize(
    ("template", "sections", "words"),
    [
        (None, {}, [["model.source = './tiny'", "has no chat template"]]),
        (SYSTEM + CHATML, {}, [["prompt.system", "refuses a system message", "not supported", "prompt.system: null"]]),
        (
            SYSTEM + CHATML,
            {"prompt": {"system": None}, "variants": {"control": {}, "sys": {"text": "Hurry!", "placement": "system_prefix"}}},
            [["variants.sys.placement", "refuses a system message", "user_prefix"]],
        ),
        (SYSTEM + CHATML, {"prompt": {"system": None}}, []),
        (
            DROPPED,
            {"variants": {"control": {}, "sys": {"text": "Hurry!", "placement": "system_suffix"}}},
            [["prompt.system", "leaves the system message out"], ["variants.sys.placement = 'system_suffix'", "never see it"]],
        ),
        (
            DROPPED,
            {"prompt": {"system": None}, "variants": {"control": {}, "sys": {"transform": "added:system"}}},
            [["variants.sys.transform", "leaves this text out"]],
        ),
        (
            DROPPED.replace("'system'", "'developer'"),
            {"variants": {"control": {}, "dev": {"transform": "added:developer"}}},
            [["variants.dev", "those of control, token for token", "the chat template leaves out"]],
        ),
        (
            CHATML,
            {"variants": {"control": {}, "a": {"texts": ["One.", "Two."]}, "b": {"texts": ["One.", "Two."]}}},
            [["variants.b", "those of a, token for token", "the same messages"]],
        ),
        (CHATML, {"variants": {"control": {}, "a": {"texts": ["One.", "Two."]}, "b": {"texts": ["One.", "Three."]}}}, []),
        (CHATML, {"variants": {"control": {}, "picky": {"transform": "added:picky"}}}, []),
        (
            CHATML.replace("{% for", "{% if messages | length > 2 %}{{ raise_exception('too many') }}{% endif %}{% for", 1),
            {"variants": {"control": {}, "more": {"transform": "added:more"}}},
            [["variants.more", "roles: system, user, assistant, user", "too many"]],
        ),
        ("{% for", {}, [["variants.control", "refuses"]]),
    ],
)  # fmt: skip
def test_prompts(tmp_path: Path, model: Path, template: str | None, sections: Any, words: list[list[str]]) -> None:
    (tmp_path / "added.py").write_text(
        "def system(messages):\n    return [{'role': 'system', 'content': 'Hurry!'}, *messages]\n"
        "def developer(messages):\n    return [{'role': 'developer', 'content': 'Hurry!'}, *messages]\n"
        "def picky(messages):\n    raise ValueError('not one of mine')\n"
        "def more(messages):\n    return [*messages, {'role': 'assistant', 'content': 'So?'}, messages[-1]]\n"
    )
    (model / "chat_template.jinja").unlink()
    if template is not None:
        (model / "chat_template.jinja").write_text(template)
    values = {"capture": {"enabled": False}, **sections}
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        found = problems(tmp_path, cache, model={"source": "./tiny"}, **values)
        assert len(found) == len(words), found
        for line, expected in zip(found, words, strict=True):
            for word in expected:
                assert word in line


def test_prompts_are_looked_at_again_where_the_template_changes(tmp_path: Path, model: Path) -> None:
    cache = tmp_path / "cache"
    assert problems(tmp_path, cache, model={"source": "./tiny"}, capture={"enabled": False}) == []
    (model / "chat_template.jinja").write_text(SYSTEM + CHATML)
    assert len(problems(tmp_path, cache, model={"source": "./tiny"}, capture={"enabled": False})) == 1


def test_endpoints(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, workers={"endpoints": ["http://host:99999/v1"]})
    assert line.startswith("workers.endpoints = 'http://host:99999/v1'")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("models/mine", ["model.source = 'models/mine'", "is a directory here", "write ./models/mine"]),
        ("mine", ["model.source = 'mine'", "write ./mine"]),
        ("mine.gguf", ["is a file here"]),
        ("./mine.gguf", ["is a file, and a model is a directory"]),
        ("a/b/c", ["is neither smollm2-135m-instruct, an id"]),
        ("https://u:secret@hub/a", ["model.source = 'https://…hub/a'", "is neither"]),
        ("owner/name", []),
        ("gpt2", []),
    ],
)
def test_directories_that_look_like_ids_of_the_hub(tmp_path: Path, source: str, words: list[str]) -> None:
    for folder in ("models/mine", "mine"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "mine.gguf").touch()
    found = problems(tmp_path, model={"source": source})
    assert len(found) == bool(words), found
    for word in words:
        assert word in found[0]
    assert "secret" not in str(found)


def test_a_directory_with_an_autoencoder_that_looks_like_an_id(tmp_path: Path) -> None:
    (tmp_path / "saes/mine").mkdir(parents=True)
    (line,) = problems(tmp_path, variants=TONES, features={**FEATURED, "autoencoder": {"source": "saes/mine"}})
    assert "features.autoencoder.source = 'saes/mine'" in line
    assert "write ./saes/mine" in line


@pytest.mark.parametrize("dropped", [2, 3])
def test_a_shard_that_is_missing(tmp_path: Path, model: Path, dropped: int) -> None:
    (model / "model.safetensors").unlink()
    for number in (1, 2, 3):
        save_file({f"w{number}": np.zeros(1, dtype=np.float32)}, model / f"model-{number}.safetensors")
    names = {f"w{number}": f"model-{number}.safetensors" for number in (1, 2, 3)}
    (line,) = problems(tmp_path, model={"source": "./tiny"})
    assert "has neither model.safetensors nor model.safetensors.index.json" in line
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    assert problems(tmp_path, model={"source": "./tiny"}) == []
    (model / f"model-{dropped}.safetensors").unlink()
    (line,) = problems(tmp_path, model={"source": "./tiny"})
    assert f"lacks model-{dropped}.safetensors of 3 files" in line
    save_file({"other": np.zeros(1, dtype=np.float32)}, model / f"model-{dropped}.safetensors")
    (line,) = problems(tmp_path, model={"source": "./tiny"})
    assert f"lacks the tensor w{dropped}" in line
    for content in ("{", "[]", "{}", "9" * 5000):
        index.write_text(content)
        (line,) = problems(tmp_path, model={"source": "./tiny"})
        assert "model.safetensors.index.json" in line


@pytest.mark.parametrize("content", ["{", "[]", "\xff", "[" * 100_000])
def test_a_configuration_of_a_model_that_is_damaged(tmp_path: Path, model: Path, content: str) -> None:
    (model / "config.json").write_bytes(content.encode("latin-1"))
    (line,) = problems(tmp_path, model={"source": "./tiny"})
    assert "config.json is damaged" in line


@pytest.mark.parametrize(
    ("settings", "sections", "words"),
    [
        ({"max_position_embeddings": 4096}, {}, []),
        ({"max_position_embeddings": 2048}, {}, ["generation.engine.max_model_len = 4096", "set it to 2048 or less"]),
        ({"n_positions": 1024}, {}, ["takes 1024 tokens at most"]),
        ({"text_config": {"max_position_embeddings": 1024}}, {}, ["takes 1024 tokens at most"]),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "linear", "factor": 2.0}}, {}, []),
        ({"max_position_embeddings": 2048, "rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, {}, ["2048"]),
        ({"max_position_embeddings": 2048}, {"max_model_len": None}, []),
        ({"max_position_embeddings": 2048}, {"max_model_len": 2048}, []),
        (
            {"max_position_embeddings": 2048},
            {"max_model_len": None, "max_tokens": 2048},
            ["generation.max_tokens = 2048"],
        ),
        ({"max_position_embeddings": 8192}, {"max_tokens": 4096}, ["generation.engine.max_model_len allows 4096"]),
        ({}, {"max_tokens": 5000}, ["generation.engine.max_model_len allows 4096"]),
        ({"max_position_embeddings": 2048}, {"backend": "nnsight"}, []),
        ({"max_position_embeddings": 128}, {"backend": "nnsight"}, ["generation.max_tokens = 256", "takes 128 tokens"]),
        ({"max_position_embeddings": 2048}, {"endpoints": ["http://host/v1"]}, []),
        ({"max_position_embeddings": 2048}, {"max_model_len": "auto"}, []),
        ({"max_position_embeddings": 128}, {"max_model_len": "auto"}, ["max_tokens = 256", "takes 128 tokens"]),
        ({}, {"max_model_len": "auto", "max_tokens": 5000}, []),
        ({"max_position_embeddings": 512}, {"max_model_len": "auto", "turns": 1}, ["512 tokens", "2 completions"]),
    ],
)
def test_a_context_that_is_too_short(
    tmp_path: Path, model: Path, settings: dict[str, Any], sections: dict[str, Any], words: list[str]
) -> None:
    (model / "config.json").write_text(json.dumps({"num_hidden_layers": 3, **settings}))
    generation: dict[str, Any] = dict(sections)
    workers, turns = {"endpoints": generation.pop("endpoints", [])}, generation.pop("turns", 0)
    generation["engine"] = {"max_model_len": generation.pop("max_model_len", 4096)}
    conversation = {"kind": "scripted", "turns": [{"text": "Again."}] * turns} if turns else {}
    sections = {"generation": generation, "workers": workers, "conversation": conversation}
    found = problems(tmp_path, model={"source": "./tiny"}, **sections)
    assert len(found) == bool(words), found
    for word in words:
        assert word in found[0]


def test_a_question_that_leaves_no_room_for_an_answer(tmp_path: Path, model: Path, smollm2: Path) -> None:
    shutil.copy(smollm2 / "tokenizer.json", model / "tokenizer.json")
    (model / "config.json").write_text(json.dumps({"num_hidden_layers": 3, "max_position_embeddings": 4096}))
    rows = [{"question": "one " * length, "answer": 1} for length in (10, 3900)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sections: dict[str, Any] = {"model": {"source": "./tiny"}, "dataset": {"source": "d.jsonl", "samples": 2}}
    (line,) = problems(tmp_path, **sections)
    assert re.search(r"generation.max_tokens = 256: the longest prompt has at least 39\d\d tokens", line)
    assert problems(tmp_path, generation={"max_tokens": 100}, **sections) == []


@pytest.mark.parametrize(
    ("section", "sections", "words"),
    [
        ({"quant_method": "awq"}, {}, ["vLLM computes with awq in bfloat16 or float16, not in float32", "gptqmodel"]),
        ({"quant_method": "awq"}, {"model": {"dtype": "bfloat16"}}, ["need pip install gptqmodel"]),
        ({"quant_method": "gptq"}, {"generation": {"backend": "nnsight"}}, ["need pip install optimum gptqmodel"]),
        ({"quant_method": "bitsandbytes"}, {}, ["vLLM reads no weights", "need pip install bitsandbytes"]),
        ({"quant_method": "fp8"}, {"model": {"dtype": "bfloat16"}}, []),
        ({"quant_method": "mxfp8"}, {"model": {"dtype": "bfloat16"}}, ["has no kernels for mxfp8 on a CPU"]),
        ({"quant_method": "compressed-tensors"}, {}, []),
        ({"quant_method": "zip"}, {"generation": {"backend": "nnsight"}}, ["knows no quantisation 'zip'"]),
        ({"quant_method": "awq"}, {"capture": {"enabled": False}}, ["set model.dtype"]),
        (
            {"quant_method": "awq"},
            {"workers": {"endpoints": ["http://a/v1"], "capture_endpoints": ["http://b/v1"]}},
            [],
        ),
        ({"quant_method": "awq"}, {"deploy": {"backend": "ssh", "host": "gpu"}}, []),
    ],
)
def test_quantised_weights(
    tmp_path: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    section: dict[str, Any],
    sections: dict[str, Any],
    words: list[str],
) -> None:
    monkeypatch.setattr(model_checks, "hardware", lambda _: "cpu")
    (model / "config.json").write_text(json.dumps({"num_hidden_layers": 3, "quantization_config": section}))
    sections = {**sections, "model": {"source": "./tiny", **sections.get("model", {})}}
    found = problems(tmp_path, **sections)
    assert bool(found) == bool(words), found
    for word in words:
        assert any(word in line for line in found), found


def test_a_model_that_cannot_be_captured_is_told_before_anything_runs(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ask(*arguments: Any) -> list[str]:
        asked.append(arguments[0])
        return heavy_checks.ask(*arguments)

    monkeypatch.setattr(model_checks, "ask", ask)
    (model / "config.json").write_text('{"model_type": "mamba"}')
    cache = tmp_path / "cache"
    for _ in range(2):
        (line,) = problems(tmp_path, cache, model={"source": "./tiny"})
        assert "a mamba model is no decoder with attention layers" in line
    assert asked == ["capture"]
    assert problems(tmp_path, cache, model={"source": "./tiny"}, capture={"enabled": False}) == []
    monkeypatch.setattr(sys, "executable", "/nowhere")
    assert problems(tmp_path, model={"source": "./tiny"}) == []


def test_a_key_pasted_as_the_path_of_its_file_is_not_repeated(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, workers={"api_key_file": "sk-secret"})
    assert line.startswith("workers.api_key_file: No such file")
    assert "sk-" not in line


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
    sizes = {"num_hidden_layers": 3, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    (model / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 9, **sizes}))
    by_rules = re.findall(IMPORTED, (ROOT / "rules/common.smk").read_text(), re.MULTILINE)
    script = "\n".join([*by_rules, IMPORTS])
    done = subprocess.run(
        [sys.executable, "-c", script, str(model)], capture_output=True, text=True, check=True, cwd=ROOT, timeout=120
    )
    assert done.stdout.strip() == "[] address_path []"
