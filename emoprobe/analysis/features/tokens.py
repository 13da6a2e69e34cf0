"""The captured tokens, and their two halves: features are chosen on one and tested on the other.

A shard holds one trajectory and is read when it is needed, so that no more than a few are in memory. The halves have no
question in common, no group of questions, and no text of any variant: what a text does to a feature by its wording
alone comes back with every question that it is put before, so a feature that was chosen for it would pass a test on
other questions.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open

from emoprobe.analysis.questions import Questions
from emoprobe.config.experiment import Config
from emoprobe.config.science.capture import RESID_POST
from emoprobe.conversations.samples import split_draw_id, token_pairs
from emoprobe.conversations.variants import paraphrase_index
from emoprobe.results.activation_folder import TENSORS, ActivationError, ActivationFolder, ActivationMetadata
from emoprobe.results.layout import Layout
from emoprobe.results.trajectory import Sample

Half = Literal["fit", "test"]


def halves(table: pd.DataFrame, seed: int) -> pd.Series:
    """The half of each trajectory; null where its text lies in one half and its question in the other.

    Texts are dealt by the parity of their number, the first to the testing half; a tone of four texts or fewer has
    too few of them there for an interval. Questions go with their texts where variants agree on how many there are, so
    that no trajectory is lost; questions of one group stay together where there are groups enough.

    Args:
        table: `variant`, `sample_id`, `index` (the question's place, from 0), `group`, `paraphrase`, `draw` of each.
        seed: deals the groups.
    """
    questions = Questions(table)
    counts = {name: questions.count(name) for name in questions.names}
    several = Counter(count for count in counts.values() if count > 1)
    if questions.groups is not None:
        labels = dict(zip(questions.ids, questions.groups, strict=True))
        order = np.random.default_rng(seed).permutation(int(questions.groups.max()) + 1)
        asked = table["sample_id"].map(lambda name: order[labels[name]] % 2).to_numpy(dtype=int)
    else:
        texts = several.most_common(1)[0][0] if several else 2
        asked = (table["index"].to_numpy(dtype=int) % texts) % 2
    text_half = table["paraphrase"].astype("Int64").fillna(0).to_numpy(dtype=int) % 2
    several_texts = table["variant"].map(lambda name: counts[name] > 1).to_numpy(dtype=bool)
    half = pd.Series(np.where(asked == 0, "test", "fit"), index=table.index, dtype="string")
    return half.mask(several_texts & (text_half != asked))


PARTS = ("question", "response")
BUFFER_TOKENS = 65536  # tokens that are shuffled together, and the most that training holds


@dataclass(frozen=True)
class TokenShard:
    """The activations of one trajectory at every token, at one layer."""

    folder: Path
    metadata: ActivationMetadata

    @property
    def start(self) -> int:
        """The first token of the variant's text or the question; what stands before it is alike in all trajectories.

        It is never the very first token, which attracts attention and whose activations are far from all others.
        """
        spans = self.metadata.spans
        known = [span[0] for span in (spans.prefix, spans.question) if span] if spans else []
        return max(1, min(known, default=1))

    @property
    def length(self) -> int:
        """Tokens from `start` on."""
        return len(self.metadata.token_ids) - self.start

    def span(self, part: str) -> tuple[int, int]:
        """The tokens of `question` or `response`; an empty span where there are none."""
        spans = self.metadata.spans
        bounds: tuple[int, int] | None = getattr(spans, part) if spans else None
        return bounds or (0, 0)

    def part_of(self, token: int) -> str:
        """Return which part a token belongs to: prefix, question, response, or other."""
        spans = self.metadata.spans
        for name in ("prefix", "question", "response"):
            span = getattr(spans, name) if spans else None
            if span and span[0] <= token < span[1]:
                return name
        return "other"

    def read(self) -> torch.Tensor:
        """(tokens, d), float32, from the first token of the sequence on.

        Raises:
            ActivationError: the file is damaged.
        """
        path = self.folder / TENSORS
        try:
            with safe_open(path, "pt") as file:
                values: torch.Tensor = file.get_tensor(RESID_POST)[0].float()
        except (OSError, SafetensorError, IndexError) as error:
            raise ActivationError(f"{path} is damaged ({error}); delete its folder and run again") from None
        if len(values) != len(self.metadata.token_ids):
            raise ActivationError(f"{path} has {len(values)} tokens, not those of its metadata; delete its folder")
        return values

    def tokens(self) -> torch.Tensor:
        """(tokens, d) from `start` on."""
        return self.read()[self.start :]


@dataclass(frozen=True)
class TokenActivations:
    """Trajectories whose every token was captured at one layer.

    `table` has a row for each of `shards`: `variant`, `sample_id`, `index`, `draw`, `group`, `question`, `paraphrase`
    and `half`.
    """

    table: pd.DataFrame
    shards: Sequence[TokenShard]
    layer: int
    d: int

    def half(self, half: Half) -> list[TokenShard]:
        """The shards of a half."""
        return [self.shards[row] for row in np.flatnonzero(self.table["half"].eq(half).fillna(False))]


def load_tokens(config: Config, layout: Layout) -> TokenActivations:
    """The folders of tokens of an experiment; trajectories that failed, or that no server captured, are left out.

    Raises:
        ActivationError: there are none, or a folder was captured with other settings than the rest.
    """
    samples: dict[str, Sample] = {}
    rows, shards = [], []
    for variant, name in token_pairs(config):
        folder = layout.tokens(variant, name)
        metadata = ActivationFolder.read(folder).metadata
        if metadata.error is not None:
            continue
        if metadata.positions != "all" or metadata.hook_points != [RESID_POST] or len(metadata.layers) != 1:
            raise ActivationError(
                f"{folder}: does not hold one layer's {RESID_POST} at every token; delete it, run again"
            )
        sample_id, draw = split_draw_id(name)
        if sample_id not in samples:
            samples[sample_id] = Sample.read(layout.sample(sample_id))
        sample = samples[sample_id]
        rows.append(
            {
                "variant": variant,
                "sample_id": sample_id,
                "index": sample.index,
                "draw": draw,
                "group": sample.group,
                "question": sample.question,
                "paraphrase": paraphrase_index(config, variant, sample.index),
            }
        )
        shards.append(TokenShard(folder, metadata))
    if not shards:
        raise ActivationError(f"no trajectory of {layout.root} has activations at every token")
    first = shards[0].metadata
    for shard in shards:
        if shard.metadata.layers != first.layers or shard.metadata.shapes[RESID_POST][2] != first.shapes[RESID_POST][2]:
            raise ActivationError(f"{shard.folder}: was captured with other settings; delete it and run again")
    table = pd.DataFrame(rows).astype({"paraphrase": "Int64", "group": "string"})
    table["half"] = halves(table, config.experiment.seed)
    return TokenActivations(table, shards, first.layers[0], first.shapes[RESID_POST][2])


@dataclass
class Batches:
    """An endless stream of batches of shuffled tokens, (batch_tokens, d), that can begin at any step.

    Each round takes the shards in another order, a buffer of `buffer_tokens` after the other; what is left of a buffer
    after its last whole batch is left out.
    """

    shards: Sequence[TokenShard]
    batch_tokens: int
    seed: int
    buffer_tokens: int = BUFFER_TOKENS
    _held: OrderedDict[tuple[int, ...], torch.Tensor] = field(default_factory=OrderedDict)

    def start_at(self, step: int) -> Iterator[torch.Tensor]:
        """The batches from a step on, counted from 0; buffers before it are not read."""
        number = turn = 0
        while True:
            generator = np.random.default_rng([self.seed, turn])
            for rows in self._buffers(generator):
                size = sum(self.shards[row].length for row in rows)
                batch = min(self.batch_tokens, size)
                order = generator.permutation(size)
                for begin in range(0, size - batch + 1, batch):
                    if number >= step:
                        yield self._buffer(rows)[torch.from_numpy(order[begin : begin + batch])]
                    number += 1
            turn += 1

    def _buffers(self, generator: np.random.Generator) -> list[tuple[int, ...]]:
        buffers, waiting, size = [], [], 0
        for row in generator.permutation(len(self.shards)):
            waiting.append(int(row))
            size += self.shards[row].length
            if size >= self.buffer_tokens:
                buffers.append(tuple(sorted(waiting)))
                waiting, size = [], 0
        return [*buffers, tuple(sorted(waiting))] if size else buffers

    def _buffer(self, rows: tuple[int, ...]) -> torch.Tensor:
        if rows not in self._held:
            self._held.clear()
            self._held[rows] = torch.cat([self.shards[row].tokens() for row in rows])
        return self._held[rows]


def digest_of(shards: Sequence[TokenShard]) -> list[str]:
    """Return a digest of the content of shards, from the hash that each was written with."""
    return [shard.metadata.sha256 for shard in shards]
