"""What a chat template makes of an experiment's messages, and which library tokenizes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from emoprobe.analysis.origin_limits import prompt_limits
from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.conversations.rendering import Renderer
from emoprobe.models.directory import ModelError
from emoprobe.models.source import ModelCard, tokenizer_directory
from emoprobe.report.statements.notes import notes
from emoprobe.workflow.prompt_checks import describe_prompt, same_prompts
from emoprobe.workflow.triggers import Triggers
from scripts.prepare_model import with_tokenizer
from tests import byte_tokenizer
from tests.byte_tokenizer import CHATML
from tests.emoprobe.conversations.templates import TEMPLATES

QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
GPT_OSS = "You are ChatGPT, a large language model trained by OpenAI.\nCurrent date: 2024-07-26\n\nReasoning: medium"


def config(**sections: Any) -> Config:
    return parse_config({"variants": {"control": {}, "calm": {"texts": ["Be calm.", "Rest."]}}, **sections})


@pytest.mark.parametrize(
    ("template", "prompt", "added", "begins"),
    [
        ("chatml", {}, [], "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}"),
        ("chatml", {"system": None}, [], "<|im_start|>user\n{user}"),
        ("chatml", {"system": ""}, [], "<|im_start|>system\n{system}"),
        ("qwen", {"system": None}, [QWEN], f"<|im_start|>system\n{QWEN}"),
        ("qwen", {}, [], "<|im_start|>system\n{system}"),
        ("gpt-oss", {}, [GPT_OSS, "# Instructions"], "<|im_start|>system<|message|>You are ChatGPT"),
        (
            "llama",
            {"date": "2030-01-02"},
            ["Cutting Knowledge Date: December 2023\nToday Date: 02 Jan 2030"],
            "<|im_start|><|im_start|>system",
        ),
        ("mistral", {"examples": [{"question": "1?", "answer": "1"}]}, [], "<|im_start|>[INST] {user}[/INST] {assistant}"),
        ("gemma", {"system": None}, [], "<|im_start|><start_of_turn>user\n{user}<end_of_turn>"),
    ],
)  # fmt: skip
def test_what_a_template_makes_of_the_messages_is_described(
    tmp_path: Path, template: str, prompt: dict[str, Any], added: list[str], begins: str
) -> None:
    renderer = Renderer.load(byte_tokenizer.write(tmp_path, TEMPLATES[template]))
    found = describe_prompt(config(prompt=prompt), renderer)
    assert found["added"] == added
    assert found["frame"].startswith(begins)
    assert found["date"] == prompt.get("date", "2024-07-26")
    assert found["control_tokens"] == ["<|im_end|>", "<|im_start|>"]
    assert json.loads(json.dumps(found)) == found


def test_the_embedded_model_gets_a_system_message_where_there_is_none(smollm2: Path) -> None:
    found = describe_prompt(config(prompt={"system": None}), Renderer.load(smollm2))
    assert found["added"] == ["You are a helpful AI assistant named SmolLM, trained by Hugging Face"]


def test_a_report_says_what_is_added_and_which_questions_write_markup() -> None:
    table = pd.DataFrame(
        {"sample_id": ["a_1", "a_1", "a_2", "a_3"], "question": ["x <|im_end|>", "x <|im_end|>", "y", None]}
    )
    assert notes(prompt_limits({}, table)) == []
    assert notes(prompt_limits({"control_tokens": ["x"]}, table[["sample_id"]])) == []
    quiet = {"added": [], "control_tokens": ["<|im_start|>"]}
    assert notes(prompt_limits(quiet, table)) == []
    found = notes(prompt_limits({"added": [QWEN, "x " * 400], "control_tokens": ["<|im_end|>"]}, table))
    assert [statement.about for statement in found] == ["data:template", "data:markup"]
    assert f"\u201c{QWEN} …" in found[0].text
    assert len(found[0].text) < 500
    assert found[1].text.endswith("(<|im_end|>), which it reads as markup and not as text: a_1.")
    assert found[1].estimate == 1.0


def card(folder: Path) -> ModelCard:
    return ModelCard("./tiny", str(folder), None, "0", 64)


def test_the_fast_library_is_used_where_it_makes_the_same_prompts(tmp_path: Path) -> None:
    folder = byte_tokenizer.write(tmp_path)
    settings = config(model={"source": "./tiny"})
    assert with_tokenizer(settings, card(folder)).tokenizer is None
    assert "tokenizer" not in card(folder).to_json()
    # A template that needs a special token which only the class of the tokenizer names.
    byte_tokenizer.write(tmp_path, "{{ bos_token }}" + CHATML, tokenizer_class="GPT2Tokenizer", unk_token="<|im_end|>")
    values = json.loads((folder / "tokenizer_config.json").read_text())
    del values["bos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(values))
    fast, reference = Renderer.load(folder), Renderer.load(folder, "transformers")
    assert not same_prompts(settings, fast, reference)
    found = with_tokenizer(settings, card(folder))
    assert found.tokenizer == "transformers"
    path = tmp_path / "model.json"
    path.write_text(json.dumps(found.to_json()))
    assert ModelCard.read(path) == found


def test_a_model_is_prepared_for_no_experiment_whose_prompts_are_wrong(tmp_path: Path) -> None:
    folder = byte_tokenizer.write(tmp_path, CHATML.replace("in messages", "in messages if message['role'] != 'system'"))
    with pytest.raises(ModelError, match="leaves the system message out"):
        with_tokenizer(config(model={"source": "./tiny"}), card(folder))
    byte_tokenizer.write(tmp_path, TEMPLATES["gemma"])
    with pytest.raises(ModelError, match="refuses a system message"):
        with_tokenizer(config(model={"source": "./tiny"}), card(folder))


def test_where_the_weights_are_elsewhere_the_tokenizer_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked = []

    def download(repository: str, *, revision: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        assert ignore_patterns == ["*/*"]
        asked.append((repository, revision, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    byte_tokenizer.write(tmp_path)
    foreign = ModelCard("owner/name", "owner/name", "abc", "abc", None)
    assert tokenizer_directory(foreign) == tmp_path
    assert with_tokenizer(config(model={"source": "owner/name"}), foreign) == foreign
    assert {(name, revision) for name, revision, _ in asked} == {("owner/name", "abc")}
    assert not any("safetensors" in pattern or pattern == "*" for *_, patterns in asked for pattern in patterns)

    def fail(*_: Any, **__: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelError, match=r"owner/name at revision abc could not be loaded .* no network"):
        tokenizer_directory(foreign)


def test_the_date_is_in_the_digests_where_it_is_set_and_nowhere_else() -> None:
    plain, dated = Triggers.of(config()), Triggers.of(config(prompt={"date": "2030-01-02"}))
    assert Triggers.of(config(prompt={"date": None})) == plain
    assert (plain.answers, plain.experiment) != (dated.answers, dated.experiment)
    assert plain.answers != dated.answers
    assert plain.experiment != dated.experiment
    assert "date" not in config().prompt.content()
    assert "date" not in config().described()["prompt"]
    assert config().resolved()["prompt"]["date"] is None
