"""Tables of the probes and directions."""

from __future__ import annotations

from emoprobe.results.catalogue.table import Column, Table

PROBES = Table(
    "probes",
    "Every probe: a row for each target, hook point, position and layer.",
    "probe_activations",
    {
        "target": Column(
            "string",
            "What is read off: valence (negative against positive variants, judged on variants that were left out), "
            "correct, or variant, which is a manipulation check.",
        ),
        "hook_point": Column("string", "Hook point."),
        "position": Column("string", "Position."),
        "layer": Column("Int64", "Layer."),
        "skipped": Column("string", "Why there is no probe; null where there is one."),
        "n": Column("Int64", "Trajectories."),
        "samples": Column("Int64", "Questions that they come from."),
        "d": Column("Int64", "Features."),
        "classes": Column("Int64", "Classes."),
        "auroc": Column(
            "float64", "Held-out area under the ROC curve, mean over folds; of variant: one against the rest, mean."
        ),
        "auroc_low": Column(
            "float64",
            "Lower end of its 95 % interval over groups of questions; null below 20 and for variants as units.",
        ),
        "auroc_high": Column("float64", "Upper end of the same."),
        "null_high": Column(
            "float64", "95 % quantile of the same probe's area under permuted labels, at this cell alone."
        ),
        "p": Column(
            "float64",
            "Permutation test, corrected over all cells of the target by their largest: of the area for valence, of "
            "what activations add to the nuisance features for correct.",
        ),
        "diff_means_auroc": Column("float64", "Area of a plain difference of means on the same folds."),
        "nuisance_auroc": Column(
            "float64",
            "Area of the nuisance features on the same folds: of valence those that are taken out, of correct length, "
            "truncation and format, length and numbers of the question, and at response positions the words.",
        ),
        "gain": Column("float64", "auroc minus nuisance_auroc."),
        "added": Column(
            "float64", "Of correct: area of nuisance features and activations together minus nuisance_auroc; else null."
        ),
        "accuracy": Column("float64", "Of variant: share of held-out rows whose variant is named; else null."),
        "control_accuracy": Column(
            "float64",
            "The same on control tasks, mean: each text has a class at random. Null where a variant has one text.",
        ),
        "selectivity": Column("float64", "accuracy minus control_accuracy (Hewitt & Liang 2019)."),
    },
)

PROBE_TESTS = Table(
    "probe_tests",
    "The test of each target: one row, one p value, not corrected across targets.",
    "probe_activations",
    {
        "target": Column(
            "string", "What is read off; correct_within: right against wrong answers to the same question."
        ),
        "verdict": Column("string", "found, not_found, not_separable, or note where no verdict can be reached."),
        "reason": Column("string", "Why there is no verdict; null where there is one."),
        "unit": Column("string", "What is independent, and permuted: variants for valence, questions for correct."),
        "units": Column("Int64", "How many there are; groups count where questions have any."),
        "classes": Column("string", "Units of each class, or rows for correct."),
        "permutations": Column("Int64", "Permutations, the real labels among them."),
        "exact": Column("boolean", "Whether these are all there are."),
        "smallest_p": Column("float64", "Smallest p that they allow."),
        "cells": Column("Int64", "Cells that were tested: layers × positions × hook points."),
        "p": Column(
            "float64",
            "What the verdict follows from: p_permuted; of correct the largest of that, p_untruncated and the p by "
            "the interval of added, so that nothing is found whose interval includes 0; 1 where nothing is added.",
        ),
        "p_permuted": Column(
            "float64", "Share of the permutations whose largest cell reaches the largest of the real labels."
        ),
        "p_untruncated": Column(
            "float64", "p_permuted of answers that were not cut off; null where none was, and for other targets."
        ),
        "hook_point": Column("string", "Of the cell that most training sets choose (of variant: the largest)."),
        "position": Column("string", "Its position."),
        "layer": Column("Int64", "Its layer."),
        "agreement": Column("float64", "Share of the training sets that choose this cell."),
        "n": Column("Int64", "Trajectories."),
        "auroc": Column(
            "float64",
            "Area on what each training set leaves out, of the cell chosen inside of it (of variant: the largest).",
        ),
        "auroc_low": Column("float64", "Lower end of its 95 % interval over groups of questions; null below 20."),
        "auroc_high": Column("float64", "Upper end of the same."),
        "nuisance_auroc": Column("float64", "Area of the nuisance features on the same folds."),
        "gain": Column("float64", "auroc minus nuisance_auroc."),
        "diff_means_auroc": Column("float64", "Area of a plain difference of means in the same cells."),
        "added": Column("float64", "Of correct: what activations add to the area of the nuisance features."),
        "added_low": Column("float64", "Lower end of its 95 % interval over groups of questions; null below 20."),
        "added_high": Column("float64", "Upper end of the same."),
        "added_untruncated": Column("float64", "added, on answers that were not cut off."),
        "words_auroc": Column("float64", "Of valence: area of the words of the variants' texts, which is not tested."),
        "controlled": Column("string", "Of valence: what is taken out of the activations at the chosen positions."),
        "inseparable": Column(
            "string",
            "Of valence: what differs too much between the valences to be taken out, and at which positions, which are "
            "left out of the test.",
        ),
    },
)

PROBE_TRANSFER = Table(
    "probe_transfer",
    "Probes tested where they were not trained.",
    "probe_activations",
    {
        "kind": Column(
            "string",
            "position: trained at one position, tested at another; text: tested on a text of each variant that was "
            "left out; variant: tested on a variant that was left out (valence: against those of the other valence).",
        ),
        "target": Column("string", "What is read off."),
        "hook_point": Column("string", "Hook point."),
        "layer": Column("Int64", "Layer."),
        "train": Column("string", "Position that it was trained at, or what was held out."),
        "test": Column("string", "Position that it was tested at."),
        "n": Column("Int64", "Held-out trajectories."),
        "auroc": Column(
            "float64", "Held-out area under the ROC curve; null where the held-out rows have one class only."
        ),
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
        "cosine": Column(
            "float64",
            "Cosine between their mean differences to the reference over disjoint halves of the questions, mean over "
            "ten halvings; on the diagonal, how well the halves agree on one direction.",
        ),
        "low": Column(
            "float64", "Lower end of its 95 % jackknife interval over questions; null below 20 groups of them."
        ),
        "high": Column("float64", "Upper end of the same."),
        "norm": Column(
            "float64", "Length of the variant's mean difference to the reference (on the diagonal; null elsewhere)."
        ),
        "explained": Column(
            "float64",
            "Share of the variance of the differences to the reference that lies along their "
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
