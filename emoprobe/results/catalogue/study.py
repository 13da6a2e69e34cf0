"""Tables of a study, which span its experiments."""

from __future__ import annotations

from emoprobe.results.catalogue.behaviour import ACCURACY, PAIRED_TESTS
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

STUDY_PAIRED_TESTS = Table(
    "study_paired_tests",
    "Every variant against every reference, in each experiment.",
    "tabulate_study",
    {
        **WHERE,
        **PAIRED_TESTS.columns,
        "p_study": Column("float64", "p, corrected over the family in all experiments together (Holm)."),
        "p_equivalent_study": Column("float64", "p_equivalent, corrected in the same way."),
        "verdict_study": Column("string", "The verdict with these corrections."),
    },
)
