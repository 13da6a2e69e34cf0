"""Tables of what the variants did."""

from __future__ import annotations

from emoprobe.results.catalogue.table import Column, Table

ACCURACY = Table(
    "accuracy",
    "Accuracy of each variant.",
    "analyze_behaviour",
    {
        "variant": Column("string", "Variant."),
        "valence": Column("string", "Its valence in the config."),
        "n": Column("Int64", "Graded trajectories."),
        "correct": Column("Int64", "Correct ones."),
        "accuracy": Column("float64", "Share of correct ones."),
        "low": Column("float64", "Lower end of the 95 % Wilson interval."),
        "high": Column("float64", "Upper end of the 95 % Wilson interval."),
        "difference": Column("float64", "Accuracy minus that of control, over the samples that both have."),
        "compliance": Column("float64", "Share of answers in the form that the prompt asks for."),
    },
)

PAIRED_TESTS = Table(
    "paired_tests",
    "Each variant against control on the same samples.",
    "analyze_behaviour",
    {
        "variant": Column("string", "Variant that is compared with control."),
        "n": Column("Int64", "Samples that both have a graded trajectory for."),
        "both": Column("Int64", "Samples that both solve."),
        "gained": Column("Int64", "Samples that only the variant solves."),
        "lost": Column("Int64", "Samples that only control solves."),
        "neither": Column("Int64", "Samples that neither solves."),
        "difference": Column("float64", "Accuracy of the variant minus that of control."),
        "low": Column("float64", "Lower end of its 95 % bootstrap interval over samples."),
        "high": Column("float64", "Upper end of the same."),
        "odds_ratio": Column("float64", "gained / lost, the conditional odds ratio; null where lost is 0."),
        "p": Column("float64", "Exact two-sided McNemar test."),
        "p_holm": Column("float64", "The same, corrected over all variants (Holm)."),
        "detectable": Column("float64", "Smallest difference that this n shows with 80 % power after the correction."),
    },
)

CHARACTERISTICS = Table(
    "characteristics",
    "The shape and tone of each variant's answers.",
    "analyze_behaviour",
    {
        "variant": Column("string", "Variant."),
        "measure": Column("string", "Column of the trajectories."),
        "n": Column("Int64", "Trajectories with a value."),
        "mean": Column("float64", "Mean."),
        "low": Column("float64", "Lower end of its 95 % bootstrap interval over samples."),
        "high": Column("float64", "Upper end of the same."),
        "difference": Column("float64", "Mean difference to control on the same samples."),
        "difference_low": Column("float64", "Lower end of its 95 % bootstrap interval over samples."),
        "difference_high": Column("float64", "Upper end of the same."),
        "effect_size": Column(
            "float64", "Mean difference over the standard deviation of the differences (Cohen's d_z)."
        ),
        "p": Column("float64", "Two-sided Wilcoxon signed-rank test of the differences."),
        "p_holm": Column("float64", "The same, corrected over all variants and measures (Holm)."),
    },
)

CONSISTENCY = Table(
    "consistency",
    "Who solves what together: every ordered pair of variants.",
    "analyze_behaviour",
    {
        "variant": Column("string", "Variant."),
        "other": Column("string", "Another variant, or the same for what concerns one alone."),
        "n": Column("Int64", "Samples that both have a graded trajectory for."),
        "agreement": Column("float64", "Share of samples on which both are right or both are wrong."),
        "kappa": Column("float64", "Cohen's κ of the same; null where both are constant."),
        "gained": Column("Int64", "Samples that the variant solves and the other does not."),
        "lost": Column("Int64", "Samples that the other solves and the variant does not."),
        "alone": Column(
            "Int64", "Samples that no other variant than this one solves (on the diagonal; null elsewhere)."
        ),
        "all_solve": Column("Int64", "Samples that every variant solves (the same in each row)."),
        "none_solves": Column("Int64", "Samples that no variant solves (the same in each row)."),
    },
)

WORKERS = Table(
    "workers",
    "How each worker fared.",
    "analyze_behaviour",
    {
        "worker": Column("string", "Worker."),
        "requests": Column("Int64", "Attempts sent there."),
        "answered": Column("Int64", "Attempts that it answered well."),
        "failures": Column("Int64", "Attempts that failed."),
        "retried_from": Column("Int64", "Pairs that it answered after another attempt had failed."),
        "completion_tokens": Column("Int64", "Tokens that it generated."),
        "tokens_per_second": Column(
            "float64", "Generated tokens per second between its first start and its last answer."
        ),
        "latency_p50": Column("float64", "Median seconds of an answered attempt."),
        "latency_p90": Column("float64", "90th percentile of the same."),
        "latency_p99": Column("float64", "99th percentile of the same."),
        "last_error": Column("string", "Last failure's reason; null: none."),
    },
)
