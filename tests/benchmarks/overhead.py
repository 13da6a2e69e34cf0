"""Overhead of the capture server above the bare forward pass of the same model and batch, in this process.

A tiny model of 30 layers is used, so that the time of the server's own code shows; medians of interleaved repetitions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from server.capture.attention import batch_cache
from server.capture.edits import LayerEdit, SequenceEdits
from server.capture.engine import ChoiceState, Cohort
from server.capture.model import ForwardInput, ServedModel
from server.capture.prompts import Decoder

LAYERS, WIDTH, VOCABULARY = 30, 64, 512
ROWS, PROMPT = 64, 32
SEQUENCES, TOKENS = 90, 4096


def run(options: list[str]) -> None:
    """Measure a steered decoding step and a capture pass, each beside the bare model; print one JSON line each."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=overhead")
    parser.add_argument("--repetitions", type=int, default=15)
    repetitions = parser.parse_args(options).repetitions
    with tempfile.TemporaryDirectory() as folder:
        model = ServedModel(str(_make(Path(folder))), "tiny", "float32", "cpu")
        for name, measured in (("decoding step", decoding), ("capture pass", capture)):
            bare, served = measured(model, repetitions)
            ratio = statistics.median(after / before for before, after in zip(bare, served, strict=True))
            milliseconds = {"bare_ms": 1e3 * statistics.median(bare), "served_ms": 1e3 * statistics.median(served)}
            print(json.dumps({"benchmark": name, **milliseconds, "ratio": ratio, "load": os.getloadavg()[0]}))


def decoding(model: ServedModel, repetitions: int) -> tuple[list[float], list[float]]:
    """Return the seconds of decoding steps of 64 rows: of the bare model, and steered by the server at every layer."""
    width = model.architecture.d_model
    direction = torch.ones(width) / width**0.5
    edits = tuple(LayerEdit(0, layer, direction, 0.1, "all") for layer in range(model.architecture.n_layers))
    prompts = [[3 + (row + token) % 300 for token in range(PROMPT)] for row in range(ROWS)]
    rows = [
        ChoiceState(
            prompt, 10_000, 0.0, 1.0, None, Decoder(model.tokens, []), lambda: None, True, False,
            steering=SequenceEdits(edits, PROMPT),
        )
        for prompt in prompts
    ]  # fmt: skip
    cohort = Cohort(model, rows)
    cohort.step()
    cache = batch_cache(model.causal.config)
    mask = torch.ones((ROWS, PROMPT), dtype=torch.long, device=model.device)
    ids = torch.tensor(prompts, device=model.device)
    with torch.inference_mode():
        output = model.causal(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True)

    @torch.inference_mode()
    def bare() -> None:
        nonlocal output, mask
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
        chosen = output.logits[:, -1:].argmax(-1)
        output = model.causal(input_ids=chosen, attention_mask=mask, past_key_values=cache, use_cache=True)

    return _timed(bare, cohort.step, repetitions, model.device)


def capture(model: ServedModel, repetitions: int) -> tuple[list[float], list[float]]:
    """Return the seconds of passes of 4,096 tokens: of the bare model, and captured at 2 hook points of every layer."""
    length = TOKENS // SEQUENCES
    ids = [[3 + (row + token) % 300 for token in range(length)] for row in range(SEQUENCES)]
    spans = [(0, length // 2), (length // 2, length), (length - 1, length), (0, length)]
    points = ["resid_post", "mlp.output"]
    layers = list(range(model.architecture.n_layers))
    inputs = [ForwardInput(row, layers, points, spans, torch.float16) for row in ids]

    @torch.inference_mode()
    def bare() -> None:
        model.base(input_ids=torch.tensor(ids, device=model.device), use_cache=False)

    return _timed(bare, lambda: model.forward(inputs), repetitions, model.device)


def _timed(
    bare: Callable[[], Any], served: Callable[[], Any], repetitions: int, device: torch.device
) -> tuple[list[float], list[float]]:
    """Return the seconds of each repetition of both, in turns, after two that are not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(repetitions + 2):
        for kept, call in zip(times, (bare, served), strict=True):
            started = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= 2:
                kept.append(time.perf_counter() - started)
    return times


def _make(folder: Path) -> Path:
    torch.manual_seed(0)
    build: Any = LlamaForCausalLM
    build(
        LlamaConfig(
            hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=4,
            num_key_value_heads=2, vocab_size=VOCABULARY, max_position_embeddings=16384,
        )
    ).save_pretrained(folder)  # fmt: skip
    words = Tokenizer(models.WordLevel({str(number): number for number in range(VOCABULARY)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    fast: Any = PreTrainedTokenizerFast
    fast(tokenizer_object=words, pad_token="0", bos_token="1", eos_token="2", unk_token="0").save_pretrained(folder)
    return folder
