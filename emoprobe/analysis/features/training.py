"""Training of a small TopK or BatchTopK autoencoder: seeded, and continued where it was interrupted.

It follows Gao et al. (2024, TopK, with their auxiliary loss for features that are never active) and Bussmann et al.
(2024, BatchTopK: the largest k × tokens features of a batch; afterwards a threshold, the mean over batches of the
smallest that was kept).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from emoprobe.analysis.features.autoencoder import SparseAutoencoder
from emoprobe.analysis.features.tokens import Batches, TokenShard
from emoprobe.config.science.features import Autoencoder
from emoprobe.results import atomic

WARM_UP, DECAY = 0.05, 0.2  # shares of the steps
DEAD_AFTER = 0.05  # share of the steps without being active that makes a feature dead
AUXILIARY = 1 / 32  # weight of the auxiliary loss
CHECKPOINT_SECONDS, PROGRESS_SECONDS = 30.0, 2.0


@dataclass(frozen=True)
class Progress:
    """Progress of training: the last batch's share of variance unexplained, active features, and dead share."""

    step: int
    steps: int
    fvu: float
    l0: float
    dead: float

    def __str__(self) -> str:
        return (
            f"step {self.step}/{self.steps}: {self.fvu:.3f} of the variance unexplained, {self.l0:.1f} active "
            f"features a token, {100 * self.dead:.1f} % dead"
        )


@dataclass(frozen=True)
class Scale:
    """The mean (d,) of the tokens, and the size that makes their mean squared distance from it d."""

    mean: torch.Tensor
    size: float

    @classmethod
    def of(cls, shards: Sequence[TokenShard]) -> Scale:
        """Of some shards, read one after the other."""
        total: torch.Tensor | float = 0.0
        squares, count = 0.0, 0
        for shard in shards:
            values = shard.tokens().double()
            total, squares, count = total + values.sum(0), squares + float((values**2).sum()), count + len(values)
        assert isinstance(total, torch.Tensor)
        mean = total / count
        variance = squares / count - float((mean**2).sum())
        return cls(mean.float(), max(variance / len(mean), 1e-12) ** 0.5)


class Trainer:
    """The weights in training, for activations that are centred and scaled, and the state of the optimizer."""

    def __init__(self, settings: Autoencoder, d: int, seed: int) -> None:
        self._settings = settings
        generator = torch.Generator().manual_seed(seed)
        directions = torch.randn(settings.width, d, generator=generator)
        directions /= directions.norm(dim=1, keepdim=True)
        self.w_dec = directions.requires_grad_()
        self.w_enc = directions.detach().T.clone().contiguous().requires_grad_()
        self.b_enc = torch.zeros(settings.width, requires_grad=True)
        self.b_dec = torch.zeros(d, requires_grad=True)
        self._optimizer = torch.optim.Adam(self._parameters.values(), lr=settings.learning_rate, betas=(0.9, 0.999))
        self.step_number = 0
        self._silent = torch.zeros(settings.width)  # steps since each feature was active
        self._threshold = torch.zeros(2, dtype=torch.float64)  # sum of the smallest kept values, and of how many

    @property
    def _parameters(self) -> dict[str, torch.Tensor]:
        return {"w_enc": self.w_enc, "b_enc": self.b_enc, "w_dec": self.w_dec, "b_dec": self.b_dec}

    def step(self, x: torch.Tensor) -> Progress:
        """One step on a batch of scaled activations (tokens, d)."""
        settings = self._settings
        for group in self._optimizer.param_groups:
            group["lr"] = settings.learning_rate * self._rate()
        pre = (x - self.b_dec) @ self.w_enc + self.b_enc
        features = self._kept(pre.relu())
        error = x - (features @ self.w_dec + self.b_dec)
        loss = error.square().sum(1).mean() / x.shape[1]
        self._note(features.detach())
        loss = loss + self._auxiliary(pre, error.detach(), x.shape[1])
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            assert self.w_dec.grad is not None
            # What would only make a direction longer is left out, and its length is kept at 1.
            along = (self.w_dec.grad * self.w_dec).sum(1, keepdim=True)
            self.w_dec.grad -= along * self.w_dec
            self._optimizer.step()
            self.w_dec /= self.w_dec.norm(dim=1, keepdim=True).clamp(min=1e-12)
        self.step_number += 1
        variance = (x - x.mean(0)).square().sum()
        return Progress(
            self.step_number,
            settings.steps,
            float(error.detach().square().sum() / variance),
            float((features > 0).sum() / len(x)),
            float((self._silent > self._dead_after).float().mean()),
        )

    def _rate(self) -> float:
        """The learning rate of this step, as a share: warmed up, and down to 0 at the end."""
        done, steps = self.step_number, self._settings.steps
        return min(1.0, (done + 1) / max(1.0, WARM_UP * steps), (steps - done) / max(1.0, DECAY * steps))

    @property
    def _dead_after(self) -> float:
        return max(10.0, DEAD_AFTER * self._settings.steps)

    def _kept(self, features: torch.Tensor) -> torch.Tensor:
        k = self._settings.k
        if self._settings.architecture == "topk":
            kept = features.topk(k, dim=1)
            return torch.zeros_like(features).scatter(1, kept.indices, kept.values)
        smallest = features.detach().flatten().topk(min(k * len(features), features.numel())).values[-1]
        return features * (features >= smallest)

    def _note(self, features: torch.Tensor) -> None:
        active = (features > 0).any(0)
        self._silent = torch.where(active, 0.0, self._silent + 1)
        if self.step_number >= (1 - DECAY) * self._settings.steps and bool(active.any()):
            smallest = features[features > 0].min().double()
            self._threshold += torch.stack([smallest, torch.ones((), dtype=torch.float64)])

    def _auxiliary(self, pre: torch.Tensor, error: torch.Tensor, d: int) -> torch.Tensor:
        """Return the auxiliary loss: the error that the dead features leave unexplained (Gao et al. 2024, A.2)."""
        dead = torch.nonzero(self._silent > self._dead_after).flatten()
        count = min(len(dead), d // 2)
        if not count:
            return pre.new_zeros(())
        kept = pre[:, dead].topk(count, dim=1)
        features = torch.zeros(len(pre), len(dead)).scatter(1, kept.indices, kept.values.relu())
        missed = error - features @ self.w_dec[dead]
        return AUXILIARY * missed.square().sum(1).mean() / error.square().sum(1).mean().clamp(min=1e-12)

    def finished(self, scale: Scale) -> SparseAutoencoder:
        """The autoencoder for activations as they are: centre and scale are in its weights."""
        smallest = float(self._threshold[0] / self._threshold[1].clamp(min=1))
        batch = self._settings.architecture == "batch_topk"
        return SparseAutoencoder(
            architecture=self._settings.architecture,
            w_enc=self.w_enc.detach().clone(),
            b_enc=scale.size * self.b_enc.detach(),
            w_dec=self.w_dec.detach().clone(),
            b_dec=scale.mean + scale.size * self.b_dec.detach(),
            # Every feature counts from where the smallest was kept on.
            threshold=torch.full((self._settings.width,), scale.size * smallest) if batch else None,
            k=None if batch else self._settings.k,
        )

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that another process needs to go on with the next step."""
        tensors = {name: value.detach() for name, value in self._parameters.items()}
        for name, value in self._parameters.items():
            for kind, tensor in self._optimizer.state[value].items():
                tensors[f"{name}.{kind}"] = tensor
        return tensors | {
            "silent": self._silent,
            "threshold": self._threshold,
            "step": torch.tensor(self.step_number),
        }

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from a state."""
        with torch.no_grad():
            for name, value in self._parameters.items():
                value.copy_(state[name])
                prefix = f"{name}."
                kinds = {key.removeprefix(prefix): kept for key, kept in state.items() if key.startswith(prefix)}
                self._optimizer.state[value] = kinds
        self._silent, self._threshold = state["silent"], state["threshold"]
        self.step_number = int(state["step"])


def train(
    shards: Sequence[TokenShard],
    settings: Autoencoder,
    seed: int,
    checkpoint: Path,
    key: str,
    report: Callable[[Progress], None] = lambda _: None,
    *,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> SparseAutoencoder:
    """Train an autoencoder on shards of tokens.

    Args:
        shards: of the fitting half.
        settings: what to train.
        seed: of the weights and of the order of the tokens.
        checkpoint: a file for the state in between; it is there as long as training is not finished.
        key: stands for all that the result depends on; a checkpoint with another one is not used.
        report: called every two seconds, and after the last step.
        checkpoint_seconds: how often the state is written.

    Returns:
        The same weights, bit for bit, whether it was interrupted or not.
    """
    scale = Scale.of(shards)
    trainer = Trainer(settings, len(scale.mean), seed)
    state = _read(checkpoint, key)
    if state is not None:
        trainer.load(state)
    written = reported = time.monotonic()
    batches = Batches(shards, settings.batch_tokens, seed).start_at(trainer.step_number)
    while trainer.step_number < settings.steps:
        progress = trainer.step((next(batches) - scale.mean) / scale.size)
        now = time.monotonic()
        if now - reported >= PROGRESS_SECONDS or progress.step == settings.steps:
            report(progress)
            reported = now
        if now - written >= checkpoint_seconds and progress.step < settings.steps:
            atomic.write_bytes(checkpoint, save(trainer.state(), metadata={"key": key}))
            written = now
    return trainer.finished(scale)


def _read(checkpoint: Path, key: str) -> dict[str, torch.Tensor] | None:
    """The state in a checkpoint; None where there is none of this training."""
    try:
        with safe_open(checkpoint, "pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError):
        return None
