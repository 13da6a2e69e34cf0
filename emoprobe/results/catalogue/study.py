"""Tables of a study, which span its experiments."""

from __future__ import annotations

from emoprobe.results.catalogue.behaviour import ACCURACY, CONTRASTS
from emoprobe.results.catalogue.table import Column, Table

WHERE = {
    "experiment": Column("string", "Experiment."),
    "model": Column("string", "Its model's source."),
    "dataset": Column("string", "Its data set's source."),
}

STUDY_ACCURACY = Table(
    "study_accuracy",
    "Accuracy of each variant in each experiment.",
    "tabulate_study",
    {**WHERE, **ACCURACY.columns},
)

STUDY_CONTRASTS = Table(
    "study_contrasts",
    "Every contrast of every experiment.",
    "tabulate_study",
    {
        **WHERE,
        **CONTRASTS.columns,
        "p_study": Column(
            "float64",
            "p, corrected over the same family in all experiments of the study (Holm).",
        ),
        "verdict_study": Column("string", "The verdict with that correction."),
    },
)
