"""The weights: loaded through nnsight, traced for activations, called for everything else."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import nnsight
import torch
from transformers import AutoConfig

from emoprobe.models.architecture import Architecture, UnsupportedModelError, language_model, tensor_of
from emoprobe.results.activation_folder import TokenSpan
from server.capture.attention import share_heads
from server.capture.copies import HostCopies
from server.capture.edits import SequenceEdits, SteeredRows
from server.capture.head import Head
from server.capture.prompts import PromptTokenizer

LOGIT_CHUNK = 256  # positions whose logits are held at once


@dataclass(frozen=True)
class TokenScores:
    """Log-probabilities of a sequence's tokens given those before, from the second token on, and the likeliest ones."""

    token: list[float]
    top: list[list[tuple[int, float]]]


class Scorer:
    """Turns the last hidden states of a causal language model into numbers about its predictions."""

    def __init__(self, head: Head) -> None:
        self._head = head

    def scores(self, token_ids: list[int], top: int, hidden: torch.Tensor) -> TokenScores:
        """Scores of a sequence.

        Args:
            token_ids: its n tokens.
            top: how many of the likeliest tokens to name at each place.
            hidden: (>= n, d), the last hidden states.
        """
        token: list[float] = []
        best: list[list[tuple[int, float]]] = []
        targets = torch.tensor(token_ids[1:], device=hidden.device)
        for begin, end in _chunks(len(targets), LOGIT_CHUNK):
            logs = torch.log_softmax(self._head.logits(hidden[begin:end]), dim=-1)
            token += logs.gather(1, targets[begin:end, None])[:, 0].tolist()
            if top:
                likeliest = logs.topk(top, dim=-1)
                pairs = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
                best += [list(zip(ids, values, strict=True)) for ids, values in pairs]
        return TokenScores(token, best)

    def divergences(self, edited: torch.Tensor, unedited: torch.Tensor) -> list[float]:
        """The Kullback-Leibler divergences KL(edited ‖ unedited), in nats, of the predictions at each place.

        Args:
            edited: (n, d), the last hidden states under an edit.
            unedited: (n, d), those of the same tokens without it.
        """
        values: list[float] = []
        for begin, end in _chunks(len(edited), LOGIT_CHUNK // 4):  # in float64, and of two passes
            under, without = (
                torch.log_softmax(self._head.logits(hidden[begin:end]).double(), dim=-1)
                for hidden in (edited, unedited)
            )
            values += (under.exp() * (under - without)).sum(-1).tolist()
        return values


def _chunks(length: int, size: int) -> Iterator[tuple[int, int]]:
    return ((begin, min(begin + size, length)) for begin in range(0, length, size))


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ForwardInput:
    """One sequence of a forward pass, with what to read of it.

    `spans` are the half-open spans of tokens over which its positions are means; None stands for every token. `score`
    asks for the log-probabilities of its own tokens. `steering` edits the stream in this pass; `divergences` is at how
    many tokens after the prompt to compare with the predictions without the edits, for which the sequence runs twice.
    """

    token_ids: list[int]
    layers: list[int]
    hook_points: list[str]
    spans: list[TokenSpan] | None
    dtype: torch.dtype
    score: bool = False
    top: int = 0
    steering: SequenceEdits | None = None
    divergences: int = 0

    @property
    def rows(self) -> int:
        """Number of rows of a batch."""
        return 2 if self.divergences else 1

    @property
    def kind(self) -> tuple[tuple[int, ...], tuple[str, ...], bool]:
        """The tensors that a pass keeps for each token of every sequence of a batch."""
        return tuple(self.layers), tuple(self.hook_points), self.spans is None


@dataclass(frozen=True)
class Captured:
    """Activations and scores of one sequence.

    Where it is compared, `unedited` has the log-probabilities of the tokens after the prompt without its edits.
    `copying` are the events after which `values` are on the CPU.
    """

    values: dict[str, torch.Tensor]
    scores: TokenScores | None
    divergences: list[float] | None = None
    unedited: list[float] | None = None
    copying: Sequence[torch.cuda.Event] = ()

    @property
    def activations(self) -> dict[str, torch.Tensor]:
        """Hook point → (n_layers, n_positions, d) on the CPU, once they are there."""
        for event in self.copying:
            event.synchronize()
        return self.values


class ServedModel:
    """A causal language model with its tokenizer and architecture."""

    def __init__(self, path: str, name: str, dtype: str, device: str) -> None:
        """Load a model.

        Raises:
            UnsupportedModelError: it is no decoder of attention layers.
            OSError, ValueError: it is no model, or cannot be had.
        """
        started = time.monotonic()
        # Told by its configuration alone, so that nobody waits for weights that are of no use.
        self.architecture = Architecture.of(AutoConfig.from_pretrained(path))
        wrapper = nnsight.TransformersModel(
            path,
            task="text-generation",
            dtype=getattr(torch, dtype),
            device_map=placement(device),
            dispatch=True,
            trust_remote_code=False,
        )
        self.name, self.path = name, path
        self.causal = wrapper._module.eval()
        self.base = language_model(self.causal)
        layers = self.base.get_submodule(self.architecture.layers_path)
        self.device = self.causal.get_input_embeddings().weight.device
        self.devices = [next(layer.parameters()).device for layer in layers]
        if {device.type for device in self.devices} != {self.device.type} or self.device.type == "meta":
            raise ValueError(
                "the GPUs are too small for the weights, some of which would be kept elsewhere; give the server "
                "more or larger GPUs, or choose a smaller dtype"
            )
        share_heads(self.causal)
        self._copies = HostCopies.of(self.devices)
        self._steered: SteeredRows | None = None
        for number, layer in enumerate(layers):
            layer.register_forward_hook(self._edit_at(number))
        # Tracing the base model leaves out the head over the vocabulary, which capturing does not need.
        self._traced = nnsight.NNsight(self.base)
        self.dtype = next(self.causal.parameters()).dtype
        config = self.causal.config.get_text_config()
        self.max_length = int(getattr(config, "max_position_embeddings", None) or 2048)
        # What can be looked up: a tokenizer may have more tokens, a configuration may say something else.
        self.vocabulary = int(self.causal.get_input_embeddings().weight.shape[0])
        self._scorer = Scorer(Head(self.causal, self.base, self.vocabulary))
        self.tokens = PromptTokenizer(wrapper.tokenizer, self.max_length)
        self.tokens.with_eos(getattr(self.causal.generation_config, "eos_token_id", None))
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.cache_bytes_per_token = 2 * self.architecture.n_layers * heads * width * self.dtype.itemsize
        self._warm_up()
        self._verify_places()
        log.info("%s is ready after %.1f s", name, time.monotonic() - started)

    def _warm_up(self) -> None:
        """The first traces of a process are several times slower than the rest."""
        for _ in range(3):
            points = list(self.architecture.widths)[:2]
            layers = list(range(self.architecture.n_layers))
            self.forward([ForwardInput([1] * 8, layers, points, [(0, 8)], torch.float32, True)] * 2)

    def _verify_places(self) -> None:
        """Check with numbers what was read off the model without any: that the stream is the sum of its parts.

        Raises:
            UnsupportedModelError: it is not.
        """
        places = self.architecture.places
        if "attn_out" not in places or "mlp_out" not in places:
            return
        ids = [token % self.vocabulary for token in range(3, 11)]
        layers = list(range(self.architecture.n_layers))
        (captured,) = self.forward([ForwardInput(ids, layers, list(places), None, torch.float32)])
        values = captured.activations
        between = values["resid_pre"] + values["attn_out"]
        after = values.get("resid_mid", between) + values["mlp_out"]
        for expected, name in ((between, "resid_mid"), (after, "resid_post")):
            if name in values:
                error = float((values[name] - expected).abs().max() / values[name].abs().max())
                if not error <= 16 * torch.finfo(self.dtype).eps:
                    raise UnsupportedModelError(
                        f"{name} of this model is not the sum of its parts (off by {error:.1e})"
                    )

    @contextmanager
    def steered(self, rows: SteeredRows | None, places: torch.Tensor) -> Iterator[None]:
        """Edit the residual stream of the pass that runs inside; see `SteeredRows.begin`.

        Raises:
            RuntimeError: an edit was not made.
        """
        if rows is None:
            yield
            return
        rows.begin(places)
        self._steered = rows
        try:
            yield
            rows.finish()
        finally:
            self._steered = None

    def steered_rows(self, rows: Sequence[SequenceEdits | None]) -> SteeredRows | None:
        """The edits of a batch, None where there are none."""
        return SteeredRows(rows, self.devices) if any(rows) else None

    def _edit_at(self, number: int) -> Any:
        def edit(_module: Any, _args: Any, output: Any) -> Any:
            if self._steered is None:
                return None
            hidden = self._steered.apply(number, tensor_of(output))
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return edit

    def values_held(self, points: list[str]) -> int:
        """Return how many numbers a pass holds for each token and layer for these hook points."""
        sites = {site for point in points for _, site in self.architecture.terms(point)}
        return sum(self.architecture.widths[site] for site in sites)

    @torch.inference_mode()
    def forward(self, batch: Sequence[ForwardInput]) -> list[Captured]:
        """One pass over sequences, right-padded: activations at their positions, and their scores.

        A padded batch gives what single sequences give, as no token sees the padding behind it. For the same reason
        there is no mask, whose size is the square of the tokens: attention is plainly causal.
        """
        count = len(batch)
        # Last, those that are compared with the edited ones among the others.
        again = [row for row, sequence in enumerate(batch) if sequence.divergences]
        batch = [*batch, *(ForwardInput(batch[row].token_ids, [], [], None, torch.float32) for row in again)]
        lengths = [len(sequence.token_ids) for sequence in batch]
        longest = max(lengths)
        ids = torch.tensor([[*sequence.token_ids, *[0] * (longest - len(sequence.token_ids))] for sequence in batch])
        places = torch.arange(longest)
        positions = torch.where(places < torch.tensor(lengths)[:, None], places, -1)
        inputs: dict[str, Any] = {"input_ids": ids.to(self.device), "use_cache": False}
        with self.steered(self.steered_rows([sequence.steering for sequence in batch]), positions):
            activations, last = self._run(batch, inputs, lengths)
        copying = self._copies.started()
        unedited = dict(zip(again, last[count:], strict=True))
        captured = []
        for row, sequence in enumerate(batch[:count]):
            scores = self._scorer.scores(sequence.token_ids, sequence.top, last[row]) if sequence.score else None
            divergences = logs = None
            if row in unedited:
                divergences, logs = self._compared(sequence, last[row], unedited[row])
            captured.append(Captured(activations[row], scores, divergences, logs, copying))
        return captured

    def _compared(
        self, sequence: ForwardInput, edited: torch.Tensor, unedited: torch.Tensor
    ) -> tuple[list[float], list[float]]:
        """KL(edited ‖ unedited) of the predictions of the first tokens after the prompt, as many as there are, and the
        log-probabilities of all tokens after it without the edits.
        """
        assert sequence.steering is not None
        # The last token of the prompt predicts the first one after it.
        begin, end = sequence.steering.prompt_tokens - 1, len(sequence.token_ids) - 1
        places = slice(begin, min(begin + sequence.divergences, end))
        without = self._scorer.scores(sequence.token_ids[begin:], 0, unedited[begin:])
        return self._scorer.divergences(edited[places], unedited[places]), without.token

    def _run(
        self, batch: Sequence[ForwardInput], inputs: dict[str, Any], lengths: list[int]
    ) -> tuple[list[dict[str, torch.Tensor]], torch.Tensor]:
        """Activations of each sequence, and the last hidden states (n_sequences, n_tokens, d)."""
        longest, sites = max(lengths), self._sites(batch)
        if not sites:
            return [{} for _ in batch], self.base(**inputs).last_hidden_state
        weights = self._weights(batch, longest)
        taken: list[torch.Tensor] = []
        last: list[torch.Tensor] = []
        with self._traced.trace(**inputs):
            modules: Any = self._traced
            for part in self.architecture.layers_path.split("."):
                modules = getattr(modules, part)
            for layer, site in sites:
                hidden = tensor_of(_value(modules[layer], site)).reshape(len(batch), longest, -1)
                if site == ".output" and self._steered is not None:
                    hidden = self._steered.apply(layer, hidden)  # nnsight reads it before the layer's hook edits it
                # A copy: some layers add to what their modules gave, in place.
                taken.append(
                    hidden.clone() if weights is None else torch.bmm(weights[self.devices[layer]], hidden.float())
                )
            last.append(self._traced.output.last_hidden_state)
            nnsight.save(taken)
            nnsight.save(last)
        by_site = dict(zip(sites, taken, strict=True))
        if weights is not None:
            return self._means(batch, by_site), last[0]
        return [self._tokens(sequence, row, by_site) for row, sequence in enumerate(batch)], last[0]

    def _sites(self, batch: Sequence[ForwardInput]) -> list[tuple[int, str]]:
        """Return the modules to read for any sequence of the batch, in the order in which they run."""
        sites = {
            (layer, site)
            for entry in batch
            for point in entry.hook_points
            for _, site in self.architecture.terms(point)
            for layer in entry.layers
        }
        order = {site: number for number, site in enumerate(self.architecture.widths)}
        return sorted(sites, key=lambda site: (site[0], order[site[1]]))

    def _weights(self, batch: Sequence[ForwardInput], longest: int) -> dict[torch.device, torch.Tensor] | None:
        """Device → (batch, n_positions, longest); None where some sequence captures every token."""
        if any(sequence.spans is None for sequence in batch if sequence.hook_points):
            return None
        weights = _averages([sequence.spans or () for sequence in batch], longest)
        return {device: weights.to(device) for device in set(self.devices)}

    def _means(
        self, batch: Sequence[ForwardInput], taken: dict[tuple[int, str], torch.Tensor]
    ) -> list[dict[str, torch.Tensor]]:
        """Activations of each sequence out of means (batch, n_positions, d).

        Sequences that ask for the same are converted and copied together: one at a time takes a tenth of a pass.
        """
        activations: list[dict[str, torch.Tensor]] = [{} for _ in batch]
        alike: dict[Any, list[int]] = {}
        for row, sequence in enumerate(batch):
            alike.setdefault((*sequence.kind, sequence.dtype), []).append(row)
        for rows in alike.values():
            chosen = slice(None) if len(rows) == len(batch) else rows
            gathered = self._gather(batch[rows[0]], partial(_chosen, taken, chosen))
            for place, row in enumerate(rows):
                count = len(batch[row].spans or ())
                activations[row] = {point: values[:, place, :count] for point, values in gathered.items()}
        return activations

    def _tokens(
        self, sequence: ForwardInput, row: int, taken: dict[tuple[int, str], torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Activations of one sequence out of those of all tokens (batch, n_tokens, d)."""
        length = len(sequence.token_ids)
        if sequence.spans is None:
            return self._gather(sequence, lambda layer, site: taken[layer, site][row, :length])
        weights = _averages([sequence.spans], length)[0]

        def averaged(layer: int, site: str) -> torch.Tensor:
            return weights.to(self.devices[layer]) @ taken[layer, site][row, :length].float()

        return self._gather(sequence, averaged)

    def _gather(self, sequence: ForwardInput, read: Callable[[int, str], torch.Tensor]) -> dict[str, torch.Tensor]:
        """Hook point → (n_layers, ..., d) on the CPU of what a sequence asks for, from the values at sites."""

        def at_point(layer: int, point: str) -> torch.Tensor:
            terms = self.architecture.terms(point)
            if terms == ((1.0, terms[0][1]),):
                return read(layer, terms[0][1])
            return torch.stack([factor * read(layer, site).float() for factor, site in terms]).sum(0)

        return {
            point: self._copies.stack([at_point(layer, point) for layer in sequence.layers], sequence.dtype)
            for point in sequence.hook_points
        }


def placement(device: str) -> str:
    """Return the `device_map` of a model: `auto` for `cuda` with several GPUs, so that its layers are divided."""
    return "auto" if device == "cuda" and torch.cuda.device_count() > 1 else device


def _chosen(taken: dict[tuple[int, str], torch.Tensor], rows: list[int] | slice, layer: int, site: str) -> torch.Tensor:
    return taken[layer, site][rows]


def _averages(spans: Sequence[Sequence[TokenSpan]], length: int) -> torch.Tensor:
    """Weights (n_sequences, n_positions, n_tokens) that average over each sequence's spans; zero where it has fewer."""
    rows = max(map(len, spans))
    bounds = torch.tensor([[*each, *[(0, 0)] * (rows - len(each))] for each in spans])
    starts, ends = bounds.reshape(len(spans), rows, 2, 1).unbind(2)
    places = torch.arange(length)
    shares = (1.0 / (ends - starts).clamp(min=1).double()).float()
    return ((places >= starts) & (places < ends)) * shares


def _value(layer: Any, site: str) -> Any:
    """The value at a site of a layer that is being traced."""
    module = layer
    *path, side = site.lstrip(".").split(".")
    for part in path:
        module = module[int(part)] if part.isdigit() else getattr(module, part)
    return module.output if side == "output" else module.input
