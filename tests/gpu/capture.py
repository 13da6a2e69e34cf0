"""Capture, steering, errors and placement: steps with PyTorch, transformers and nnsight alone, without a network.

The models are random, of a real shape, and made on the spot.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from emoprobe.models.footprint import Footprint
from emoprobe.models.placement import ServerNeeds, place
from emoprobe.models.server_hardware import ServerHardware
from server.capture.edits import LayerEdit, SequenceEdits
from server.capture.engine import BatchEngine, Pass
from server.capture.errors import OutOfMemoryError
from server.capture.model import Captured, ForwardInput, ServedModel
from tests import byte_tokenizer
from tests.benchmarks import overhead
from tests.gpu.steps import Figures, Setting, SkippedError, device_use, synchronize

# The shape of Llama-3.2-1B.
REAL: dict[str, Any] = {
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "max_position_embeddings": 131072,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}, "tie_word_embeddings": True,
}  # fmt: skip
TINY: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 320, "max_position_embeddings": 4096,
}  # fmt: skip
POINTS = ["input_layernorm.output", "mlp.output", "resid_post"]
# Smallest cosine of a token's activations with those of hooks placed by hand, by type of the computation. Of bfloat16,
# with 8 bits of mantissa, batches of another shape round differently.
LEAST_COSINE = {"float32": 0.99999, "bfloat16": 0.99}
HELD = 8 << 30  # bytes of activations in flight


class CaptureCheck:
    """The steps, and the model that they share."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.dtype = "float32" if setting.device == "cpu" else "bfloat16"
        self.random = random.Random(0)

    @property
    def steps(self) -> list[tuple[str, Callable[[], Figures]]]:
        """Name and function of each step, in order."""
        return [
            ("placement", self.placement),
            ("load", self.load),
            ("hooks by hand", self.hooks),
            ("copies", self.copies),
            ("capture speed", self.capture_speed),
            ("steering", self.steering),
            ("steering speed", self.steering_speed),
            ("out of memory, injected", self.injected),
            ("out of memory, real", self.exhausted),
            ("several devices", self.divided),
        ]

    def close(self) -> None:
        """Give the memory of the device back."""
        self.__dict__.pop("served", None)
        self._collect()

    @cached_property
    def path(self) -> Path:
        """The directory of the model, which is made at first."""
        folder = byte_tokenizer.write(self.setting.folder / "random-model")
        torch.manual_seed(0)
        shape = TINY if self.setting.tiny else REAL
        with torch.device(self.setting.device):
            build: Any = LlamaForCausalLM
            model = build(LlamaConfig(**shape, dtype=self.dtype)).to(getattr(torch, self.dtype))
        model.save_pretrained(folder)
        return folder

    @cached_property
    def served(self) -> ServedModel:
        """The model as the capture server holds it."""
        return ServedModel(str(self.path), "random", self.dtype, self.setting.device)

    def placement(self) -> Figures:
        """Decide how servers share the GPU: the planner counts the weights as PyTorch does."""
        size = Footprint.of(self.path, self.dtype)
        assert size is not None
        servers = ServerHardware.of_this_machine()
        memory = list(servers.memory) or [24.0]
        needs = ServerNeeds(
            generates=True, captures=True, length=4096, requests=64, batch_tokens=4096, dtype=self.dtype
        )
        held = sum(each.numel() * each.element_size() for each in self.served.causal.parameters())
        assert abs(size.loaded - held) <= 0.01 * held, f"the planner counts {size.loaded} bytes, PyTorch {held}"
        return {"gpus_gb": memory, "weights_gb": held / 1e9, "decision": str(place(size, memory, needs))}

    def load(self) -> Figures:
        """Load the model on the device."""
        self.close()
        started = time.monotonic()
        served = self.served
        assert {each.type for each in served.devices} == {self.setting.device}
        figures: Figures = {"layers": served.architecture.n_layers, "width": served.architecture.d_model}
        return figures | {"dtype": str(served.dtype), "load_seconds": time.monotonic() - started}

    def sequences(self, tokens: int, longest: int) -> list[list[int]]:
        """Random sequences of a third of the longest to the longest, of so many tokens in all, at least two."""
        found: list[list[int]] = []
        while len(found) < 2 or sum(map(len, found)) < tokens:
            length = self.random.randint(max(2, longest // 3), longest)
            found.append([self.random.randrange(3, self.served.vocabulary) for _ in range(length)])
        return found

    def hooks(self) -> Figures:
        """Compare every token's activations in a padded batch with hooks placed by hand, a sequence at a time."""
        sequences = self.sequences(200 if self.setting.tiny else 1600, 40 if self.setting.tiny else 320)
        layers = list(range(self.served.architecture.n_layers))
        batch = [ForwardInput(ids, layers, POINTS, None, torch.float32) for ids in sequences]
        captured = self.served.forward(batch)
        expected = self._by_hand(sequences)
        least = 1.0
        means: list[float] = []
        for row, seen in zip(captured, expected, strict=True):
            for point in POINTS:
                cosine = torch.nn.functional.cosine_similarity(row.activations[point], seen[point], dim=-1)
                least = min(least, float(cosine.min()))
                means.append(float(cosine.mean()))
        bound = LEAST_COSINE[self.dtype]
        assert least >= bound, f"a token's cosine to hooks placed by hand is {least:.5f}, less than {bound}"
        return {"least_cosine": least, "mean_cosine": statistics.mean(means), "tokens": sum(map(len, sequences))}

    def _by_hand(self, sequences: list[list[int]]) -> list[dict[str, torch.Tensor]]:
        """Hook point → (n_layers, n_tokens, d) of each sequence, from a model of its own."""
        load: Any = AutoModelForCausalLM.from_pretrained
        model = load(self.path, dtype=getattr(torch, self.dtype)).to(self.setting.device).eval()
        seen: dict[str, list[torch.Tensor]] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(_module: Any, _args: Any, output: Any) -> None:
                value = output[0] if isinstance(output, tuple) else output
                seen.setdefault(name, []).append(value.reshape(-1, value.shape[-1]).float().cpu())

            return hook

        for layer in model.model.layers:
            layer.input_layernorm.register_forward_hook(keep(POINTS[0]))
            layer.mlp.register_forward_hook(keep(POINTS[1]))
            layer.register_forward_hook(keep(POINTS[2]))
        found = []
        for ids in sequences:
            seen.clear()
            with torch.inference_mode():
                model(torch.tensor([ids], device=self.setting.device))
            found.append({name: torch.stack(values) for name, values in seen.items()})
        return found

    def copies(self) -> Figures:
        """Run passes whose copies to the CPU overlap: all of them hold what each holds alone, in pinned memory."""
        layers = list(range(self.served.architecture.n_layers))
        parts = [self.sequences(200 if self.setting.tiny else 4000, 40 if self.setting.tiny else 400) for _ in range(4)]
        batches = [
            [ForwardInput(ids, layers, POINTS, None if number % 2 else [(0, len(ids))], torch.float32) for ids in part]
            for number, part in enumerate(parts)
        ]
        expected = [[self._read(row) for row in self.served.forward(batch)] for batch in batches]
        started = time.perf_counter()
        passes = [self.served.forward(batch) for batch in batches]
        returned = time.perf_counter() - started
        for rows, values in zip(passes, expected, strict=True):
            for row, value in zip(rows, values, strict=True):
                assert all(torch.equal(each, value[point]) for point, each in self._read(row).items()), "values differ"
        seconds = time.perf_counter() - started
        pinned = all(each.is_pinned() for rows in passes for row in rows for each in row.values.values())
        assert pinned == (self.setting.device == "cuda"), f"pinned: {pinned}"
        return {"pinned": pinned, "returned_seconds": returned, "read_seconds": seconds}

    def _read(self, row: Captured) -> dict[str, torch.Tensor]:
        """A copy of the activations, as pinned memory is used again."""
        return {point: value.clone() for point, value in row.activations.items()}

    def capture_speed(self) -> Figures:
        """Measure captured tokens a second and the use of the device at three token budgets, and beside a bare pass."""
        budgets = (256, 512, 1024) if self.setting.tiny else (4096, 16384, 65536)
        figures: Figures = {}
        for budget in budgets:
            sequences = self.sequences(3 * budget, 32 if self.setting.tiny else 512)
            self._peak()
            self._captured(sequences[:8], budget)
            started = time.perf_counter()
            with device_use(self.setting.device) as used:
                results = self._captured(sequences, budget)
            seconds = time.perf_counter() - started
            assert all(isinstance(each, Captured) for each in results)
            figures[f"budget_{budget}"] = {
                "tokens_per_second": round(sum(map(len, sequences)) / seconds),
                "use": used(),
                "peak_gb": self._peak(),
            }
        bare, served = overhead.capture(self.served, 1 if self.setting.tiny else 7)
        figures["bare_over_served"] = statistics.median(one / two for one, two in zip(bare, served, strict=True))
        return figures

    def _captured(self, sequences: list[list[int]], budget: int) -> list[Captured | Exception]:
        """Have an engine capture sequences at five positions of every layer; the result or the error of each."""
        engine = BatchEngine(self.served, budget, HELD)
        try:
            return self._passed(engine, sequences)
        finally:
            engine.close()

    def _passed(self, engine: BatchEngine, sequences: Sequence[list[int]]) -> list[Captured | Exception]:
        layers, width = list(range(self.served.architecture.n_layers)), self.served.architecture.d_model
        items = []
        for ids in sequences:
            spans = [(0, 1), (0, len(ids) // 2), (len(ids) // 2, len(ids)), (len(ids) - 1, len(ids)), (0, len(ids))]
            wanted = ForwardInput(ids, layers, POINTS[1:], spans, torch.float32)
            items.append(Pass(wanted, len(layers) * len(spans) * width * 4 * 2))
            items[-1].result.add_done_callback(partial(_release, engine, items[-1].bytes))
            engine.submit_pass(items[-1])
        return [item.result.exception(300) or item.result.result() for item in items]  # type: ignore[misc]

    def steering(self) -> Figures:
        """Add and ablate a direction at one layer: the stream there moves by it, and is without it."""
        ids, layer = self.sequences(16, 24)[0], self.served.architecture.n_layers // 2
        generator = torch.Generator().manual_seed(1)
        direction = torch.nn.functional.normalize(
            torch.randn(self.served.architecture.d_model, generator=generator), dim=0
        )
        plain = self._stream(ids, layer, None)
        amount = 4 * float(plain.norm(dim=-1).mean())
        moved = self._stream(ids, layer, LayerEdit(0, layer, direction, amount, "all")) - plain
        cosine = torch.nn.functional.cosine_similarity(moved, direction, dim=-1)
        lengths = moved.norm(dim=-1) / amount
        left = self._stream(ids, layer, LayerEdit(0, layer, direction, None, "all")) @ direction
        share = float((left.abs() / plain.norm(dim=-1)).max())
        eps = torch.finfo(self.served.dtype).eps
        assert float(cosine.min()) >= LEAST_COSINE[self.dtype], f"the stream moves elsewhere: {float(cosine.min()):.4f}"
        assert float((lengths - 1).abs().max()) <= 4 * eps + 1e-3, f"the stream moves by {lengths.tolist()} of the dose"
        assert share <= 4 * eps, f"{share:.2e} of the stream still lies along an ablated direction"
        other = self._stream(ids, layer - 1, LayerEdit(0, layer, direction, amount, "all")) if layer else plain
        assert not layer or torch.equal(other, self._stream(ids, layer - 1, None)), "an earlier layer was edited"
        return {"least_cosine": float(cosine.min()), "length": float(lengths.mean()), "left_after_ablation": share}

    def _stream(self, ids: list[int], layer: int, edit: LayerEdit | None) -> torch.Tensor:
        """The residual stream after a layer, (n_tokens, d)."""
        steering = None if edit is None else SequenceEdits((edit,), len(ids))
        batch = [ForwardInput(ids, [layer], ["resid_post"], None, torch.float32, steering=steering)]
        return self.served.forward(batch)[0].activations["resid_post"][0]

    def steering_speed(self) -> Figures:
        """Measure steered tokens a second of a batch of 64, and beside the bare model."""
        bare, served = overhead.decoding(self.served, 2 if self.setting.tiny else 15)
        ratio = statistics.median(two / one for one, two in zip(bare, served, strict=True))
        return {"tokens_per_second": round(overhead.ROWS / statistics.median(served)), "served_over_bare": ratio}

    def injected(self) -> Figures:
        """Let every pass of more than two sequences, and one sequence alone, run out of memory."""
        sequences = self.sequences(12 * (20 if self.setting.tiny else 200), 30 if self.setting.tiny else 300)
        expected = self._captured(sequences, 1 << 16)
        hopeless = sequences[-1]
        sizes: list[int] = []
        forward = self.served.forward

        def limited(batch: Sequence[ForwardInput]) -> list[Captured]:
            sizes.append(len(batch))
            if len(batch) > 2 or any(each.token_ids == hopeless for each in batch):
                raise torch.OutOfMemoryError("CUDA out of memory (injected)")
            return forward(batch)

        self.served.forward = limited  # type: ignore[method-assign]
        engine = BatchEngine(self.served, 1 << 16, HELD)
        try:
            found = self._passed(engine, sequences)
        finally:
            engine.close()
            del self.served.forward  # type: ignore[method-assign]
        assert max(sizes) > 2, "no pass was large enough to fail"
        assert engine.failure is None, f"the server gives the device up: {engine.failure}"
        assert engine.load["held_bytes"] == 0, "activations of failed passes are still counted"
        # Whatever shared a last pass of two with the hopeless one is run again alone.
        failed = [ids for ids, each in zip(sequences, found, strict=True) if isinstance(each, OutOfMemoryError)]
        assert failed == [hopeless], f"{len(failed)} requests failed, and one cannot succeed"
        errors = [_difference(one, two) for one, two in zip(found, expected, strict=True) if isinstance(one, Captured)]
        bound = 1e-4 if self.dtype == "float32" else 0.1
        assert max(errors) <= bound, f"activations differ by {max(errors):.2e} after passes were halved"
        return {"passes": len(sizes), "largest_difference": max(errors)}

    def exhausted(self) -> Figures:
        """Fill the GPU, so that large passes really run out of memory and are halved."""
        if self.setting.device != "cuda":
            raise SkippedError("a CPU's memory is not filled")
        sequences = self.sequences(1 << 16, 512)
        engine = BatchEngine(self.served, 1 << 16, HELD)
        self._collect()
        room = (1 << 28) + 4 * max(map(len, sequences)) * self.served.architecture.d_model * 64
        filling = torch.empty(max(0, torch.cuda.mem_get_info()[0] - room), dtype=torch.uint8, device="cuda")
        try:
            found = self._passed(engine, sequences)
            answered = sum(isinstance(each, Captured) for each in found)
            wrong = [each for each in found if not isinstance(each, Captured | OutOfMemoryError)]
            assert not wrong, f"another error than too little memory: {wrong[0]}"
            assert engine.pass_tokens < 1 << 16, "no pass ran out of memory"
            del filling
            self._collect()
            again = self._passed(engine, sequences[:8])
            assert all(isinstance(each, Captured) for each in again), "the server does not recover"
        finally:
            engine.close()
        return {"requests": len(found), "answered": answered, "pass_tokens_afterwards": engine.pass_tokens}

    def divided(self) -> Figures:
        """Divide the layers over all GPUs: activations and edits are those of one GPU."""
        count = torch.cuda.device_count() if self.setting.device == "cuda" else 1
        if count < 2:
            raise SkippedError("one device")
        one = ServedModel(str(self.path), "random", self.dtype, "cuda:0")
        sequences = self.sequences(1000, 200)
        layers = list(range(one.architecture.n_layers))
        direction = torch.nn.functional.normalize(torch.ones(one.architecture.d_model), dim=0)
        edits = tuple(LayerEdit(0, layer, direction, 1.0, "all") for layer in layers)

        def run(model: ServedModel) -> list[Captured]:
            made = [
                ForwardInput(ids, layers, POINTS, None, torch.float32, steering=SequenceEdits(edits, len(ids)))
                for ids in sequences
            ]
            return model.forward(made)

        assert len(set(self.served.devices)) > 1, "the model is on one GPU of several"
        errors = [_difference(a, b) for a, b in zip(run(self.served), run(one), strict=True)]
        assert max(errors) <= 0.1, f"activations differ by {max(errors):.2e}"
        return {"devices": sorted({str(each) for each in self.served.devices}), "largest_difference": max(errors)}

    def _peak(self) -> float | None:
        """The most memory that was allocated since the last call, GB."""
        if self.setting.device != "cuda":
            return None
        synchronize("cuda")
        peak = torch.cuda.max_memory_allocated() / 1e9
        torch.cuda.reset_peak_memory_stats()
        return round(peak, 2)

    def _collect(self) -> None:
        gc.collect()  # hooks refer to the model that refers to them
        if self.setting.device == "cuda":
            torch.cuda.empty_cache()


def _release(engine: BatchEngine, size: int, done: Future[Captured]) -> None:
    """Do as the writer does once the files are there; where a pass fails, the engine has done so itself."""
    if done.exception() is None:
        engine.release(size)


def _difference(one: Captured | Exception, two: Captured | Exception) -> float:
    """The largest relative distance of two captures of one sequence, over layers and positions."""
    assert isinstance(one, Captured), one
    assert isinstance(two, Captured), two
    return max(
        float(((values - two.activations[point]).norm(dim=-1) / two.activations[point].norm(dim=-1)).max())
        for point, values in one.activations.items()
    )
