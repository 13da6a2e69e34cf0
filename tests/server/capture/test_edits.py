"""Edits of the residual stream equal hooks placed by hand, in any company, with and without a cache."""

from __future__ import annotations

import base64
import hashlib
import random
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from emoprobe.models.architecture import HookPointError
from server.capture.edits import EditError, LayerEdit, SequenceEdits, SteeredRows, layer_edits
from server.capture.engine import BatchEngine, ChoiceState, Cohort, Pass
from server.capture.errors import ForwardError
from server.capture.model import ForwardInput, ServedModel
from server.capture.prompts import Decoder
from server.capture.schema import Ndif, StreamEdit
from tests.conftest import PATIENCE
from tests.emoprobe.models.families import LAYERS, WIDTH
from tests.server.capture import steering_by_hand, tiny_models

TOLERANCE = 1e-5
Pair = tuple[ServedModel, Any]


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2", "falcon", "bloom"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tiny_models.make_of_family(request.param, tmp_path_factory.mktemp(request.param))
    reference: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return ServedModel(str(folder), "tiny", "float32", "cpu"), reference.eval()


def direction(seed: int) -> list[float]:
    generator = random.Random(seed)
    return [generator.gauss(0, 1) for _ in range(WIDTH)]


def edits(served: ServedModel, *wanted: dict[str, Any]) -> tuple[LayerEdit, ...]:
    return layer_edits([StreamEdit(**entry) for entry in wanted], Path("/nowhere"), served.architecture)


def some(served: ServedModel) -> list[tuple[LayerEdit, ...]]:
    """Edits of several kinds, and none."""
    add: dict[str, Any] = {"values": direction(1), "layers": [1], "operation": "add", "dose": 8.0}
    ablate: dict[str, Any] = {"values": direction(2), "layers": "all", "operation": "ablate"}
    return [
        edits(served, add), (), edits(served, ablate), edits(served, {**add, "phase": "prompt"}),
        edits(served, {**ablate, "phase": "generation"}), edits(served, add, ablate, {**add, "phase": "generation", "dose": -1.0}),
    ]  # fmt: skip


def as_asked(wanted: tuple[LayerEdit, ...]) -> list[steering_by_hand.Edit]:
    """Edits as a request asks for them, a layer each."""
    return [
        {
            "values": (edit.direction * (1.0 if edit.amount is None else edit.amount)).tolist(),
            "layers": [edit.layer], "dose": 1.0, "phase": edit.phase,
            "operation": "ablate" if edit.amount is None else "add",
        }
        for edit in wanted
    ]  # fmt: skip


def generate(
    served: ServedModel, prompts: list[list[int]], wanted: list[tuple[LayerEdit, ...]], count: int
) -> list[ChoiceState]:
    rows = [
        ChoiceState(
            prompt, count + number % 3, 0.0, 1.0, None, Decoder(served.tokens, []), lambda: None, True,
            steering=SequenceEdits(own, len(prompt)) if own else None,
        )
        for number, (prompt, own) in enumerate(zip(prompts, wanted, strict=True))
    ]  # fmt: skip
    cohort = Cohort(served, list(rows))
    while cohort.rows:
        cohort.step()
    return rows


def prompts(count: int) -> list[list[int]]:
    generator = random.Random(4)
    return [[generator.randrange(3, 190) for _ in range(generator.randrange(2, 14))] for _ in range(count)]


def test_cached_decoding_equals_hooks_without_a_cache(pair: Pair) -> None:
    served, reference = pair
    wanted = some(served)
    rows = generate(served, prompts(len(wanted)), wanted, 6)
    for row, own in zip(rows, wanted, strict=True):
        expected = steering_by_hand.without_cache(reference, row.prompt_ids, as_asked(own), len(row.token_ids))
        assert row.token_ids == expected


def test_edits_change_what_is_likely(pair: Pair) -> None:
    served, _ = pair
    wanted = [SequenceEdits(own, 4) if own else None for own in some(served)]
    ids = [5, 6, 7, 8, 9, 10]
    found = served.forward([ForwardInput(ids, [], [], None, torch.float32, True, steering=own) for own in wanted])
    plain = found[1].scores
    assert plain is not None
    for captured, own in zip(found, wanted, strict=True):
        assert captured.scores is not None
        assert (captured.scores.token == plain.token) == (own is None)


def test_divergences_compare_with_the_model_left_alone(pair: Pair) -> None:
    served, reference = pair
    wanted = [own for own in some(served) if own]
    batch = [ids + [7, 8, 9, 10] for ids in prompts(len(wanted))]
    asked = [
        ForwardInput(
            ids,
            [],
            [],
            None,
            torch.float32,
            True,
            0,
            SequenceEdits(own, len(ids) - 4),
            divergences=3 + 2 * (number % 2),
        )
        for number, (ids, own) in enumerate(zip(batch, wanted, strict=True))
    ]
    plain = ForwardInput(batch[0], [], [], None, torch.float32, True)
    for entry, found, own in zip(asked, served.forward([plain, *asked])[1:], wanted, strict=True):
        length = len(entry.token_ids)
        under, without = (
            steering_by_hand.logits(reference, entry.token_ids, each, length - 4).log_softmax(-1)
            for each in (as_asked(own), [])
        )
        expected = (under.exp() * (under - without)).sum(-1)[length - 5 :][: min(entry.divergences, 4)]
        assert found.divergences == pytest.approx(expected.tolist(), abs=1e-4)
    nothing = edits(served, {"values": direction(1), "layers": "all", "operation": "add", "dose": 0.0})
    still = ForwardInput(batch[0], [], [], None, torch.float32, steering=SequenceEdits(nothing, 2), divergences=2)
    assert served.forward([plain, still])[1].divergences == [0.0, 0.0]


def test_captures_equal_hooks_placed_by_hand(pair: Pair) -> None:
    served, reference = pair
    wanted = some(served)
    layers = list(range(LAYERS))
    batch = [ids + [7, 8, 9] for ids in prompts(len(wanted))]
    asked = [
        ForwardInput(
            ids, layers, ["resid_post"], None, torch.float32, True, 0, SequenceEdits(own, len(ids) - 3) if own else None
        )
        for ids, own in zip(batch, wanted, strict=True)
    ]
    for entry, found, own in zip(asked, served.forward(asked), wanted, strict=True):
        given: Any = (reference, entry.token_ids, as_asked(own), len(entry.token_ids) - 3)
        expected = steering_by_hand.streams(*given)
        error = (found.activations["resid_post"] - expected).abs() / expected.abs().amax(dim=(1, 2), keepdim=True)
        assert float(error.max()) <= TOLERANCE
        logs = steering_by_hand.logits(*given).log_softmax(-1)
        gold = [float(logs[place, token]) for place, token in enumerate(entry.token_ids[1:])]
        assert found.scores is not None
        assert torch.allclose(torch.tensor(found.scores.token), torch.tensor(gold), atol=1e-3)


def test_a_dose_of_nothing_changes_no_bit(pair: Pair) -> None:
    served, _ = pair
    nothing = edits(served, {"values": direction(1), "layers": "all", "operation": "add", "dose": 0.0})
    ids = prompts(1)[0]

    def captured(own: tuple[LayerEdit, ...]) -> torch.Tensor:
        steering = SequenceEdits(own, 2) if own else None
        (found,) = served.forward([ForwardInput(ids, [0, 2], ["resid_post"], None, torch.float32, steering=steering)])
        return found.activations["resid_post"].view(torch.int32)

    assert torch.equal(captured(nothing), captured(()))
    assert generate(served, [ids], [nothing], 8)[0].token_ids == generate(served, [ids], [()], 8)[0].token_ids


def test_a_mixed_batch_equals_single_requests(pair: Pair) -> None:
    served, _ = pair
    wanted = some(served)
    together = generate(served, prompts(len(wanted)), wanted, 7)
    for number, (row, prompt, own) in enumerate(zip(together, prompts(len(wanted)), wanted, strict=True)):
        (alone,) = generate(served, [prompt], [own], 7 + number % 3)
        assert row.token_ids == alone.token_ids


def test_tokens_are_counted_and_no_padding(pair: Pair) -> None:
    served, _ = pair
    wanted = some(served)
    rows = generate(served, prompts(len(wanted)), wanted, 5)
    for row, own in zip(rows, wanted, strict=True):
        for edit in own:
            # The last token is never put in again, so it is not edited.
            fed = len(row.token_ids) - 1
            expected = {"all": len(row.prompt_ids) + fed, "prompt": len(row.prompt_ids), "generation": fed}[edit.phase]
            assert row.steering is not None
            assert row.steering.tokens[edit.number] == expected


def test_an_edit_that_is_not_made_is_an_error() -> None:
    steering = SequenceEdits((LayerEdit(0, 1, torch.ones(4) / 2, 1.0, "all"),), 1)
    rows = SteeredRows([steering], [torch.device("cpu")] * 2)
    rows.begin(torch.zeros((1, 1), dtype=torch.long))
    rows.apply(0, torch.zeros((1, 1, 4)))
    with pytest.raises(RuntimeError, match=r"no edit was made at layers \[1\]"):
        rows.finish()


def test_a_hook_that_never_fires_fails_the_request(tmp_path: Path) -> None:
    served = ServedModel(str(tiny_models.make_of_family("llama", tmp_path)), "tiny", "float32", "cpu")
    served.base.get_submodule(served.architecture.layers_path)[1]._forward_hooks.clear()
    add = {"values": direction(1), "operation": "add"}
    engine = BatchEngine(served, batch_tokens=100, memory=10**6)
    done = threading.Event()
    try:
        for layer, finish in ((0, "length"), (1, "error"), (2, "length")):
            done.clear()
            own = edits(served, {**add, "layers": [layer]})
            row = ChoiceState([5, 6], 2, 0.0, 1.0, None, Decoder(served.tokens, []), lambda: None, True)
            row.steering = SequenceEdits(own, 2)
            row.on_step = lambda row=row: done.set() if row.finish else None  # type: ignore[misc]
            item = Pass(ForwardInput([5, 6], [], [], None, torch.float32, True, steering=SequenceEdits(own, 2)), 0)
            engine.submit_pass(item)
            engine.submit_generations([row])
            assert done.wait(PATIENCE)
            assert row.finish == finish
            assert isinstance(item.result.exception(PATIENCE), ForwardError) == (finish == "error")
    finally:
        engine.close()


def test_directions_of_a_file_have_a_length_of_their_own(pair: Pair, tmp_path: Path) -> None:
    served, _ = pair
    vectors = torch.randn(LAYERS, WIDTH)
    save_file(
        {"joy": vectors, "joy.norm": torch.tensor([1.0, 2.0, 4.0]), "one": vectors[0].clone()},
        tmp_path / "d.safetensors",
    )
    digest = hashlib.sha256((tmp_path / "d.safetensors").read_bytes()).hexdigest()
    edit = StreamEdit(file="d.safetensors", key="joy", sha256=digest, layers=[1, -1], operation="add", dose=-3.0)
    found = layer_edits([edit], tmp_path, served.architecture)
    assert [(entry.layer, entry.amount) for entry in found] == [(1, -6.0), (2, -12.0)]
    assert torch.allclose(found[0].direction, vectors[1] / vectors[1].norm())
    # A server that cannot read the file is sent its rows, and does the same to the bit.
    rows = base64.b64encode(vectors[1:].numpy().tobytes()).decode()
    sent = edit.model_copy(update={"rows": rows, "lengths": [2.0, 4.0]})
    for there, here in zip(layer_edits([sent], Path("/nowhere"), served.architecture), found, strict=True):
        assert (there.layer, there.amount) == (here.layer, here.amount)
        assert torch.equal(there.direction, here.direction)
    (own,) = layer_edits(
        [StreamEdit(file="d.safetensors", key="one", layers=[2], operation="add")], tmp_path, served.architecture
    )
    assert own.amount == pytest.approx(float(vectors[0].norm()))


def test_a_file_that_was_replaced_is_read_again(pair: Pair, tmp_path: Path) -> None:
    served, _ = pair
    edit = StreamEdit(file="d.safetensors", key="joy", layers=[0], operation="add")
    for length in (1.0, 2.0):
        save_file({"joy": torch.ones(WIDTH), "joy.norm": torch.tensor(length)}, tmp_path / "new.safetensors")
        (tmp_path / "new.safetensors").replace(tmp_path / "d.safetensors")
        for _ in range(2):
            (found,) = layer_edits([edit], tmp_path, served.architecture)
            assert found.amount == length


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"file": "../outside.safetensors"}, "below the server's root"), ({"file": "/etc/passwd"}, "below the server's root"),
        ({"file": "link.safetensors"}, "below the server's root"), ({"file": "none.safetensors"}, "below the server's root"),
        ({"file": "text.safetensors"}, "holds no safetensors"), ({"key": "rage"}, "no tensor 'rage'"),
        ({"sha256": "0" * 64}, "another sha256"), ({"key": "narrow"}, r"shape \[7\]; accepted: \[48\] or \[3, 48\]"),
        ({"rows": "?", "lengths": [1.0]}, "no base64"), ({"rows": "AAAA", "lengths": [1.0]}, "as many rows"),
        ({"rows": "AACAPwAAgD8=", "lengths": [1.0, 1.0]}, "as many rows"), ({"rows": "AACAPwAAgD8=", "lengths": [1.0]}, "2 values"),
        ({"key": "zero"}, "zero, or not finite"), ({"key": "rows"}, "shape"), ({"layers": [3]}, "3 does not exist"),
        ({"key": "complex"}, "complex numbers"), ({"file": "new.safetensors"}, "values of type 'F4'"),
    ],
)  # fmt: skip
def test_edits_that_cannot_be_made_are_refused(pair: Pair, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    served, _ = pair
    root = (tmp_path / "root").resolve()
    root.mkdir()
    tensors = {
        "joy": torch.ones(WIDTH),
        "narrow": torch.ones(7),
        "zero": torch.zeros(WIDTH),
        "complex": torch.ones(WIDTH, dtype=torch.complex64),
        "rows": torch.ones(2, WIDTH),
    }
    save_file(tensors, root / "d.safetensors")
    save_file(tensors, tmp_path / "outside.safetensors")
    (root / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    (root / "text.safetensors").write_text("no tensors at all")
    header = b'{"joy": {"dtype": "F4", "shape": [48], "data_offsets": [0, 24]}}'  # a type that PyTorch does not have
    (root / "new.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"0" * 24)
    edit = StreamEdit(**({"file": "d.safetensors", "key": "joy", "layers": [0], "operation": "add"} | change))
    with pytest.raises((EditError, HookPointError), match=words):
        layer_edits([edit], root, served.architecture)


@pytest.mark.parametrize(
    "change",
    [
        {"values": None}, {"file": "x", "key": "y"}, {"values": None, "file": "x"}, {"key": "y"}, {"sha256": "0" * 64},
        {"dose": float("nan")}, {"values": [float("inf")]}, {"phase": "later"}, {"operation": "multiply"}, {"layers": []},
        {"strength": 3}, {"operation": "ablate", "dose": 2.0}, {"rows": "AACAPw==", "lengths": [1.0]},
        {"values": None, "file": "x", "key": "y", "rows": "AACAPw=="},
        {"values": None, "file": "x", "key": "y", "lengths": [1.0]},
    ],
)  # fmt: skip
def test_edits_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        StreamEdit(**({"values": [1.0], "layers": [0], "operation": "add"} | change))


def test_an_edit_alone_captures_nothing() -> None:
    edit = StreamEdit(values=[1.0], layers=[0], operation="add")
    assert not Ndif(steering=[edit], request_id="x").captures
    assert Ndif(steering=[edit], save_dir="x").captures
    assert Ndif().captures
