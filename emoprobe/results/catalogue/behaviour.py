"""Tables of the trajectories, of what the variants did, and of a study."""

from __future__ import annotations

from emoprobe.results.catalogue.table import Column, Table

TRAJECTORIES = Table(
    "trajectories",
    "Every trajectory, graded: one row each.",
    "tabulate_trajectories",
    {
        "variant": Column("string", "Variant."),
        "sample_id": Column("string", "Sample; the same question for all variants and draws."),
        "draw": Column(
            "Int64", "Which completion of the pair, from 1; above 1 in folders that end in `-d2` and so on."
        ),
        "group": Column("string", "What the sample shares with others, such as its template; null where nothing."),
        "valence": Column("string", "Valence of the variant in the config; null where it has none."),
        "asks": Column(
            "Int64", "How many times the variant asks each question, with another text each; null where not known."
        ),
        "paraphrase": Column("Int64", "Which of the variant's texts, from 0; null where it has none."),
        "question": Column("string", "Question, without variant and template."),
        "gold": Column(
            "string",
            "Gold answer: a number in canonical notation, the letter of an option, or a text; null: there is none.",
        ),
        "completion": Column(
            "string", "What the model wrote after its thought, as the grader reads it; null where no server answered."
        ),
        "extracted": Column("string", "Extracted answer in canonical notation; null: none found."),
        "correct": Column(
            "boolean",
            "Strict: whether an answer that is marked as final, or is the whole completion, equals the gold answer, in "
            "a finished completion and not within an unfinished thought.",
        ),
        "turns": Column("Int64", "Answers in the conversation; the columns of the answer are of the last one."),
        "correct_first": Column("boolean", "Strict grade of the first answer, which `correct` is of the last one."),
        "survived": Column("boolean", "`correct` where the first answer is right; null elsewhere."),
        "lenient": Column("boolean", "Whether the extracted answer equals the gold answer, however it was found."),
        "extraction": Column(
            "string",
            "How the answer was found: marker (also: the whole completion), boxed, last_number, letter (the last one) "
            "or none (also: a marked answer that is not one value).",
        ),
        "compliant": Column("boolean", "Whether the answer was given in the form that the prompt asks for."),
        "p_gold": Column(
            "Float64",
            "Probability of the gold answer by teacher forcing, after the prompt or the thought, in [0, 1]; null where "
            "it was not measured.",
        ),
        "log_p_gold": Column("Float64", "Its natural logarithm, in nats."),
        "efficiency": Column("Float64", "Share of the token budget left unspent."),
        "truncated": Column("boolean", "Whether the completion was cut off at max_tokens."),
        "prompt_tokens": Column("Int64", "Tokens of the prompt."),
        "completion_tokens": Column("Int64", "Tokens of the completion, the thought included."),
        "thought_tokens": Column("Int64", "Tokens of the thought before the answer; null where none is recorded."),
        "thought_cut_off": Column("boolean", "Whether the completion was cut off at max_tokens within a thought."),
        "characters": Column("Int64", "Characters of the completion."),
        "steps": Column("Int64", "Reasoning steps: non-empty lines, or sentences where it is one line."),
        "polarity": Column("Float64", "Tone of the completion, -1 negative to 1 positive (TextBlob)."),
        "subjectivity": Column("Float64", "0 factual to 1 personal (TextBlob)."),
        "worker": Column("string", "Worker that answered."),
        "hardware": Column("string", "What that worker ran on; null where that is not known."),
        "attempts": Column("Int64", "Attempts, the good one included."),
        "started": Column("string", "Start of the good attempt, UTC."),
        "seconds": Column("Float64", "Duration of the good attempt."),
        "failed_attempts": Column("string", "JSON list of the failed attempts: worker, started, seconds, error."),
        "failure": Column(
            "string", "Why no server answered, so that all columns of the answer are null; null where one did."
        ),
    },
    {
        "outcome_": "Value of the grader with this label (`graders`): true or false, a number, or a category; null "
        "where it gave none.",
        "judged_": "What came of the judgement by the judge with this label: value, unusable (no value in the "
        "reply, or nothing to judge) or failed; null without a judgement.",
        "quotes_": "Whether the answer that it judged, or the one that this is compared with, holds the text of its "
        "variant; null without a judgement.",
        "orders_": "How the replies of a judge that compares go together in both orders: same (also where none is "
        "better in both), first or second (the answer in that place in both), or tie (none is better in one order "
        "alone); null without a value.",
    },
)


INTERVAL = "95 % interval over the variant's texts, or over questions where it has fewer than 24"

ACCURACY = Table(
    "accuracy",
    "Accuracy of each variant.",
    "analyze_behaviour",
    {
        "variant": Column("string", "Variant."),
        "valence": Column("string", "Its valence in the config."),
        "texts": Column("Int64", "Texts that it is known through; 0 where it has none."),
        "n": Column("Int64", "Graded trajectories."),
        "correct": Column("Int64", "Correct ones, graded strictly: a marked final answer in a finished completion."),
        "accuracy": Column("float64", "Share of correct ones."),
        "low": Column("float64", f"Lower end of its {INTERVAL}; null below 8 questions."),
        "high": Column("float64", "Upper end of the same."),
        "lenient": Column("float64", "Share that is correct by the last number or letter, marked or not."),
        "lenient_low": Column("float64", f"Lower end of its {INTERVAL}."),
        "lenient_high": Column("float64", "Upper end of the same."),
        "compliance": Column("float64", "Share of answers in the form that the prompt asks for."),
        "truncated": Column("float64", "Share that was cut off at max_tokens."),
        "marker": Column("float64", "Share whose answer was read off after a marker such as `Answer:`."),
        "boxed": Column("float64", "Share whose answer was read off a box."),
        "letter": Column("float64", "Share whose answer is a letter."),
        "last_number": Column("float64", "Share whose answer is the last number, for want of a marked one."),
        "none": Column("float64", "Share with no answer to read off."),
        "failures": Column("Int64", "Trajectories that no server answered; they are in no other column but the next."),
        "if_failures_wrong": Column("float64", "Accuracy if all of those were wrong."),
        "if_failures_right": Column("float64", "Accuracy if all of those were right."),
    },
)

OUTCOMES = Table(
    "outcomes",
    "Mean of each outcome in each variant, in the order of the graders.",
    "analyze_behaviour",
    {
        "outcome": Column("string", "Label of the grader."),
        "measure": Column("string", "Column of the trajectories, or COLUMN=CATEGORY, as in `paired_tests`."),
        "value": Column("string", "Type of its value: binary, number, category or preference."),
        "category": Column("string", "Category that the row is about; null unless the value is one."),
        "variant": Column("string", "Variant."),
        "valence": Column("string", "Its valence in the config."),
        "n": Column("Int64", "Trajectories with a value."),
        "missing": Column(
            "Int64", "Trajectories without one, as are all of a reference that others are compared with."
        ),
        "mean": Column("float64", "Share of true values, or of the category, or mean number; over questions."),
        "low": Column("float64", f"Lower end of its {INTERVAL}; null below 8 questions or where nothing varies."),
        "high": Column("float64", "Upper end of the same."),
    },
)

PAIRED_TESTS = Table(
    "paired_tests",
    "The planned contrasts, and every variant against every reference, on the same questions.",
    "analyze_behaviour",
    {
        "variant": Column("string", "Variant that is compared; of a planned contrast the name of its first side."),
        "reference": Column("string", "Variant, or side, that it is compared with."),
        "measure": Column(
            "string",
            "correct: strict grade; lenient: lenient grade; untruncated: strict grade of questions on which neither "
            "completion was cut off: described and not tested, as the outcome selects these questions; p_gold: "
            "probability of the gold answer, where `graders` has logprob; survived: strict grade of the last answer on "
            "questions that were answered right at first, where tones come in after that; outcome_LABEL: value of "
            "another grader, or outcome_LABEL=CATEGORY the share of one of its categories.",
        ),
        "value": Column(
            "string",
            "Type of the outcome: binary, number, category, or preference: the share of both orders in which a judge "
            "prefers the answer to that of its reference. The difference is then the share of pairs in which the "
            "variant is preferred minus that in which the reference is, and there are no rows of other contrasts.",
        ),
        "family": Column(
            "string",
            "planned: strict grade of a planned contrast; primary: strict grade against the primary reference; "
            "secondary: all else. Of p_gold the same with logprob_ before, of survived with survival_, of other "
            "outcomes with their label; all categories of one are in one family. Each is corrected alone.",
        ),
        "scope": Column(
            "string",
            "tone: either side that adds a text has at least 24, so that the row speaks for others; texts: it is about "
            "the texts used.",
        ),
        "unit": Column(
            "string",
            "What the method counts: texts; of scope texts, and where each question has a text of its own, questions, "
            "or groups of them.",
        ),
        "texts": Column(
            "Int64",
            "Texts of the variant, of several the least; 0: it has none, or which question had which is unknown.",
        ),
        "reference_texts": Column("Int64", "Texts of the reference."),
        "groups": Column(
            "Int64",
            "Groups, such as templates, that these questions come from; what is shared in a group widens the interval. "
            "Null where no group has two questions, or there are fewer than 8.",
        ),
        "n": Column("Int64", "Questions that both have a graded trajectory for."),
        "missing": Column(
            "Int64",
            "Trajectories of both that are absent, unanswered or ungraded; interval and p hold whatever they would be.",
        ),
        "both": Column(
            "float64",
            "Questions that both solve; with several draws the mean over pairs of draws. Of other binary outcomes "
            "those true for both; null of numbers and preferences, as the next three.",
        ),
        "gained": Column("float64", "Questions that only the variant solves."),
        "lost": Column("float64", "Questions that only the reference solves."),
        "neither": Column("float64", "Questions that neither solves."),
        "difference": Column("float64", "Accuracy, or other outcome, of the variant minus that of the reference."),
        "low": Column(
            "float64",
            "Lower end of its 95 % interval: over texts the hull of t and Hall's; over questions Tango's score "
            "interval, of several draws t, and over groups where there are any; of numbers always the hull of t "
            "and Hall's. Not corrected for the family.",
        ),
        "high": Column("float64", "Upper end of the same."),
        "no_interval": Column("string", "Why there is none; null where there is one."),
        "judge": Column("string", "Model, and label of the grader, that judged the outcome; null: no model did."),
        "labels": Column("Int64", "Questions with labels by people in all variants of the row; null without a judge."),
        "corrected": Column(
            "boolean",
            "Whether these labels correct the judge, by prediction-powered inference: difference, interval and tests "
            "are then those of what people say. null without a judge.",
        ),
        "tested": Column(
            "boolean",
            "False where the outcome selects the questions, their number was not registered, values are missing of "
            "a number without `range`, or a model judged and labels do not correct it.",
        ),
        "not_tested": Column("string", "Why the row is not tested; null where it is, and in older tables."),
        "weight": Column(
            "float64", "Share of the level that was registered for this number of questions; null: it was not."
        ),
        "p": Column(
            "float64",
            "Two-sided test of no difference, by the method of the interval (Tango's is McNemar's, corrected "
            "for continuity by a quarter of a question).",
        ),
        "p_holm": Column("float64", "The same over weight, corrected over its family (Holm)."),
        "margin": Column("float64", "Margin of equivalence; null: equivalence is not tested."),
        "p_equivalent": Column(
            "float64", "Two one-sided tests of a difference beyond the margin, by the same method; null without one."
        ),
        "p_equivalent_holm": Column("float64", "The same over weight, corrected over its family (Holm)."),
        "verdict": Column(
            "string",
            "different: p_holm < 0.05; else equivalent: p_equivalent_holm < 0.05; else undecided. Of scope texts "
            "different_here and equivalent_here. note: not tested.",
        ),
    },
)

CHARACTERISTICS = Table(
    "characteristics",
    "The shape and tone of each variant's answers.",
    "analyze_behaviour",
    {
        "variant": Column("string", "Variant."),
        "measure": Column(
            "string",
            "Column of the trajectories. Polarity and subjectivity are exploratory: a lexicon of single words knows "
            "neither the task nor negation.",
        ),
        "n": Column("Int64", "Questions with a value."),
        "mean": Column("float64", "Mean over questions."),
        "low": Column("float64", f"Lower end of its {INTERVAL}; null below 8 questions or where nothing varies."),
        "high": Column("float64", "Upper end of the same."),
        "reference": Column("string", "Variant that it is compared with; null: none."),
        "difference": Column("float64", "Mean difference to the reference on the same questions."),
        "difference_low": Column(
            "float64", "Lower end of its 95 % t interval, over texts or questions as in the means."
        ),
        "difference_high": Column("float64", "Upper end of the same."),
        "effect_size": Column(
            "float64", "Mean difference over the standard deviation of the questions' differences (Cohen's d_z)."
        ),
        "p": Column(
            "float64",
            "Two-sided t test by the method of the interval; null where trajectories are missing and the measure has "
            "no limits, or this number of questions was not registered.",
        ),
        "scope": Column(
            "string",
            "What the difference is about: the tone, or the texts used, of which there are too few or whose questions "
            "are unknown.",
        ),
        "p_holm": Column(
            "float64", "The same over the weight of its look, corrected over the table, one secondary family (Holm)."
        ),
    },
)

CONSISTENCY = Table(
    "consistency",
    "Who solves what together: every ordered pair of variants.",
    "analyze_behaviour",
    {
        "variant": Column("string", "Variant."),
        "other": Column("string", "Another variant, or the same: then different draws of it are compared."),
        "groups": Column(
            "Int64",
            "Groups, such as templates, that these questions come from; what is shared in a group widens the interval. "
            "Null where no group has two questions, or there are fewer than 8.",
        ),
        "n": Column("Int64", "Questions that both have a graded trajectory for."),
        "agreement": Column("float64", "Share of questions on which both are right or both are wrong."),
        "kappa": Column("float64", "Cohen's κ of the same; null where both are constant."),
        "own_agreement": Column(
            "float64",
            "Noise floor: agreement of different draws of one variant, mean of the two variants; null with one draw.",
        ),
        "own_kappa": Column("float64", "Noise floor of κ, the same way."),
        "gained": Column(
            "float64", "Questions that the variant solves and the other does not, mean over pairs of draws."
        ),
        "lost": Column("float64", "Questions that the other solves and the variant does not, the same way."),
        "alone": Column(
            "Int64", "Questions that no other variant solves in the first draw (on the diagonal; null elsewhere)."
        ),
        "all_solve": Column("Int64", "Questions that every variant solves in the first draw (the same in each row)."),
        "none_solves": Column("Int64", "Questions that no variant solves in the first draw (the same in each row)."),
    },
)

JUDGES = Table(
    "judges",
    "Each judge: how many values it gave, how far judges of one trait agree; empty without judges.",
    "analyze_behaviour",
    {
        "judge": Column("string", "Label of the grader."),
        "model": Column("string", "Model that judges."),
        "trait": Column("string", "What is judged; null: the config gives no name."),
        "value": Column("string", "Type of the values: binary, number, category or preference."),
        "judgements": Column("Int64", "Answers that were to be judged."),
        "n": Column("Int64", "Those with a value."),
        "unusable": Column("Int64", "Those whose reply, or answer, held none."),
        "failed": Column("Int64", "Those without a reply, or of trajectories without an answer."),
        "quoting": Column(
            "Int64",
            "Answers that hold the text of their variant, so that a judge could know it; of comparisons the pairs that "
            "have one.",
        ),
        "judges": Column("Int64", "Judges of the same trait."),
        "units": Column("Int64", "Answers with a value of at least two of them."),
        "alpha": Column(
            "float64",
            "Krippendorff's α of all judges of the trait, nominal, and interval of numbers; null with one judge or "
            "where no value varies.",
        ),
        "separability": Column(
            "float64",
            "AUROC of a bag-of-words classifier that reads the variant off the answers that were judged, on questions "
            "that it was not trained on: mean over variants, each against the others. 0.5: it cannot; null with fewer "
            "than 16 answers of a variant.",
        ),
        "guesses": Column(
            "Int64",
            "Of a judge that guesses the variant, its guesses of first draws, of questions with at least two of them, "
            "which the next three are about; null of others.",
        ),
        "guessed": Column("float64", "Share of them that are right."),
        "guess_chance": Column(
            "float64", "Share that would be right by chance, with the variants exchanged at random."
        ),
        "guess_p": Column(
            "float64",
            "Exact one-sided test that it is right no more often than so: variants exchanged within each question.",
        ),
        "compare_with": Column("string", "Reference that answers are compared with; null: each is graded alone."),
        "same_orders": Column("Int64", "Pairs of answers on which the replies to both orders agree."),
        "first_orders": Column("Int64", "Pairs of which it prefers the first answer in both orders."),
        "second_orders": Column("Int64", "Pairs of which it prefers the second answer in both orders."),
        "position_p": Column(
            "float64",
            "Exact two-sided binomial test, over questions with more pairs of one than of the other, that either is as "
            "likely; null without such a question.",
        ),
    },
)

FORMAT_NOISE = Table(
    "format_noise",
    "How far formats of the prompt move strict accuracy, beside the tones; empty without `prompt.formats`.",
    "analyze_behaviour",
    {
        "variant": Column("string", "Format, or tone."),
        "reference": Column("string", "What it is compared with: `control`, or the primary reference of tones."),
        "kind": Column("string", "format or tone."),
        "difference": Column("float64", "Accuracy of the variant minus that of the reference."),
        "low": Column("float64", "Lower end of its 95 % interval, as in `paired_tests`."),
        "high": Column("float64", "Upper end of the same."),
        "least": Column(
            "float64", "Lower bound of the size of the difference. All bounds of the table hold together at 95 %."
        ),
        "most": Column("float64", "Upper bound of the size of the difference; 1 where there is no interval."),
        "within": Column(
            "boolean", "Of a tone: whether `most` is below the largest `least` of a format, so that a format does more."
        ),
    },
)

WORKERS = Table(
    "workers",
    "How each worker fared.",
    "analyze_behaviour",
    {
        "worker": Column("string", "Worker."),
        "hardware": Column("string", "What it ran on, one after the other; null where that is not known."),
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

STUDY_OUTCOMES = Table(
    "study_outcomes",
    "Mean of each outcome in each variant, in each experiment.",
    "tabulate_study",
    {**WHERE, **OUTCOMES.columns},
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
