"""Tables of the probes and directions."""

from __future__ import annotations

from emoprobe.results.catalogue.table import Column, Table

PROBES = Table(
    "probes",
    "Every probe: a row for each target, hook point, position and layer.",
    "probe_activations",
    {
        "target": Column("string", "What is read off: variant, valence or correct."),
        "hook_point": Column("string", "Hook point."),
        "position": Column("string", "Position."),
        "layer": Column("Int64", "Layer."),
        "skipped": Column("string", "Why there is no probe; null where there is one."),
        "n": Column("Int64", "Trajectories."),
        "samples": Column("Int64", "Samples that they come from."),
        "d": Column("Int64", "Features."),
        "classes": Column("Int64", "Classes."),
        "accuracy": Column("float64", "Held-out accuracy; rows of one sample are never on both sides."),
        "balanced_accuracy": Column("float64", "Mean recall over classes."),
        "auroc": Column("float64", "Area under the ROC curve, one class against the rest, mean over folds."),
        "auroc_low": Column("float64", "Lower end of its 95 % bootstrap interval over samples."),
        "auroc_high": Column("float64", "Upper end of the same."),
        "majority": Column("float64", "Accuracy of always guessing the commonest class."),
        "permutation_auroc": Column("float64", "Mean AUROC of the same probe on permuted labels."),
        "permutation_auroc_high": Column("float64", "Largest of the same."),
        "control_accuracy": Column(
            "float64", "Accuracy on the control task: labels that depend on the text alone, at random."
        ),
        "selectivity": Column("float64", "accuracy minus control_accuracy (Hewitt & Liang 2019)."),
        "strength": Column("float64", "Inverse strength C of the penalty, median over folds."),
    },
)

PROBE_TRANSFER = Table(
    "probe_transfer",
    "Probes tested where they were not trained.",
    "probe_activations",
    {
        "kind": Column(
            "string",
            "position: trained at one position, tested at another; text: tested on a "
            "paraphrase that was held out; variant: tested on a variant that was held out.",
        ),
        "target": Column("string", "What is read off."),
        "hook_point": Column("string", "Hook point."),
        "layer": Column("Int64", "Layer."),
        "train": Column("string", "Position that it was trained at, or what was held out."),
        "test": Column("string", "Position that it was tested at."),
        "n": Column("Int64", "Held-out trajectories."),
        "accuracy": Column("float64", "Held-out accuracy."),
        "auroc": Column("float64", "Held-out AUROC; null where the held-out rows have one class only."),
    },
)

DIRECTION_COSINES = Table(
    "direction_cosines",
    "Cosines between the variants' directions.",
    "probe_activations",
    {
        "hook_point": Column("string", "Hook point."),
        "position": Column("string", "Position."),
        "layer": Column("Int64", "Layer."),
        "variant": Column("string", "Variant."),
        "other": Column("string", "Another variant, or the same."),
        "cosine": Column("float64", "Cosine between their mean differences to control."),
        "norm": Column(
            "float64", "Length of the variant's mean difference to control (on the diagonal; null elsewhere)."
        ),
        "explained": Column(
            "float64",
            "Share of the variance of the differences to control that lies along their "
            "mean direction (on the diagonal; null elsewhere).",
        ),
    },
)

VARIANT_PLANE = Table(
    "variant_plane",
    "The variants' means in their principal plane.",
    "probe_activations",
    {
        "hook_point": Column("string", "Hook point."),
        "position": Column("string", "Position."),
        "layer": Column("Int64", "Layer."),
        "variant": Column("string", "Variant."),
        "pc1": Column("float64", "First principal coordinate of the variant's mean activation."),
        "pc2": Column("float64", "Second principal coordinate."),
        "explained1": Column("float64", "Share of the variance between variants along the first axis."),
        "explained2": Column("float64", "Share along the second axis."),
    },
)
