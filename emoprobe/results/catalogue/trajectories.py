"""The table of trajectories."""

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
        "paraphrase": Column("Int64", "Which of the variant's texts, from 0; null where it has none."),
        "question": Column("string", "Question, without variant and template."),
        "gold": Column("string", "Gold answer: a number in canonical notation, or the letter of an option."),
        "completion": Column("string", "What the model wrote, as the grader reads it; null where no server answered."),
        "extracted": Column("string", "Extracted answer in canonical notation; null: none found."),
        "correct": Column(
            "boolean",
            "Strict: whether an answer that is marked as final, or is the whole completion, equals the gold answer, in "
            "a finished completion and not within an unfinished thought.",
        ),
        "lenient": Column("boolean", "Whether the extracted answer equals the gold answer, however it was found."),
        "extraction": Column(
            "string",
            "How the answer was found: marker (also: the whole completion), boxed, last_number, letter (the last one) "
            "or none (also: a marked answer that is not one value).",
        ),
        "compliant": Column("boolean", "Whether the answer was given in the form that the prompt asks for."),
        "efficiency": Column("Float64", "Share of the token budget left unspent."),
        "truncated": Column("boolean", "Whether the completion was cut off at max_tokens."),
        "prompt_tokens": Column("Int64", "Tokens of the prompt."),
        "completion_tokens": Column("Int64", "Tokens of the completion."),
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
)
