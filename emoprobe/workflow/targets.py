"""Which files a finished experiment has, and what a plan of experiments comes to.

Every file is named: Snakemake does not make a lost one again for the sake of tables that are up to date.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from emoprobe.config.experiment import Config
from emoprobe.config.files import Study
from emoprobe.config.science.generation import Backend
from emoprobe.config.section import RESERVED_NAMES
from emoprobe.conversations.samples import captured_pairs, experiment_pairs, judged_pairs, sample_ids, token_pairs
from emoprobe.report.figures import figures_of, table_rules
from emoprobe.results.activation_folder import METADATA, TENSORS
from emoprobe.results.catalogue import tables_of
from emoprobe.results.layout import (
    ACTIVATION_FILES,
    AUTOENCODER_FILES,
    OUTCOMES_FILE,
    SCORES,
    TRAJECTORY_FILES,
    Layout,
    split_draw_id,
)
from emoprobe.results.verification import check_records
from emoprobe.workflow.model_checks import thinking_lines
from emoprobe.workflow.steered import SteeredTargets
from emoprobe.workflow.steering_checks import unreachable
from emoprobe.workflow.verdict_checks import few_texts, lone_judges, unreachable_valence

# Kind of target → what each part of its name is, and the key that turns the kind on, where one does.
KINDS: dict[str, tuple[tuple[str, ...], str]] = {
    "sample": (("samples",), ""),
    "trajectory": (("variants", "samples"), ""),
    "outcomes": (("variants", "samples"), ""),
    "judgement": (("judges", "variants", "samples"), ""),
    "activations": (("variants", "samples"), "capture.enabled"),
    "tokens": (("variants", "samples"), "features.enabled"),
    "direction": (("directions",), "steering.enabled"),
    "steered": (("conditions", "variants", "samples"), "steering.enabled"),
    "autoencoder": (("autoencoders",), "features.enabled"),
}
MAX_NAMES = 12


class UnknownTargetError(ValueError):
    """Raised for a target that the config does not contain; the message names what it contains."""


def _by_question(config: Config, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The pairs of variant and folder with all variants of a question together, in the order of the variants."""
    places = {sample: place for place, sample in enumerate(sample_ids(config.dataset))}

    def place(pair: tuple[str, str]) -> tuple[int, int]:
        sample, draw = split_draw_id(pair[1])
        return places[sample], draw

    return sorted(pairs, key=place)


@dataclass(frozen=True)
class Targets:
    """The files of one experiment.

    `layout` is where rules name them, `found` where they are looked for: another workflow may prefix the names.
    `memory` is a folder in which answers of slow questions to the data are kept.
    """

    config: Config
    layout: Layout
    found: Layout | None = None
    memory: Path | None = None

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """Variant and folder of every trajectory, by question, so that no variant is captured before another."""
        return _by_question(self.config, experiment_pairs(self.config))

    @cached_property
    def captured(self) -> list[tuple[str, str]]:
        """Those of the trajectories whose activations are captured, question by question."""
        return _by_question(self.config, captured_pairs(self.config))

    @cached_property
    def tokens_of(self) -> list[tuple[str, str]]:
        """Those of the trajectories whose every token is captured."""
        return token_pairs(self.config)

    @cached_property
    def steering(self) -> SteeredTargets | None:
        """The steering grid; None where nothing is steered."""
        return SteeredTargets.of(self.config, self.layout, self.memory) if self.config.steering.enabled else None

    def steered(self, names: Iterable[str] = (*TRAJECTORY_FILES, SCORES)) -> list[str]:
        """Files of every steered trajectory."""
        return self.steering.trajectories(names) if self.steering is not None else []

    def samples(self) -> list[Path]:
        """The files of the questions."""
        return [self.layout.sample(sample) for sample in sample_ids(self.config.dataset)]

    def trajectories(self, names: Iterable[str] = TRAJECTORY_FILES) -> list[str]:
        """Files of every trajectory."""
        names = list(names)
        return [f"{self.layout.root}/{variant}/{sample}/{name}" for variant, sample in self.pairs for name in names]

    def outcomes(self) -> list[str]:
        """Return the `outcomes.json` of every trajectory; none where no grader asks the model."""
        return self.trajectories([OUTCOMES_FILE]) if self.config.asks_model else []

    @cached_property
    def judged(self) -> list[tuple[str, str, str]]:
        """Judge, variant and folder of every judgement, in an order in which the variants take no turns."""
        return sorted(judged_pairs(self.config), key=lambda name: hashlib.sha256("/".join(name).encode()).digest())

    def label_files(self) -> list[str]:
        """Return the files with labels by people."""
        return sorted({judge.labels for judge in self.config.judges if judge.labels is not None})

    def to_label(self) -> list[Path]:
        """Return the file of the answers that people may label, where there are judges that labels correct."""
        return [self.layout.to_label] if any(judge.takes_labels for judge in self.config.judges) else []

    def judge_models(self) -> list[Path]:
        """Return the cards of the models of judges that the run serves."""
        return [self.layout.judge_model(judge.outcome) for judge in self.config.served_judges]

    def judgements(self) -> list[Path]:
        """Return the file of every judgement."""
        return [self.layout.judgement(*name) for name in self.judged]

    def activations(self, names: Iterable[str] = ACTIVATION_FILES) -> list[str]:
        """Files of every activation folder."""
        names = list(names)
        folders = (self.layout.activations(variant, sample) for variant, sample in self.captured)
        return [f"{folder}/{name}" for folder in folders for name in names]

    def tensors(self) -> list[str]:
        """The tensors of every activation folder that are to be here: those in object storage alone are no targets."""
        if not self.config.storage.keep_local:
            return []
        files = zip(self.captured, self.activations([TENSORS]), strict=True)
        return [path for pair, path in files if pair not in self._away]

    @cached_property
    def _away(self) -> set[tuple[str, str]]:
        """Those of the captured pairs whose tensors are in object storage and not here."""
        layout = self.found or self.layout
        if not layout.shards.exists():
            return set()
        from emoprobe.results.manifest import stored_pairs

        missing = [pair for pair in self.captured if not (layout.activations(*pair) / TENSORS).exists()]
        return stored_pairs(layout, missing)

    def copies(self) -> list[Path]:
        """Return the files of object storage: activations to push, and missing ones to pull."""
        if not self.config.pushes:
            return []
        wanted = self.config.storage.keep_local and bool(self._away)
        return [self.layout.pushed, *([self.layout.pulled] if wanted else [])]

    def before_push(self) -> list[Path]:
        """Return the files made from activations before they are pushed, so that they are read from the local disk."""
        steering = [] if self.steering is None else [Path(path) for path in self.steering.directions()]
        return [self.layout.verified, *self.explorer(), *self.directions(), *steering]

    def tokens(self, names: Iterable[str] = ACTIVATION_FILES) -> list[str]:
        """Files of every folder of tokens."""
        names = list(names)
        folders = (self.layout.tokens(variant, sample) for variant, sample in self.tokens_of)
        return [f"{folder}/{name}" for folder in folders for name in names]

    def autoencoders(self) -> list[Path]:
        """Files of every autoencoder that is trained."""
        names = self.config.features.autoencoders
        return [self.layout.autoencoder(name) / file for name in names for file in AUTOENCODER_FILES]

    def require(self, kind: str, *name: str) -> None:
        """Refuse a target that the experiment does not have.

        Args:
            kind: one of `KINDS`, or the name of a rule that only some experiments need.
            name: the parts of its name.

        Raises:
            UnknownTargetError: the experiment has no such target.
        """
        if kind not in KINDS:
            if kind not in self.optional_rules:
                raise UnknownTargetError(
                    f"{self.layout.root} has nothing that {kind} makes: its configuration does not ask for it"
                )
            return
        if name in self._names[kind]:
            return
        parts, key = KINDS[kind]
        known = sorted(self._names[kind])
        if not known:
            turned_off = f" ({key} is false)" if key else ""
            raise UnknownTargetError(f"{self.layout.root} has no {kind} {'/'.join(name)}: it has none{turned_off}")
        existing = [f"{part}: {_shortened(row[place] for row in known)}" for place, part in enumerate(parts)]
        raise UnknownTargetError(f"{self.layout.root} has no {kind} {'/'.join(name)}; it has {'; '.join(existing)}")

    @cached_property
    def _names(self) -> dict[str, frozenset[tuple[str, ...]]]:
        """Kind of target → the names of all that there are."""
        grid = None if self.steering is None else self.steering.grid
        names: dict[str, Iterable[tuple[str, ...]]] = {
            "sample": ((sample,) for sample in sample_ids(self.config.dataset)),
            "trajectory": self.pairs,
            "outcomes": self.pairs if self.config.asks_model else (),
            "judgement": self.judged,
            "activations": self.captured,
            "tokens": self.tokens_of,
            "direction": () if grid is None else ((name,) for name in grid.directions),
            "steered": () if grid is None else (tuple(steered) for steered in grid.trajectories),
            "autoencoder": ((name,) for name in self.config.features.autoencoders),
        }
        return {kind: frozenset(found) for kind, found in names.items()}

    @property
    def optional_rules(self) -> list[str]:
        """The rules that this experiment needs and others do not."""
        draw = {"probe_activations": "draw_probe_figures", "analyze_steering": "draw_steering_figures"}
        draw["analyze_features"] = "draw_feature_figures"
        captured = ["list_activations"] if self.config.capture.enabled else []
        captured += ["list_answers_to_label"] if self.to_label() else []
        return [*self.rules, *(draw[rule] for rule in self.rules if rule in draw), *captured]

    def directory(self, parts: Sequence[str]) -> list[str] | None:
        """The files that the experiment has in one of its folders; None for a folder that is no target.

        Args:
            parts: path of the folder below the experiment: `{variant}`, `{variant}/{sample}`, and the same below
                `activations`.

        Raises:
            UnknownTargetError: the folder names a variant or sample that the experiment does not have.
        """
        kind, names = ("activations", parts[1:]) if parts[:1] == ["activations"] else ("trajectory", parts)
        if not 1 <= len(names) <= 2 or (kind == "trajectory" and names[0] in RESERVED_NAMES):
            return None
        if len(names) == 2:
            self.require(kind, *names)
        elif not any(variant == names[0] for variant, _ in self._names[kind]):
            self.require(kind, names[0], "…")
        files = [*self.trajectories(), *self.outcomes()] if kind == "trajectory" else self.activations()
        inside = "/".join([str(self.layout.root), *parts, ""])
        return [path for path in files if path.startswith(inside)]

    @property
    def rules(self) -> list[str]:
        """The rules that make the experiment's tables."""
        return table_rules(self.config)

    def tables(self) -> list[Path]:
        """Every table of the experiment."""
        return [self.layout.table(name) for rule in self.rules for name in tables_of(rule)]

    def figures(self) -> list[Path]:
        """Every figure of the experiment."""
        probes = ["draw_probe_figures"] if self.config.has_probes else []
        steering = ["draw_steering_figures"] if self.config.steering.enabled else []
        features = ["draw_feature_figures"] if self.config.features.enabled else []
        rules = ["draw_figures", *probes, *steering, *features]
        return [self.layout.figure(name) for rule in rules for name in figures_of(rule)]

    def manifest(self) -> list[Path]:
        """The list of activation folders, where there are any."""
        return [self.layout.manifest] if self.config.capture.enabled else []

    def report(self) -> list[Path]:
        """The report, as a page and as numbers."""
        return [self.layout.report, self.layout.report_html]

    def explorer(self) -> list[Path]:
        """The page that shows every conversation."""
        return [self.layout.explorer]

    def explorer_sources(self) -> list[Path]:
        """The files that the explorer is made after; they come after all trajectories and activations."""
        steering = [self.layout.table("steering")] if self.config.steering.enabled else []
        every_token = self.config.capture.enabled and not self.config.has_probes
        captured = self.manifest() if every_token else []
        return [self.layout.table("trajectories"), *self.judgements(), *steering, *self.directions(), *captured]

    def directions(self) -> list[Path]:
        """Files with the directions of probes and of features."""
        features = [self.layout.feature_directions()] if self.config.features.enabled else []
        return [*([self.layout.directions()] if self.config.has_probes else []), *features]

    def everything(self) -> list[Path | str]:
        """Everything that a finished experiment has."""
        layout = self.layout
        described = [layout.resolved_yaml, layout.resolved_json, layout.metadata, layout.model]
        concluded = [layout.plan, *self.report(), *self.explorer(), layout.verified]
        captured: list[Path | str] = [*self.manifest(), *self.activations([METADATA]), *self.tensors(), *self.copies()]
        steered: list[Path | str] = [] if self.steering is None else [*self.steering.directions(), *self.steered()]
        featured: list[Path | str] = [*self.autoencoders(), *self.tokens()]
        return [
            *described,
            *concluded,
            *self.tables(),
            *self.figures(),
            *self.directions(),
            *self.samples(),
            *self.trajectories(),
            *self.outcomes(),
            *self.judge_models(),
            *self.judgements(),
            *self.to_label(),
            *captured,
            *steered,
            *featured,
        ]


# Tables of every experiment that a study's tables gather.
STUDY_SOURCES = ("accuracy", "outcomes", "paired_tests")


@dataclass(frozen=True)
class StudyTargets:
    """The files that are computed from all experiments of a study; none for a single experiment."""

    study: Study

    @property
    def layout(self) -> Layout | None:
        """Paths of the study's files; None where there is no study."""
        return None if self.study.name is None else Layout.of(self.study.name)

    def sources(self) -> list[Path]:
        """The experiments' tables that the study's are made from."""
        return [Layout.of(name).table(table) for name in self.study.configs for table in STUDY_SOURCES]

    def reports(self) -> list[Path]:
        """The experiments' reports, which the study's page links to."""
        return [Layout.of(name).report for name in self.study.configs]

    def tables(self) -> list[Path]:
        """Every table across experiments."""
        return [] if self.layout is None else [self.layout.table(name) for name in tables_of("tabulate_study")]

    def figures(self) -> list[Path]:
        """Every figure across experiments."""
        return [] if self.layout is None else [self.layout.figure(name) for name in figures_of("report_study")]

    def report(self) -> list[Path]:
        """The report across experiments, as numbers and as a page."""
        return [] if self.layout is None else [self.layout.report, self.layout.report_html]

    def everything(self) -> list[Path]:
        """Every file."""
        return [*self.tables(), *self.figures(), *self.report()]


def directory_targets(experiments: Mapping[str, Targets], words: Iterable[str]) -> dict[str, list[str]]:
    """Find the folders of results among the words of a command line.

    Args:
        experiments: the experiments by name.
        words: of the command line; only those that name a folder of an experiment count.

    Returns:
        Word → the files that belong into that folder.

    Raises:
        UnknownTargetError: a folder names a variant or sample that the experiment does not have.
    """
    folders = {}
    for word in words:
        path = Path(os.path.relpath(word))
        for targets in experiments.values():
            if path.is_relative_to(targets.layout.root):
                parts = list(path.relative_to(targets.layout.root).parts)
                files = targets.directory(parts) if parts and not path.suffix else None
                if files is not None:
                    folders[word] = files
    return folders


def _shortened(names: Iterable[str]) -> str:
    """Some names, each once, without the middle of a long list."""
    distinct = sorted(set(names))
    if len(distinct) <= MAX_NAMES:
        return ", ".join(distinct)
    return f"{', '.join(distinct[:3])} … {distinct[-1]} ({len(distinct)})"


def turns(study: Study) -> dict[str, tuple[int, int]]:
    """Experiment → (the turn of its model, its own place): models in the order in which the study first names them.

    The same for `EXPERIMENT/JUDGE`: models that judge come after all that answer.
    """
    answering: dict[str, int] = {}
    judging: dict[str, int] = {}
    for config in study.configs.values():
        answering.setdefault(config.model.model_dump_json(), len(answering))
        for judge in config.judges:
            if judge.served is not None:
                judging.setdefault(judge.served.model_dump_json(), len(judging))
    found = {}
    for place, (name, config) in enumerate(study.configs.items()):
        found[name] = answering[config.model.model_dump_json()], place
        for judge in config.judges:
            served = judge.served
            turn = found[name][0] if served is None else len(answering) + judging[served.model_dump_json()]
            found[f"{name}/{judge.outcome}"] = turn, place
    return found


def requests_in_flight(study: Study) -> int:
    """Return how many requests the servers of one kind take at once: `workers.requests` times their number."""
    return max(
        config.workers.requests * (len(config.workers.endpoints_of(kind)) or config.workers.started)
        for config in study.configs.values()
        for kind in config.server_kinds
    )


def budget(study: Study, experiments: Mapping[str, Targets]) -> str:
    """Summarise a plan in a line per experiment and one for all: trajectories, most tokens, servers."""
    lines = []
    total: Counter[str] = Counter()
    for name, config in study.configs.items():
        targets = experiments[name]
        steered = 0 if targets.steering is None else len(targets.steering.grid.trajectories)
        counts = {
            "trajectories": len(targets.pairs),
            "steered trajectories": steered,
            "tokens": (len(targets.pairs) * config.conversation.last_answer + steered) * config.generation.max_tokens,
            "measurements by teacher forcing": len(targets.outcomes()),
            "judgements": len(targets.judged),
            "activation folders": len(targets.captured) + len(targets.tokens_of),
        }
        lines.append(f"  {name}: {_counted(counts)}{_more(config)}")
        total.update(counts)
    if len(lines) == 1:
        return f"{lines[0].strip()}; {_servers(study)}"
    head = f"{study.name}: {len(lines)} experiments, {_counted(total)}; {_servers(study)}"
    return "\n".join(
        [head, *(lines if len(lines) <= MAX_LINES else [*lines[:MAX_LINES], f"  … and {len(lines) - MAX_LINES} more"])]
    )


def warnings(study: Study, experiments: Mapping[str, Targets]) -> list[str]:
    """Return warnings of a plan: damaged files, and analyses that cannot reach a verdict."""
    found = []
    for name, config in study.configs.items():
        targets = experiments[name]
        lines = [*check_records(targets.found or targets.layout), *few_texts(config)]
        if targets.steering is not None:
            lines += unreachable(targets.steering.grid)
        if config.has_probes:
            lines += unreachable_valence(config, targets.captured)
        lines += thinking_lines(config, targets.memory)
        lines += lone_judges(config)
        found += [f"{name}: {line}" for line in lines]
    return found


MAX_LINES = 24
SERVERS: dict[Backend, str] = {"vllm": "vLLM server", "api": "API", "nnsight": "NNsight server"}


def _counted(counts: Mapping[str, int]) -> str:
    captures = f", {counts['activation folders']:,} activation folders" if counts["activation folders"] else ""
    steered = f" and {counts['steered trajectories']:,} steered ones" if counts["steered trajectories"] else ""
    forced = counts["measurements by teacher forcing"]
    measured = f", {forced:,} measurements by teacher forcing" if forced else ""
    measured += f", {counts['judgements']:,} judgements" if counts["judgements"] else ""
    tokens = f"of at most {counts['tokens']:,} new tokens in all"
    return f"{counts['trajectories']:,} trajectories{steered} {tokens}{measured}{captures}"


def _more(config: Config) -> str:
    """Say what takes more trajectories than one for each variant and question."""
    parts = [f"{name} asked {variant.asks} times" for name, variant in config.variants.items() if variant.asks > 1]
    parts += [_plural(config.prompt.formats, "format")] if config.prompt.formats else []
    return f" ({', '.join(parts)})" if parts else ""


def _servers(study: Study) -> str:
    """Describe how many servers run at once, and for how many models in turn."""
    configs = list(study.configs.values())
    models = len({config.model.source for config in configs})
    turns = f", {models} models in turn" if models > 1 else ""
    words = []
    for kind, name in SERVERS.items():
        workers = [config.workers for config in configs if kind in config.server_kinds]
        if foreign := max((len(each.endpoints_of(kind)) for each in workers), default=0):
            words.append(_plural(foreign, f"{name} endpoint"))
        elif workers:
            count = _plural(max(each.started for each in workers), name)
            words.append(count + (" in SLURM jobs" if any(each.slurm for each in workers) else ""))
    judges = {judge.model: None for config in configs for judge in config.served_judges}
    later = f", then vLLM servers of {', '.join(judges)} to judge" if judges else ""
    return " and ".join(words) + turns + later


def _plural(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"
