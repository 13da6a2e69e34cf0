"""What `auto` becomes, for the hardware of the servers, and that results keep it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emoprobe.config.files import parse_config
from emoprobe.conversations.lengths import needed_length
from emoprobe.conversations.rendering import Renderer
from emoprobe.models import resolved
from emoprobe.models.footprint import Footprint
from emoprobe.models.placement import PlacementError
from emoprobe.models.resolved import ResolveError, as_made, pinned, resolve, with_values
from emoprobe.models.server_hardware import ServerHardware
from emoprobe.models.source import ModelCard
from emoprobe.results.trajectory import Sample
from emoprobe.workflow.triggers import Triggers
from scripts.prepare_model import with_resolved
from tests import byte_tokenizer, nvidia_smi
from tests.emoprobe.models.placements import CONFIGS

CPU, H100, T4 = (
    ServerHardware("cpu"),
    ServerHardware("gpu", (85.5,), (9, 0)),
    ServerHardware("gpu", (16.1,), (7, 5)),
)
QWEN = CONFIGS / "Qwen3-0.6B"
FORMER = {"model": {"dtype": "float32"}, "capture": {"dtype": "float16"},
          "generation": {"engine": {"max_model_len": 4096, "tensor_parallel": 1}}}  # fmt: skip


@pytest.mark.parametrize(
    ("servers", "sections", "expected"),
    [
        (CPU, {}, ("float32", "float16", 1)),
        (H100, {}, ("bfloat16", "bfloat16", 1)),
        (T4, {}, ("float16", "float16", 1)),
        (ServerHardware(None), {}, ("bfloat16", "bfloat16", 1)),
        (ServerHardware("gpu", job_gpus=4), {}, ("bfloat16", "bfloat16", 4)),
        (ServerHardware("gpu", job_gpus=3), {}, ("bfloat16", "bfloat16", 2)),
        (H100, {"model": {"dtype": "float32"}}, (None, "float16", 1)),
        (H100, {"capture": {"dtype": "float32"}}, ("bfloat16", None, 1)),
        (H100, FORMER, (None, None, None)),
    ],
)
def test_auto_follows_the_checkpoint_and_the_hardware(
    servers: ServerHardware, sections: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    found = resolve(parse_config(sections), QWEN, servers)
    keys = ("model.dtype", "capture.dtype", "engine.tensor_parallel")
    assert tuple(found.get(key) for key in keys) == expected
    assert found.keys() <= set(keys)


def test_quantised_checkpoints_name_no_type_and_compute_in_bfloat16() -> None:
    assert resolve(parse_config({}), CONFIGS / "gpt-oss-20b", H100)["model.dtype"] == "bfloat16"
    assert resolve(parse_config({}), CONFIGS / "Gemma-3-27B", CPU)["model.dtype"] == "float32"


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ({"endpoints": ["http://a:1/v1"]}, ServerHardware(None)),
        ({"endpoints": ["http://a:1/v1"], "hardware": {"http://a:1/v1": "CPU Xeon"}}, CPU),
        (
            {"endpoints": ["http://a:1/v1"], "hardware": {"http://a:1/v1": "Tesla T4 (compute capability 7.5)"}},
            ServerHardware("gpu", capability=(7, 5)),
        ),
        ({"slurm": [{"gres": "gpu:2"}, {"gres": "gpu:4"}]}, ServerHardware("gpu", job_gpus=2)),
        ({"slurm": [{}]}, CPU),
        ({}, CPU),
    ],
)
def test_the_hardware_is_that_of_the_servers(
    workers: dict[str, Any], expected: ServerHardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert ServerHardware.of(parse_config({"workers": workers})) == expected


def test_results_of_version_0_2_keep_their_digests(tmp_path: Path) -> None:
    config = parse_config({})
    assert as_made(config, tmp_path) == config
    (tmp_path / "model.json").write_text(json.dumps(ModelCard("m", "/m", None, "0", 64).to_json()))
    former = parse_config(FORMER)
    assert Triggers.of(as_made(config, tmp_path)) == Triggers.of(former) != Triggers.of(config)
    # Where the card is lost, the config that the results were made with says the same; other values are kept as well.
    (tmp_path / "model.json").unlink()
    made = FORMER | {"model": {"dtype": "bfloat16"}}
    (tmp_path / "experiment_config.json").write_text(json.dumps(parse_config(made).resolved()))
    assert Triggers.of(as_made(config, tmp_path)) == Triggers.of(parse_config(made))
    assert as_made(parse_config({"model": {"dtype": "float16"}}), tmp_path).model.dtype == "float16"


def test_digests_of_auto_are_the_same_before_and_after_it_is_decided(tmp_path: Path) -> None:
    config = parse_config({})
    before = Triggers.of(as_made(config, tmp_path))
    card = ModelCard("m", "/m", None, "0", 64, resolved={"model.dtype": "bfloat16"})
    (tmp_path / "model.json").write_text(json.dumps(card.to_json()))
    assert ModelCard.read(tmp_path / "model.json") == card
    (tmp_path / "experiment_config.json").write_text(json.dumps(config.resolved()))
    assert Triggers.of(as_made(config, tmp_path)) == before
    (tmp_path / "model.json").unlink()
    assert Triggers.of(as_made(config, tmp_path)) == before


def test_a_context_of_auto_is_in_no_digest() -> None:
    auto, long, short = (
        Triggers.of(parse_config({"generation": {"engine": {"max_model_len": length}}})).answers
        for length in ("auto", 8192, 64)
    )
    assert len({auto, long, short}) == 3
    assert "max_model_len" not in parse_config({}).generation.engine.content()


def test_another_machine_uses_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    kept = {"model.dtype": "bfloat16", "capture.dtype": "bfloat16", "engine.tensor_parallel": 2}
    card = ModelCard("m", str(QWEN), None, "0", 64, resolved=kept)
    found = pinned(parse_config({}), card, QWEN)
    assert (found.model.dtype, found.capture.dtype, found.generation.engine.tensor_parallel) == (
        "bfloat16",
        "bfloat16",
        2,
    )
    # What the configuration says itself is not replaced.
    assert with_values(parse_config({"capture": {"dtype": "float32"}}), kept).capture.dtype == "float32"


def test_another_machine_that_cannot_use_it_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = ModelCard("m", str(QWEN), None, "0", 64, resolved={"model.dtype": "bfloat16"})
    nvidia_smi.install(tmp_path / "bin", monkeypatch, [15360], "7.5")
    with pytest.raises(ResolveError, match=r"begun in bfloat16.*compute capability 7\.5.* have no bfloat16"):
        pinned(parse_config({}), card, QWEN)
    url = "http://a:1/v1"
    workers = {"endpoints": [url], "hardware": {url: "CPU Xeon"}}
    with pytest.raises(ResolveError, match=r"begun in bfloat16.* compute in float32; start them with dtype bfloat16"):
        pinned(parse_config({"workers": workers}), card, QWEN)
    monkeypatch.undo()
    nvidia_smi.forget()


def test_a_lost_card_takes_what_the_metadata_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    card, config = ModelCard("m", str(QWEN), None, "0", 64), parse_config({})
    fresh = with_resolved(config, card, tmp_path).resolved
    assert fresh == {"model.dtype": "float32", "capture.dtype": "float16", "engine.tensor_parallel": 1}
    kept = {"model.dtype": "bfloat16", "capture.dtype": "bfloat16"}
    (tmp_path / "metadata.json").write_text(json.dumps({"model": {"sha256": "0", "resolved": kept}}))
    assert with_resolved(config, card, tmp_path).resolved == fresh | kept
    (tmp_path / "metadata.json").write_text(json.dumps({"model": {"sha256": "another", "resolved": kept}}))
    assert with_resolved(config, card, tmp_path).resolved == fresh
    assert with_resolved(parse_config(FORMER), card, tmp_path).resolved is None


def test_the_context_holds_every_prompt_and_its_completion(tmp_path: Path) -> None:
    byte_tokenizer.write(tmp_path)
    renderer = Renderer.load(tmp_path)
    config = parse_config({"dataset": {"samples": 2}, "generation": {"max_tokens": 256}})

    def samples(letters: int) -> list[Sample]:
        return [
            Sample(
                sample_id=f"x_{index + 1:04d}", index=index, question="q" * (letters * index + 1), answer="1", source={}
            )
            for index in range(2)
        ]

    assert needed_length(config, renderer, samples(10), None) == 4096
    assert needed_length(config, renderer, samples(4000), None) == 8192
    assert needed_length(config, renderer, samples(4000), 5000) == 5000
    assert needed_length(config, renderer, samples(10), 512) == 512


def test_a_model_that_memory_cannot_hold_is_refused_before_anything_is_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    card, config = ModelCard("m", str(QWEN), None, "0", 64), parse_config({"model": {"source": "./m"}})
    size = Footprint.of(QWEN, "float32")
    assert size is not None
    for memory, warns in ((2 * size.loaded, False), (2 * size.loaded - 1, True), (size.loaded, True)):
        monkeypatch.setattr(resolved, "machine_memory", lambda memory=memory: memory)
        assert with_resolved(config, card, tmp_path).resolved
        said = capsys.readouterr().err
        assert ("in all servers of this machine" in said) == warns, said
    monkeypatch.setattr(resolved, "machine_memory", lambda: size.loaded - 1)
    with pytest.raises(PlacementError, match=r"the weights take 2\.4 GB in float32, 4\.8 GB in all servers .* choose"):
        with_resolved(config, card, tmp_path)
    elsewhere = parse_config({"model": {"source": "./m"}, "workers": {"slurm": [{"partition": "a"}]}})
    assert with_resolved(elsewhere, card, tmp_path).resolved
    # What the user has chosen, `auto` need not decide: it is checked all the same.
    monkeypatch.setattr(ServerHardware, "of_this_machine", lambda: ServerHardware("gpu", (4.0,), (9, 0)))
    chosen = parse_config({"model": {"source": "./m"}, "generation": {"engine": {"tensor_parallel": 1}}})
    with pytest.raises(PlacementError, match="does not fit"):
        with_resolved(chosen, card, tmp_path)
