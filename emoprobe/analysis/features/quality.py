"""The quality of an autoencoder on held-out tokens: its reconstructions, and the model's loss with them in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from emoprobe.analysis.features.autoencoder import SparseAutoencoder
from emoprobe.analysis.features.tokens import TokenShard
from emoprobe.models.architecture import decoder_layers, language_model, tensor_of


@dataclass(frozen=True)
class Quality:
    """`fvu`: share of the variance that is not given back; `l0`: active features a token; `dead`: never active."""

    tokens: int
    fvu: float
    l0: float
    dead: float


@torch.no_grad()
def quality(autoencoder: SparseAutoencoder, shards: Sequence[TokenShard]) -> Quality:
    """Quality over the tokens of some shards, read one after the other."""
    total = torch.zeros(autoencoder.d, dtype=torch.float64)
    squares = error = active = 0.0
    ever = torch.zeros(autoencoder.width, dtype=torch.bool)
    count = 0
    for shard in shards:
        x = shard.tokens()
        features, given = autoencoder.encode_and_reconstruct(x)
        on = features > 0
        ever |= on.any(0)
        active += float(on.sum())
        error += float((x - given).double().square().sum())
        total += x.double().sum(0)
        squares += float(x.double().square().sum())
        count += len(x)
    variance = squares - float(total.square().sum()) / max(1, count)
    fvu = error / variance if variance > 0 else float("nan")
    return Quality(count, fvu, active / max(1, count), float((~ever).float().mean()))


Replace = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Losses:
    """Cross-entropy in nats a token, over so many tokens.

    `plain` is that of the model as it is, `zero` with zeros in the place of the activations, `spliced` with what each
    autoencoder gives back of them.
    """

    tokens: int
    plain: float
    zero: float
    spliced: dict[str, float]

    def recovered(self, name: str) -> float:
        """(zero − spliced) / (zero − plain): 1 where nothing is lost, 0 where zeros do as well."""
        lost = self.zero - self.plain
        return (self.zero - self.spliced[name]) / lost if lost else float("nan")


class SplicedModel:
    """A causal language model, one of whose layers can be replaced."""

    def __init__(self, directory: Path, dtype: str, layer: int) -> None:
        """Load it, onto a GPU where one has room for it.

        Raises:
            OSError, ValueError: it is no model.
        """
        model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype))
        size = sum(value.numel() * value.element_size() for value in model.parameters())
        self.device = torch.device("cuda" if torch.cuda.is_available() and _free() > 2 * size else "cpu")
        self._model = model.to(self.device).eval()
        self._layer = decoder_layers(language_model(self._model))[1][layer]

    @torch.inference_mode()
    def loss(self, shard: TokenShard, replace: Replace | None) -> float:
        """The sum of −log p of the tokens behind the shard's start, whose activations from there on are replaced.

        Args:
            shard: a trajectory; its tokens are read, not its activations.
            replace: activations (tokens, d), float32 → what takes their place; None: they stay.
        """
        ids = torch.tensor([shard.metadata.token_ids], device=self.device)

        def splice(_module: Any, _args: Any, output: Any) -> Any:
            if replace is None:
                return None
            hidden = tensor_of(output).clone()
            replaced = hidden[0, shard.start :]
            hidden[0, shard.start :] = replace(replaced.float().cpu()).to(replaced)
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handle = self._layer.register_forward_hook(splice)
        try:
            logits = self._model(input_ids=ids, use_cache=False).logits[0, shard.start : -1]
        finally:
            handle.remove()
        return float(torch.nn.functional.cross_entropy(logits.float(), ids[0, shard.start + 1 :], reduction="sum"))


def losses(model: SplicedModel, shards: Sequence[TokenShard], coders: Mapping[str, Replace]) -> Losses:
    """Cross-entropy over some trajectories.

    Args:
        model: the model.
        shards: trajectories that no autoencoder was trained on.
        coders: name → what gives back activations.
    """
    usable = [shard for shard in shards if shard.length > 1]
    tokens = sum(shard.length - 1 for shard in usable)

    def mean(replace: Replace | None) -> float:
        return sum(model.loss(shard, replace) for shard in usable) / max(1, tokens)

    return Losses(tokens, mean(None), mean(torch.zeros_like), {name: mean(replace) for name, replace in coders.items()})


def _free() -> int:
    return int(torch.cuda.mem_get_info()[0])
