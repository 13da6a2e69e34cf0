"""Models that think in name: the files of another model, with tokens that mark thoughts and a template that knows them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.emoprobe.conversations.templates import THINKING

SPARE = ("<repo_name>", "<file_sep>")


def make(source: Path, folder: Path, family: str, *, weights: bool = True) -> Path:
    """Copy a model with the embedded model's tokenizer, two of whose tokens become `<think>` and `</think>`."""
    template, _, markers = THINKING[family]
    ignored = () if weights else ("*.safetensors",)
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*ignored), dirs_exist_ok=True)
    values = json.loads((folder / "tokenizer.json").read_text())
    names = dict(zip(SPARE, markers, strict=True))
    for token in values["added_tokens"]:
        if token["content"] in names:
            token["content"], token["special"] = names[token["content"]], False
    vocabulary = values["model"]["vocab"]
    values["model"]["vocab"] = {names.get(name, name): number for name, number in vocabulary.items()}
    (folder / "tokenizer.json").write_text(json.dumps(values, ensure_ascii=False))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings = {name: settings[name] for name in settings if name not in ("added_tokens_decoder", "chat_template")}
    for name in ("additional_special_tokens", "extra_special_tokens"):
        settings.pop(name, None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    (folder / "chat_template.jinja").write_text(template)
    return folder
