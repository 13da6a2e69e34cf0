"""Activations of many trajectories: the check of each folder, arrays for analysts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes  # noqa: F401 (teaches NumPy bfloat16, which safetensors asks it for)
import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from emoprobe.results.activation_folder import METADATA, TENSORS, ActivationError, ActivationFolder, ActivationMetadata
from emoprobe.results.layout import Layout, split_draw_id
from emoprobe.results.manifest import ManifestEntry, StoredEntry
from emoprobe.results.record import unreadable, unreadable_words

MAX_SHOWN = 8  # layers that a representation lists one by one


@dataclass(frozen=True, repr=False)
class Activations:
    """Activations of many trajectories at one hook point and position.

    `values` has shape (n, n_layers, d); row i belongs to row i of `index`, which has the columns `variant`,
    `sample_id` and `draw`, as in the table `trajectories`, and `empty` (whether a neighbour stood in for a part of the
    conversation that is empty). `layers` are the indices of the layers.
    """

    values: np.ndarray
    index: pd.DataFrame
    layers: list[int]

    def __repr__(self) -> str:
        n, layers, d = self.values.shape
        shown = str(self.layers) if layers <= MAX_SHOWN else f"[{self.layers[0]}, …, {self.layers[-1]}]"
        return f"Activations({n} trajectories × {layers} layers × {d}, {self.values.dtype}, layers={shown})"


def check(folder: Path, entry: ManifestEntry | None = None, token_ids: list[int] | None = None) -> list[str]:
    """Check a folder; return a list of problems, one line each.

    Tensors that are in object storage and not here are not looked at: `emoprobe.storage.remote` does that.

    Args:
        folder: the activation folder.
        entry: its entry in the manifest, to compare hash and size with.
        token_ids: the tokens of its trajectory, to compare with those that were captured; an empty list where no
            server answered.
    """
    path = folder / TENSORS
    content: bytes | None = None
    try:
        metadata = ActivationFolder.read(folder).metadata
        content = path.read_bytes()
    except ActivationError as error:
        return [str(error)]
    except OSError as error:
        if not (isinstance(error, FileNotFoundError) and (metadata.stored or isinstance(entry, StoredEntry))):
            return [f"{path} {unreadable_words(error, 'its folder')}"]
    problems = []
    digest = (
        (metadata.sha256, metadata.bytes) if content is None else (hashlib.sha256(content).hexdigest(), len(content))
    )
    for source, expected in ((METADATA, metadata), ("the manifest", entry)):
        if expected is not None and (expected.sha256, expected.bytes) != digest:
            problems.append(f"{path}: hash or size is not what {source} says; delete its folder and run again")
    if token_ids is not None and metadata.token_ids != token_ids:
        problems.append(f"{folder}: was captured from other tokens than the trajectory's; delete it and run again")
    if content is None:
        return problems
    try:
        problems += _check_tensors(path, metadata)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        problems.append(f"{path}: is damaged ({error}); delete its folder and run again")
    return problems


def _check_tensors(path: Path, metadata: ActivationMetadata) -> list[str]:
    problems = []
    with safe_open(path, "np") as file:
        if sorted(file.keys()) != sorted(metadata.hook_points):
            problems.append(f"{path}: has {', '.join(file.keys())}, not {', '.join(metadata.hook_points)}")
        for point in file.keys():  # noqa: SIM118 (no mapping)
            tensor = file.get_tensor(point)
            if tensor.shape[:2] != (len(metadata.layers), metadata.n_positions) or tensor.ndim != 3:
                problems.append(f"{path}: {point} has shape {tensor.shape}")
            if str(tensor.dtype) != metadata.dtype:
                problems.append(f"{path}: {point} has dtype {tensor.dtype}, not {metadata.dtype}")
            if not np.isfinite(tensor).all():
                problems.append(f"{path}: {point} has values that are not finite")
    return problems


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Read every tensor of a safetensors file.

    Raises:
        DamagedError: the file is missing or damaged.
    """
    try:
        with safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise unreadable(path, error) from None


def find_pairs(layout: Layout) -> list[tuple[str, str]]:
    """Variant and sample of every activation folder there is."""
    folders = sorted((layout.root / "activations").glob(f"*/*/{METADATA}"))
    return [(path.parent.parent.name, path.parent.name) for path in folders]


def load_activations(
    experiment: str | Path,
    hook_point: str,
    position: str | int,
    *,
    variants: Sequence[str] | None = None,
    samples: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    dtype: str = "float32",
) -> Activations:
    """Read activations of an experiment at one hook point and position; only what is asked for is read.

    Trajectories that no server answered, or captured, have none and are left out; so are those that the folder's config
    does not contain, as in `load_trajectories`. Tensors that are in object storage, and not here, are read there, a
    layer or a hook point at a time. `index` joins with the table `trajectories` on `variant`, `sample_id` and `draw`.

    Args:
        experiment: folder of the experiment, here or in object storage (`s3://bucket/prefix/experiment`).
        hook_point: such as `input_layernorm.output`.
        position: a captured position by name (or index, as it was asked for); where all tokens were captured, an index,
            negative ones from the end.
        variants: which variants; default: all.
        samples: which samples: by their ids, all draws of each, or by the names of folders (`gsm8k_0001-d2`); default:
            all.
        layers: which layers, by their index in the model, negative ones from its last layer as in `capture.layers`;
            default: all that were captured.
        dtype: of the array.

    Raises:
        ActivationError: there are no activations, none of a variant or sample that is asked for, or a folder lacks the
            hook point, position or a layer; the message says what is there.
    """
    if isinstance(variants, str) or isinstance(samples, str):
        raise ActivationError("variants and samples must be lists of names")
    seen: set[tuple[str, str]] = set()
    names = None if samples is None else set(samples)

    def selects(variant: str, sample: str) -> bool:
        seen.add((variant, sample))
        named = names is None or sample in names or split_draw_id(sample)[0] in names
        return named and (variants is None or variant in variants)

    folders = _folders(experiment, selects)
    _check_names(experiment, seen, variants, samples)
    pairs = [pair for pair, folder in folders.items() if folder.metadata.error is None]
    if variants is not None:
        order = {name: number for number, name in enumerate(variants)}
        pairs.sort(key=lambda pair: order[pair[0]])
    if not pairs:
        reasons = dict.fromkeys(folder.metadata.error for folder in folders.values() if folder.metadata.error)
        why = f" ({'; '.join(list(reasons)[:3])})" if reasons else ""
        raise ActivationError(f"none of the {len(folders)} trajectories asked for in {experiment} has activations{why}")
    first = folders[pairs[0]].metadata
    chosen = list(first.layers) if layers is None else _counted(experiment, first.layers, layers)
    drawn = split_draw_id if "://" in str(experiment) else Layout(Path(experiment)).drawn
    values: np.ndarray | None = None
    rows, columns, away = [], [], []
    for number, pair in enumerate(pairs):
        folder = folders[pair]
        column, empty = _column(folder, position)
        places = _layer_rows(folder, hook_point, chosen)
        if values is None:
            values = np.empty((len(pairs), len(chosen), folder.metadata.shapes[hook_point][2]), dtype=dtype)
        if folder.here and (block := _read(folder, hook_point, column)) is not None:
            values[number] = block[places].astype(np.float32)
        else:
            away.append((number, pair, folder, places))
        rows.append((pair[0], *drawn(pair[1]), empty))
        columns.append(column)
    assert values is not None
    if away:
        from emoprobe.storage.reading import read_layers, tensor_requests

        tensors = tensor_requests(experiment, [(pair, folder, places) for _, pair, folder, places in away])
        for at, some, block in read_layers(tensors, hook_point):
            number = away[at][0]
            values[number, some] = block[:, columns[number]].astype(np.float32)
    index = pd.DataFrame(rows, columns=["variant", "sample_id", "draw", "empty"])
    return Activations(values, index.astype({"variant": "string", "sample_id": "string", "draw": "Int64"}), chosen)


def _folders(
    experiment: str | Path, selects: Callable[[str, str], bool]
) -> dict[tuple[str, str], ActivationFolder]:  # fmt: skip
    """The activation folders of an experiment, here or in object storage."""
    if "://" in str(experiment):
        from emoprobe.storage.reading import stored_folders

        return stored_folders(str(experiment), selects)
    layout = Layout(Path(experiment))
    there = find_pairs(layout)
    if layout.resolved_yaml.exists():
        # Here, as the records of files know nothing of configs and samples.
        from emoprobe.config.files import load_config
        from emoprobe.conversations.samples import known_pairs

        there = known_pairs(load_config(layout.root), there)
    pairs = [pair for pair in there if selects(*pair)]
    return {pair: ActivationFolder.read(layout.activations(*pair)) for pair in pairs}


def _check_names(
    experiment: str | Path,
    there: set[tuple[str, str]],
    variants: Sequence[str] | None,
    samples: Sequence[str] | None,
) -> None:
    """Refuse names of variants or samples that there are no activations of."""
    if not there:
        missing = "://" not in str(experiment) and not Path(experiment).is_dir()
        raise ActivationError(f"{experiment} does not exist" if missing else f"{experiment} holds no activations")
    names = {name for _, name in there}
    known = {"variant": {variant for variant, _ in there}, "sample": names | {split_draw_id(name)[0] for name in names}}
    for kind, requested in (("variant", variants), ("sample", samples)):
        unknown = sorted(set(requested or ()) - known[kind])
        if unknown:
            listed = sorted(known[kind])
            shown = ", ".join(listed[:20]) + (", …" if len(listed) > 20 else "")
            raise ActivationError(
                f"{experiment} has no activations of the {kind} {', '.join(unknown)} (there: {shown})"
            )


def _counted(experiment: str | Path, captured: list[int], layers: Sequence[int]) -> list[int]:
    """Layers by their index from 0. What was captured does not say how deep the model is; the config may."""
    chosen = [int(layer) for layer in layers]
    if min(chosen, default=0) >= 0:
        return chosen
    depth = _depth(experiment, captured)
    if depth is None:
        raise ActivationError(
            f"{experiment}: layers {[layer for layer in chosen if layer < 0]} count from the model's last layer, which "
            f"is not known here; give indices from 0 (captured: {captured})"
        )
    return [layer if layer >= 0 else depth + layer for layer in chosen]


def _depth(experiment: str | Path, captured: list[int]) -> int | None:
    """Layers of the model, as far as the config says it: all were captured, or one that it counts from the end."""
    layout = Layout(Path(experiment))
    if "://" in str(experiment) or not layout.resolved_yaml.exists():
        return None
    from emoprobe.config.files import load_config

    capture, deepest = load_config(layout.root).capture, max(captured)
    if "layers" not in capture.model_fields_set:
        return None
    if capture.layers == "all":
        return deepest + 1
    first = min(capture.layers)
    if first >= 0:
        return None
    # Depths with which the config names just the layers that were captured.
    depths = range(max(deepest + 1, -first), deepest + 1 - first)
    fitting = [depth for depth in depths if {layer % depth for layer in capture.layers} == set(captured)]
    return fitting[0] if len(fitting) == 1 else None


def load_block(
    layout: Layout, pairs: Sequence[tuple[str, str]], hook_point: str, first: int, end: int, positions: Sequence[str]
) -> dict[str, np.ndarray]:
    """Some captured layers of many pairs at every named position: position → (n, end - first, d), float16 or float32.

    Args:
        layout: the experiment.
        pairs: variant and sample of each row.
        hook_point: such as `input_layernorm.output`.
        first: row of the first layer in the folders' tensors.
        end: row after the last.
        positions: names of captured positions, in the order of the folders' tensors.

    Raises:
        ActivationError: a folder is damaged or has another shape than the first.
    """
    blocks: dict[str, np.ndarray] = {}

    def take(number: int, some: Sequence[int], read: np.ndarray) -> None:
        values = read if read.dtype == np.float16 else read.astype(np.float32)
        for column, position in enumerate(positions):
            if position not in blocks:
                blocks[position] = np.empty((len(pairs), end - first, *values.shape[2:]), dtype=values.dtype)
            blocks[position][number, some] = values[:, column]

    away = []
    for number, pair in enumerate(pairs):
        path = layout.activations(*pair) / TENSORS
        try:
            with safe_open(path, "np") as file:
                take(number, range(end - first), file.get_slice(hook_point)[first:end])
        except FileNotFoundError:
            away.append(number)
        except (OSError, SafetensorError, ValueError, IndexError) as error:
            raise ActivationError(f"{path} {unreadable_words(error, 'its folder')}") from None
    if away:
        from emoprobe.storage.reading import read_layers, tensor_requests

        folders = [(pairs[number], ActivationFolder.read(layout.activations(*pairs[number]))) for number in away]
        requested = tensor_requests(layout.root, [(pair, folder, list(range(first, end))) for pair, folder in folders])
        for at, some, block in read_layers(requested, hook_point):
            take(away[at], some, block)
    return blocks


def _column(folder: ActivationFolder, position: str | int) -> tuple[int, bool]:
    """Return the column of a position in a folder's tensors, and whether a neighbour replaces it."""
    metadata = folder.metadata
    if metadata.positions == "all":
        length = len(metadata.token_ids)
        if isinstance(position, int) and -length <= position < length:
            return position % length, False
        raise ActivationError(
            f"{folder.path}: every token was captured; give an index below {length}, not {position!r}"
        )
    for column, known in enumerate(metadata.positions):
        if known.name == str(position):
            return column, known.empty
    names = ", ".join(metadata.position_names)
    raise ActivationError(f"{folder.path}: position {position!r} was not captured (captured: {names})")


def _layer_rows(folder: ActivationFolder, hook_point: str, layers: list[int]) -> list[int]:
    """Return the rows of some layers in a folder's tensors."""
    metadata = folder.metadata
    if hook_point not in metadata.hook_points:
        known = ", ".join(metadata.hook_points)
        raise ActivationError(f"{folder.path}: hook point {hook_point!r} was not captured (captured: {known})")
    places = {layer: row for row, layer in enumerate(metadata.layers)}
    missing = [layer for layer in layers if layer not in places]
    if missing:
        raise ActivationError(f"{folder.path}: layers {missing} were not captured (captured: {metadata.layers})")
    return [places[layer] for layer in layers]


def _read(folder: ActivationFolder, hook_point: str, column: int) -> np.ndarray | None:
    """(n_layers, d) out of one folder, of which only the bytes of that position are read; None where it is not here."""
    try:
        with safe_open(folder.tensors, "np") as file:
            values: np.ndarray = file.get_slice(hook_point)[:, column]
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        raise ActivationError(f"{folder.tensors} {unreadable_words(error, 'its folder')}") from None
    return values
