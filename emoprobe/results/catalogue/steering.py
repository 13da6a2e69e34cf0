"""Tables of what the model does under edits of its residual stream."""

from __future__ import annotations

from emoprobe.results.catalogue.table import Column, Table

DIRECTION = {
    "direction": Column("string", "Name of the direction; none: the unsteered model on the same server."),
    "family": Column(
        "string",
        "Where it comes from: tone (mean difference between a variant and the reference), probe (weights of a probe), "
        "feature, file; controls: random (same norm), shuffled (mean difference with shuffled labels); orthogonal "
        "(the tone's, made orthogonal to the filler's); none: unsteered.",
    ),
    "tone": Column("string", "Variant that the direction belongs to; null where it belongs to none."),
}

CELL = {
    "operation": Column("string", "add (dose times the layer's median norm, along it) or ablate; null: unsteered."),
    "phase": Column("string", "Tokens that are edited: prompt, generation or all; null: unsteered."),
    "layers": Column("string", "Layers whose output is edited, such as 12 or 10+12; null: unsteered."),
    "dose": Column("float64", "Signed, in median norms of the residual stream; 1 of ablate, 0 unsteered."),
    "variant": Column("string", "Variant whose prompt is answered."),
}

STEERING = Table(
    "steering",
    "Every trajectory of the steered half of the questions, steered or not: one row each.",
    "tabulate_steering",
    {
        **DIRECTION,
        **CELL,
        "sample_id": Column("string", "Sample; no direction was fitted on it."),
        "draw": Column("Int64", "Which completion of the pair, from 1."),
        "group": Column("string", "What the sample shares with others, such as its template; null where nothing."),
        "question": Column("string", "The question; copies of one under several ids are one unit."),
        "correct": Column("boolean", "Strict grade, as in trajectories."),
        "correct_lenient": Column("boolean", "Lenient grade, as in trajectories."),
        "log_p_gold": Column(
            "float64",
            "Log probability of the gold answer after the prompt under the edit, by teacher forcing: nats, summed over "
            "its tokens.",
        ),
        "completion_tokens": Column("Int64", "Tokens of the completion."),
        "truncated": Column("boolean", "Whether the completion was cut off at max_tokens."),
        "compliant": Column("boolean", "Whether the answer was given in the form that the prompt asks for."),
        "extraction": Column("string", "How the answer was found, as in trajectories."),
        "repetition": Column(
            "float64", "Share of the completion's n-grams that occurred in it before (n = 4, in short ones 3)."
        ),
        "perplexity": Column("float64", "Of the unedited model on the completion; null where it is empty."),
        "kl": Column(
            "float64", "Divergence of the edited model's next-token distributions from the unedited one's: nats, mean "
            "over the first tokens after the prompt."
        ),
        "edited_tokens": Column("Int64", "Tokens that the server says it edited; 0 unsteered."),
        "error": Column("string", "Why there is no answer, or no score; null where there are both."),
    },
)  # fmt: skip

STEERING_EFFECTS = Table(
    "steering_effects",
    "What each dose does to each outcome, beside what the random directions do.",
    "analyze_steering",
    {
        **DIRECTION,
        **CELL,
        "outcome": Column(
            "string", "log_p_gold is the primary one; correct, completion_tokens, repetition, perplexity (as its "
            "natural logarithm) and kl are secondary: described, not tested."
        ),
        "estimate": Column(
            "float64", "Mean difference to the unsteered trajectories of the same variant and questions; of kl a mean."
        ),
        "low": Column(
            "float64", "Lower end of its 95 % interval over questions, or groups of them; null below 8 questions or "
            "where nothing varies."
        ),
        "high": Column("float64", "Upper end of the same."),
        "n": Column("Int64", "Questions; draws of one are averaged."),
        "deviation": Column("float64", "Standard deviation of the questions' differences."),
        "wrong_way": Column("float64", "Share of the questions that moved against the mean."),
        "controls": Column("Int64", "Random directions that ran this cell."),
        "shared_n": Column("Int64", "Questions that these and this direction have in common."),
        "shared_estimate": Column("float64", "The estimate on those alone: what is compared with the band."),
        "control_low": Column(
            "float64", "2.5 % quantile of the random directions' estimates on the same questions; null without any."
        ),
        "control_high": Column("float64", "97.5 % quantile of the same."),
        "p": Column(
            "float64", "Of the primary outcome of a tested direction: rank of the distance from 0 among the random "
            "directions', (1 + those as far) / (1 + all); of this cell alone."
        ),
        "p_corrected": Column(
            "float64", "As p in steering_tests: against the largest standardised distance of each random and each "
            "shuffled-label direction in any coherent cell; null where this one is not coherent."
        ),
        "coherent": Column(
            "boolean", "Whether perplexity and repetition stay within the limits of the config at this dose and at all "
            "smaller ones of its sign."
        ),
    },
)  # fmt: skip

STEERING_TESTS = Table(
    "steering_tests",
    "The test of each direction that is no control: one row, one p value.",
    "analyze_steering",
    {
        **DIRECTION,
        "verdict": Column("string", "found, not_found, or note where no verdict can be reached."),
        "reason": Column("string", "Why there is no verdict; null where there is one."),
        "controls": Column("Int64", "Random directions that ran the same cells."),
        "controls_needed": Column("Int64", "How many the correction over the family's directions takes."),
        "shuffled": Column("Int64", "Shuffled-label directions, of all tones, that did so; 0 if it is no tone's."),
        "shuffled_needed": Column("Int64", "How many of these the correction takes."),
        "texts": Column(
            "Int64", "Texts of the tone that its directions were fitted on, where the reference's go with them; 0 if "
            "unknown, null if it is no tone's."
        ),
        "texts_needed": Column("Int64", "How many a verdict takes."),
        "questions": Column("Int64", "Least questions of a cell that the direction shares with the controls."),
        "cells": Column("Int64", "Cells that are coherent and searched: layers × doses × variants × phases."),
        "p": Column("float64", "The larger of the two below: it has to stand out among both kinds of controls."),
        "p_random": Column(
            "float64", "Rank of the largest standardised |effect| on log_p_gold among that of the random directions on "
            "the same questions, each in its own coherent cells: (1 + those as large) / (1 + all)."
        ),
        "p_shuffled": Column(
            "float64", "The same among the shuffled-label directions, which lie where activations vary; null if it is "
            "no tone's."
        ),
        "p_holm": Column("float64", "p, corrected over the tested directions of its family (Holm)."),
        "operation": Column("string", "Of the cell with the largest; add, as lengths are equal there alone."),
        "phase": Column("string", "Its phase."),
        "layers": Column("string", "Its layers."),
        "dose": Column("float64", "Its dose."),
        "variant": Column("string", "Its variant."),
        "n": Column("Int64", "Questions there."),
        "estimate": Column("float64", "Effect on log_p_gold there, in nats, on all of the direction's questions."),
        "low": Column("float64", "Lower end of its 95 % interval, which holds for all cells searched (Bonferroni)."),
        "high": Column("float64", "Upper end of the same."),
        "wrong_way": Column("float64", "Share of the questions that moved against the mean there."),
        "correct": Column("float64", "Effect on the share of right answers there (secondary)."),
        "correct_low": Column("float64", "Lower end of its 95 % interval, not corrected."),
        "correct_high": Column("float64", "Upper end of the same."),
        "dose_low": Column("float64", "Lowest dose with coherent text at these layers; 0 where no negative one is."),
        "dose_high": Column("float64", "Highest one."),
        "detectable": Column(
            "float64", "|Effect| on log_p_gold, in nats, that would have been found with 80 % in the cell where it is "
            "least, from the random directions' spread and the questions'."
        ),
        "detectable_layers": Column("string", "The layers of that cell."),
        "detectable_dose": Column("float64", "Its dose."),
    },
)  # fmt: skip

STEERING_MEDIATION = Table(
    "steering_mediation",
    "How a tone's effect changes when its direction is ablated.",
    "analyze_steering",
    {
        "tone": Column("string", "The tone."),
        "reference": Column("string", "Variant that its effect is measured against."),
        "direction": DIRECTION["direction"],
        "family": DIRECTION["family"],
        "phase": CELL["phase"],
        "layers": CELL["layers"],
        "outcome": Column("string", "log_p_gold (primary) or correct."),
        "n": Column("Int64", "Questions with all of the trajectories that this needs."),
        "unit": Column("string", "What is independent: texts, questions, or groups of questions."),
        "effect": Column("float64", "Tone minus reference, unsteered, on these questions."),
        "effect_low": Column("float64", "Lower end of its 95 % interval; null where there are too few units."),
        "effect_high": Column("float64", "Upper end of the same."),
        "ablated": Column("float64", "The same with the direction ablated."),
        "ablated_low": Column("float64", "Lower end of its 95 % interval."),
        "ablated_high": Column("float64", "Upper end of the same."),
        "reference_ablated": Column(
            "boolean", "Whether it is ablated in the reference too; if not, what it does to any prompt is part of "
            "the change."
        ),
        "coherent": Column(
            "boolean", "Whether the text under the ablation is within the limits of the config, in the reference as "
            "well where it is ablated there."
        ),
        "change": Column("float64", "ablated minus effect."),
        "low": Column("float64", "Lower end of its 95 % interval."),
        "high": Column("float64", "Upper end of the same."),
        "controls": Column("Int64", "Random directions that were ablated on the same questions."),
        "control_low": Column("float64", "2.5 % quantile of the change when these are ablated; null without any."),
        "control_high": Column("float64", "97.5 % quantile of the same."),
        "share": Column(
            "float64", "Share of the effect that goes, minus change over effect; only where the tone is `different` in "
            "paired_tests and the interval of effect excludes 0."
        ),
        "share_low": Column("float64", "Lower end of its 95 % interval (Fieller 1954)."),
        "share_high": Column("float64", "Upper end of the same."),
    },
)  # fmt: skip
