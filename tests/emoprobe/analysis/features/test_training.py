"""Training: a planted dictionary is found, and an interruption changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from emoprobe.analysis.features import training
from emoprobe.analysis.features.autoencoder import SparseAutoencoder, best_cosines, random_autoencoder, shared
from emoprobe.analysis.features.quality import quality
from emoprobe.analysis.features.tokens import Batches
from emoprobe.analysis.features.training import Progress, Scale, train
from emoprobe.config.science.features import Autoencoder
from emoprobe.results.activation_folder import TENSORS, ActivationError
from tests.emoprobe.analysis.features.planted import LENGTH, SYSTEM, Planted, planted, table


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return planted(tmp_path_factory.mktemp("tokens"), table(60, {"control": 0, "filler": 8, "joy": 8}))


def settings(**values: object) -> Autoencoder:
    return Autoencoder.model_validate(
        {"width": 48, "k": 2, "steps": 400, "batch_tokens": 256, "learning_rate": 0.01, **values}
    )


@pytest.mark.parametrize("architecture", ["topk", "batch_topk"])
def test_a_planted_dictionary_is_found(world: Planted, tmp_path: Path, architecture: str) -> None:
    held_out = world.tokens.half("test")
    found = {
        seed: train(world.tokens.half("fit"), settings(architecture=architecture), seed, tmp_path / "c", "k")
        for seed in (0, 1)
    }
    for own in found.values():
        assert float(best_cosines(world.dictionary, own.directions).mean()) >= 0.9
        measured = quality(own, held_out)
        assert measured.fvu < 0.35
        assert measured.l0 == pytest.approx(2, abs=0.4)
        assert measured.tokens == len(held_out) * (LENGTH - SYSTEM)
    baseline = random_autoencoder(48, 2, Scale.of(held_out).mean, 0)
    assert float(best_cosines(world.dictionary, baseline.directions).mean()) < 0.8
    assert quality(baseline, held_out).fvu > quality(found[0], held_out).fvu + 0.2
    assert shared(found[0], {"other": found[1]}) > shared(found[0], {"other": baseline})


def test_an_interruption_changes_no_bit(world: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, shards = settings(steps=40), world.tokens.half("fit")
    whole = train(shards, wanted, 0, tmp_path / "a", "k")
    assert not (tmp_path / "a").exists()

    class KilledError(Exception):
        pass

    def step(self: training.Trainer, x: torch.Tensor) -> Progress:
        if self.step_number == 23:
            raise KilledError
        return original(self, x)

    original = training.Trainer.step
    with monkeypatch.context() as patched:
        patched.setattr(training.Trainer, "step", step)
        with pytest.raises(KilledError):
            train(shards, wanted, 0, tmp_path / "b", "k", checkpoint_seconds=0.0)
    assert (tmp_path / "b").exists()
    steps: list[int] = []
    monkeypatch.setattr(training, "PROGRESS_SECONDS", 0.0)
    again = train(shards, wanted, 0, tmp_path / "b", "k", lambda progress: steps.append(progress.step))
    assert steps == list(range(24, 41))
    assert equal(again, whole)
    steps.clear()
    train(shards, wanted, 0, tmp_path / "b", "another", lambda progress: steps.append(progress.step))
    assert steps == list(range(1, 41))


def test_a_damaged_checkpoint_is_no_checkpoint(world: Planted, tmp_path: Path) -> None:
    wanted, shards = settings(steps=3), world.tokens.half("fit")
    (tmp_path / "c").write_bytes(b"nothing")
    assert equal(train(shards, wanted, 0, tmp_path / "c", "k"), train(shards, wanted, 0, tmp_path / "d", "k"))
    assert not equal(train(shards, wanted, 1, tmp_path / "d", "k"), train(shards, wanted, 0, tmp_path / "d", "k"))


def equal(first: SparseAutoencoder, second: SparseAutoencoder) -> bool:
    return (
        torch.equal(first.w_enc, second.w_enc)
        and torch.equal(first.b_enc, second.b_enc)
        and torch.equal(first.b_dec, second.b_dec)
    )


def test_batches_hold_every_token_once_a_round_and_start_anywhere(world: Planted) -> None:
    shards = world.tokens.half("fit")[:9]
    every = torch.cat([shard.tokens() for shard in shards])
    for buffer in (1 << 16, 40):
        batches = Batches(shards, 12, 3, buffer)
        stream = batches.start_at(0)
        first = [next(stream) for _ in range(30)]
        if buffer > len(every):
            round_one = torch.cat(first[: len(every) // 12])
            assert len({tuple(row) for row in round_one.tolist()}) == len(round_one)
        assert {tuple(row) for row in torch.cat(first).tolist()} <= {tuple(row) for row in every.tolist()}
        later = Batches(shards, 12, 3, buffer).start_at(17)
        assert all(torch.equal(next(later), first[number]) for number in range(17, 30))
    other = next(Batches(shards, 12, 4).start_at(0))
    assert not torch.equal(other, first[0])
    assert len(next(Batches(shards[:1], 1000, 0).start_at(0))) == LENGTH - SYSTEM


def test_the_scale_makes_tokens_of_mean_zero_and_size_one(world: Planted) -> None:
    shards = world.tokens.half("fit")
    scale = Scale.of(shards)
    values = (torch.cat([shard.tokens() for shard in shards]) - scale.mean) / scale.size
    assert torch.allclose(values.mean(0), torch.zeros(16), atol=1e-4)
    assert float(values.square().mean()) == pytest.approx(1, rel=1e-3)


def test_dead_features_come_back(world: Planted, tmp_path: Path) -> None:
    """Without the auxiliary loss more of many features would stay dead."""
    dead: list[float] = []
    train(
        world.tokens.half("fit"), settings(width=256, steps=300), 0, tmp_path / "c", "k",
        lambda progress: dead.append(progress.dead),
    )  # fmt: skip
    assert dead[-1] < 0.6


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    own = planted(tmp_path / "tokens", table(2, {"control": 0})).tokens
    path = own.shards[0].folder / TENSORS
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ActivationError, match="damaged"):
        own.shards[0].read()
