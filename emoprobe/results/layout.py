"""Where every file of an experiment lies: the one place that spells the layout out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

TRAJECTORY_FILES = ("trajectory.jsonl", "agent_state.json", "sample.json")
ACTIVATION_FILES = ("activations.safetensors", "metadata.json")
SCORES = "scores.json"
OUTCOMES_FILE = "outcomes.json"  # beside a trajectory: what graders measured by requests to the model
AUTOENCODER_FILES = ("cfg.json", "sae_weights.safetensors")
# The jobs of which there is one for each of many files; their logs lie in folders that are named like the files.
JobKind = Literal["sample", "generate", "outcomes", "judge", "capture", "tokens", "direction", "steer", "score"]
JOB_KINDS: tuple[JobKind, ...] = get_args(JobKind)
RESULTS = Path("results")
# A sample's id has a prefix and ends in its number, or in an id of the data set, which does not end like this.
_DRAW = re.compile(r"(?P<sample>.+_.+)-d(?P<draw>[2-9]|[1-9]\d+)")


def draw_id(sample: str, draw: int) -> str:
    """The folder name of a draw, counted from 1: the sample's id, and `-d2`, `-d3` … for further draws."""
    return sample if draw == 1 else f"{sample}-d{draw}"


def split_draw_id(name: str) -> tuple[str, int]:
    """The sample's id and the draw, from 1, of a folder name; the reverse of `draw_id`.

    Another name is that of a sample's first draw. In folders of other programs a name can end like a draw and be none:
    see `Layout.drawn`.
    """
    match = _DRAW.fullmatch(name)
    return (match["sample"], int(match["draw"])) if match else (name, 1)


def condition_folder(direction: str, operation: str, phase: str, layers: str, dose: float) -> str:
    """Return the folder of a condition below `steering/`; `layers` is such as `10+12`."""
    return f"{direction}/{operation}-{phase}/L{layers}/d{dose:g}"


MODELS = RESULTS / "models"


@dataclass(frozen=True)
class Layout:
    """The files of one experiment. Every attribute is a path; `{variant}` and `{sample}` are arguments."""

    root: Path

    @classmethod
    def of(cls, experiment: str, results: Path = RESULTS) -> Layout:
        """The layout of an experiment by its name."""
        return cls(results / experiment)

    @property
    def resolved_yaml(self) -> Path:
        """The config with every default written out."""
        return self.root / "experiment.yaml"

    @property
    def resolved_json(self) -> Path:
        """The same as JSON."""
        return self.root / "experiment_config.json"

    @property
    def metadata(self) -> Path:
        """Provenance: versions, commit, model, seed."""
        return self.root / "metadata.json"

    @property
    def plan(self) -> Path:
        """The preregistration, written before the first answer."""
        return self.root / "analysis_plan.json"

    @property
    def registrations(self) -> Path:
        """Every plan that was written, a line each. No rule makes it, so none deletes it."""
        return self.root / "preregistrations.jsonl"

    @property
    def api_calls(self) -> Path:
        """Every call of an API and its cost. No rule makes it, so none deletes it."""
        return self.root / "api_calls.jsonl"

    @property
    def model(self) -> Path:
        """The model card."""
        return self.root / "model.json"

    @property
    def manifest(self) -> Path:
        """Locations and hashes of the activations."""
        return self.root / "activations_manifest.json"

    @property
    def shards(self) -> Path:
        """The shards in object storage that hold the activations. No rule makes it, so no failed job removes it."""
        return self.root / "activations_shards.json"

    @property
    def pushed(self) -> Path:
        """Record of the activations that were pushed."""
        return self.root / "activations_pushed.json"

    @property
    def pulled(self) -> Path:
        """Record of the activations that were pulled."""
        return self.root / "activations_pulled.json"

    @property
    def verified(self) -> Path:
        """Result of the check of every trajectory and activation folder."""
        return self.root / "verified.json"

    @property
    def report(self) -> Path:
        """Headline numbers."""
        return self.root / "report.json"

    @property
    def report_html(self) -> Path:
        """The report to read."""
        return self.root / "report.html"

    @property
    def explorer(self) -> Path:
        """The page that shows every conversation; its scripts and data lie beside it."""
        return self.root / "explorer" / "index.html"

    def sample(self, sample: str) -> Path:
        """One question with its gold answer."""
        return self.root / "samples" / f"{sample}.json"

    def pair(self, variant: str, sample: str) -> Path:
        """The folder of one trajectory."""
        return self.root / variant / sample

    def judgement(self, judge: str, variant: str, sample: str) -> Path:
        """What a model that grades said of one trajectory."""
        return self.root / "judgements" / judge / variant / f"{sample}.json"

    def judge_model(self, judge: str) -> Path:
        """The card of a judge's model, where the run serves it."""
        return self.root / "judgements" / judge / "model.json"

    @property
    def to_label(self) -> Path:
        """Answers for people to label, in the order in which they are to be labelled."""
        return self.root / "judgements" / "to_label.csv"

    def drawn(self, name: str) -> tuple[str, int]:
        """Return the sample's id and the draw, from 1, of the name of a trajectory's folder.

        Without a config, only a name beside a first draw or a sample is that of a further draw: other programs may name
        a question `day_3-d2`.
        """
        sample, draw = split_draw_id(name)
        if draw == 1 or self.resolved_yaml.exists() or self.sample(sample).exists():
            return sample, draw
        variants = (folder for part in (self.root, self.root / "activations") for folder in part.glob("*"))
        return (sample, draw) if any((variant / sample).is_dir() for variant in variants) else (name, 1)

    def activations(self, variant: str, sample: str) -> Path:
        """The folder of one trajectory's activations."""
        return self.root / "activations" / variant / sample

    def direction(self, name: str) -> Path:
        """A direction that trajectories are steered along."""
        return self.root / "steering" / "directions" / f"{name}.safetensors"

    def steered(self, condition: str, variant: str, sample: str) -> Path:
        """The folder of one steered trajectory; `condition` is `{direction}/{operation}-{phase}/L{layers}/d{dose}`."""
        return self.root / "steering" / condition / variant / sample

    def tokens(self, variant: str, sample: str) -> Path:
        """The folder of one trajectory's activations at every token, at the layer of the features."""
        return self.root / "features" / "tokens" / variant / sample

    def autoencoder(self, name: str) -> Path:
        """The folder of an autoencoder that was trained."""
        return self.root / "features" / "autoencoders" / name

    def checkpoint(self, name: str) -> Path:
        """Return the path of the checkpoint of an autoencoder's training."""
        return self.root / "features" / "checkpoints" / f"{name}.safetensors"

    def feature_directions(self) -> Path:
        """Decoder directions of the features that were tested."""
        return self.root / "features" / "directions.safetensors"

    def table(self, name: str) -> Path:
        """A Parquet table."""
        return self.root / "tables" / f"{name}.parquet"

    def figure(self, name: str) -> Path:
        """A figure."""
        return self.root / "figures" / f"{name}.svg"

    def directions(self) -> Path:
        """Probe and difference-of-means directions."""
        return self.root / "probes" / "directions.safetensors"

    def log(self, *parts: str) -> Path:
        """The log of a job or server."""
        return self.root.joinpath("logs", *parts).with_suffix(".log")

    def benchmark(self, name: str) -> Path:
        """Time and memory of a job."""
        return self.root / "benchmarks" / f"{name}.tsv"
