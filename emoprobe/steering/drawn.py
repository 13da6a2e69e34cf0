"""The steering grid of an experiment whose model and data are there.

It is no part of `grid`, whose code decides directions: the questions and the model are parameters of the rules.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from emoprobe.config.experiment import Config
from emoprobe.conversations.samples import draw, located
from emoprobe.conversations.sources import hub, kind_of
from emoprobe.models.settings import known_size, layer_count
from emoprobe.models.source import ModelCard
from emoprobe.results.layout import Layout
from emoprobe.steering.grid import SteeringGrid, captured_questions, question_key


def drawn_grid(config: Config, layout: Layout, folder: Path = Path()) -> SteeringGrid:
    """Return the grid of an experiment whose model is prepared; opens the data set for its questions and their groups.

    Of data of the hub, which a plan does not open, copies of a question are not known.

    Args:
        config: the experiment.
        layout: its files.
        folder: where a relative path of a data set starts.

    Raises:
        DataError: the questions cannot be drawn.
    """
    drawn = islice(draw(located(config.dataset, folder), config.experiment.seed), captured_questions(config))
    known = [(sample.group, question_key(sample.question)) for sample in drawn]
    groups, questions = tuple(group for group, _ in known), tuple(question for _, question in known)
    if kind_of(config.dataset.source) is hub.KIND:
        questions = ()
    depth = layer_count(Path(ModelCard.read(layout.model).path)) or known_size(config.model)[0]
    return SteeringGrid(config, groups, depth, questions)
