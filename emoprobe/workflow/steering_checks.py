"""What a plan can find wrong with the steering that a configuration asks for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from emoprobe.config.experiment import Config
from emoprobe.config.science.analysis import references_of
from emoprobe.config.science.capture import RESID_POST
from emoprobe.config.science.steering import MIDDLE, NONE, DirectionFile, layer_sets
from emoprobe.config.section import CONTROL
from emoprobe.conversations.sources import DataError, hub, kind_of
from emoprobe.models.settings import known_size
from emoprobe.steering.grid import SteeringGrid, captured_questions, directions_of, tones_of
from emoprobe.workflow.remembered import remembered
from emoprobe.workflow.steered import asked_questions

TAKEN = (NONE, "directions")
LEAST_QUESTIONS = 4


def check_steering(config: Config, memory: Path | None = None) -> list[str]:
    """Return problems, one line each: `section.key = value: what is wrong, what to do`.

    Args:
        config: the experiment; relative paths are taken from the working directory.
        memory: folder in which answers that take long are kept as long as the files that they are about are the same.
    """
    if not config.steering.enabled:
        return []
    found = [*_captures(config), *_variants(config), *_names(config), *_layers(config), *_files(config, memory)]
    return found or list(_questions(config, memory))


def unreachable(grid: SteeringGrid) -> Iterator[str]:
    """Yield why directions will get no verdict, one line each: warnings, as the effects are computed all the same.

    Args:
        grid: what the experiment steers.
    """
    config, steered = grid.config, len(grid.steered)
    # Here, as they bring NumPy, which a plan of anything else does without.
    from emoprobe.analysis.estimates import MIN_QUESTIONS
    from emoprobe.analysis.steering.preregistration import planned_tests
    from emoprobe.steering.grid import LEAST_TEXTS

    planned = planned_tests(config)
    assert planned is not None
    out_of_reach: dict[tuple[int, int], list[str]] = {}
    for family in (name for name, reachable in planned.reachable.items() if not reachable):
        needed = planned.controls_needed[family], planned.shuffled_needed[family]
        out_of_reach.setdefault(needed, []).append(family)
    for (random, more), families in out_of_reach.items():
        shuffled = f" and {more} shuffled-label ones (there are {planned.shuffled_directions})" if more else ""
        yield (
            f"steering.controls: no verdict is within reach on directions of the family {' or '.join(families)}: it "
            f"takes {random} random directions (there are {planned.random_directions}){shuffled}"
        )
    texts = {tone: len(set(grid.text_blocks(tone).values())) for tone in grid.tones}
    few = [tone for tone, count in texts.items() if count < LEAST_TEXTS]
    if few:
        yield (
            f"steering.fit: no verdict is within reach on directions of {', '.join(few)}: it takes {LEAST_TEXTS} texts "
            f"in the fitting half (there are {min(texts[tone] for tone in few)}, those that go with the same text of "
            f"{grid.reference} counted once); give {grid.reference} and the tones more texts, or raise dataset.samples"
        )
    if "probe" in config.steering.methods and grid.tones:
        yield (
            "steering.methods = 'probe': directions of probes get no verdict, as no control directions are fitted in "
            "the same way; their effects are described"
        )
    questions = min(steered, config.steering.controls.questions or steered)
    if questions < MIN_QUESTIONS:
        yield (
            f"steering: no verdict is within reach with {questions} questions that directions and controls share: it "
            f"takes {MIN_QUESTIONS} (steering.questions, steering.controls.questions, half of dataset.samples)"
        )


def _captures(config: Config) -> Iterator[str]:
    capture, position = config.capture, config.steering.fit.position
    if not capture.enabled:
        yield "steering.enabled = True: directions are fitted on activations; set capture.enabled: true"
        return
    if RESID_POST not in capture.hook_points:
        yield (
            f"capture.hook_points = {capture.hook_points}: directions are fitted at {RESID_POST}; add it, or set "
            "steering.enabled: false"
        )
    if capture.positions == "all" or position not in capture.positions:
        yield (
            f"steering.fit.position = {position!r}: is not captured; name it in capture.positions "
            f"(now {capture.positions})"
        )
    reference = references_of(config.variants, config.analysis.references)[-1]
    if position == "prefix_mean" and (reference == CONTROL or config.steering.controls.orthogonal):
        yield (
            "steering.fit.position = 'prefix_mean': control has no prefix to be compared with; take a primary "
            "reference with a text (analysis.references) and set steering.controls.orthogonal: false"
        )


def _variants(config: Config) -> Iterator[str]:
    settings, references = config.steering, references_of(config.variants, config.analysis.references)
    for key in ("tones", "variants"):
        for name in getattr(settings, key) or []:
            if name not in config.variants:
                yield f"steering.{key} = {name!r}: is no variant (there are: {', '.join(config.variants)})"
    for name in settings.tones or []:
        if name in references:
            yield f"steering.tones = {name!r}: is what the tones are compared with; remove it"
    tones = tones_of(config)
    if not tones and not settings.files:
        yield (
            "steering.tones: no variant has a valence of negative or positive, so there is nothing to steer along; "
            "name tones or files"
        )
    if "ablate" in settings.operations and "diff_means" not in settings.methods:
        yield "steering.operations = 'ablate': takes directions of diff_means away; add it to steering.methods"
    if not ("add" in settings.operations and any(settings.doses)) and not ("ablate" in settings.operations and tones):
        yield "steering.doses: holds nothing but 0, so that nothing would be steered"


def _names(config: Config) -> Iterator[str]:
    names = [direction.name for direction in directions_of(config)]
    for name in dict.fromkeys(names):
        if names.count(name) > 1 or name in TAKEN:
            yield f"steering: two directions would be called {name!r}, or it is taken; rename the variant or the file"


def _layers(config: Config) -> Iterator[str]:
    layers, captured = config.steering.layers, config.capture.layers
    count, _ = known_size(config.model)
    if layers == MIDDLE:
        if count is None:
            yield (
                f"steering.layers = 'middle': the depth of {config.model.source} is not known before it is downloaded; "
                "give a list of layers"
            )
            return
        wanted = [count // 2]
    else:
        wanted = [layer for together in layer_sets(layers) for layer in together]
    for layer in dict.fromkeys(wanted):
        if count is not None and layer >= count:
            yield f"steering.layers = {layer}: the model has {count} layers, 0 to {count - 1}"
        elif captured != "all" and layer not in captured and (count is None or layer - count not in captured):
            yield f"steering.layers = {layer}: is not captured; add it to capture.layers (now {captured})"


def _questions(config: Config, memory: Path | None) -> Iterator[str]:
    captured, dataset = captured_questions(config), config.dataset
    if captured < LEAST_QUESTIONS:
        yield (
            f"dataset.samples, capture.samples: {captured} questions are captured; steering divides them into two "
            f"halves and needs at least {LEAST_QUESTIONS}"
        )
    elif dataset.group is not None and kind_of(dataset.source) is hub.KIND:
        yield (
            f"dataset.group = {dataset.group!r}: steering divides questions by group, which cannot be read from "
            f"{dataset.source} for a plan; save the data as a .jsonl or .parquet file"
        )
    else:
        try:
            asked_questions(config, memory)
        except DataError as error:
            yield str(error)


def _files(config: Config, memory: Path | None) -> Iterator[str]:
    size = known_size(config.model)
    for name, file in config.steering.files.items():
        try:
            status = Path(file.path).expanduser().stat()
        except OSError as error:
            yield f"steering.files.{name}: {file.path} cannot be read ({error.strerror})"
            continue
        about = [name, file.model_dump(mode="json"), *size, str(Path().absolute()), status.st_size, status.st_mtime_ns]
        yield from remembered(memory, about, partial(_file, name, file, *size))


def _file(name: str, file: DirectionFile, n_layers: int | None, width: int | None) -> list[str]:
    # Here, as they bring NumPy, which a plan does without.
    from emoprobe.steering.directions import DirectionError, read_direction, unit

    try:
        rows = read_direction(file, Path(), n_layers, width)
        unit(rows, name, list(range(len(rows))))
    except DirectionError as error:
        return [f"steering.files.{name}: {error}"]
    return []
