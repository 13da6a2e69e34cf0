"""What is known of the judges themselves: values they gave, agreement, and how far answers give the variant away."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import krippendorff
import numpy as np
import pandas as pd
from scipy import stats
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from emoprobe.analysis.guesses import guessing
from emoprobe.analysis.labels import text_of
from emoprobe.analysis.questions import asked_in
from emoprobe.config.experiment import Config
from emoprobe.config.science.outcome_grader import Value
from emoprobe.graders.registry import JUDGED, ORDERS, QUOTES, column_of
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import Layout
from emoprobe.results.tables import frame

FOLDS = 5
LEAST_ANSWERS = 16  # of each variant, to say whether words give it away
MOST_WORDS = 2_000
# The start of a text counts as a word, so that there are words even if all answers are empty.
WORD = re.compile(r"^|\w+|[^\w\s]")


def judges(config: Config, layout: Layout, table: pd.DataFrame) -> pd.DataFrame:
    """Return the table `judges` of the catalogue.

    Args:
        config: the experiment.
        layout: its folder, with the answers.
        table: the trajectories.

    Raises:
        DamagedError: a trajectory cannot be read.
    """
    if not config.judges:
        return frame(TABLES["judges"], [])
    shown = table[table["completion"].notna()]
    apart = separability(shown.assign(completion=[text_of(layout, row) for row in shown.to_dict("records")]))
    rows = []
    for judge in config.judges:
        there = {variant for variant, _ in judge.judged((str(name), "") for name in table["variant"].unique())}
        answers = table[table["variant"].isin(there)]
        alike = [one for one in config.judges if (one.trait, one.guess) == (judge.trait, judge.guess)]
        values = [table[column_of(one)] for one in alike]
        came = answers[JUDGED + judge.outcome]
        rows.append(
            {
                "judge": judge.outcome,
                "model": judge.model,
                "trait": judge.trait,
                "value": judge.type,
                "judgements": len(answers),
                "n": int(answers[column_of(judge)].notna().sum()),
                "unusable": int((came == "unusable").sum()),
                "failed": int((came == "failed").sum()),
                "quoting": int(answers[QUOTES + judge.outcome].sum()),
                "judges": len(alike),
                "units": int((pd.concat(values, axis=1).notna().sum(axis=1) >= 2).sum()),
                "alpha": agreement(values, judge.type),
                "separability": apart,
                **(guessing(answers, column_of(judge)) if judge.guess else {}),
                "compare_with": judge.compare_with,
                **(position_columns(answers[ORDERS + judge.outcome], asked_in(answers)) if judge.compare_with else {}),
            }
        )
    return frame(TABLES["judges"], rows)


def position_columns(replies: pd.Series, questions: pd.Series) -> dict[str, Any]:
    """Return the columns that say how far a judge that compares decides by the order of two answers.

    Args:
        replies: how those to both orders go together (`judging.agreement_of_orders`), one for each pair.
        questions: the question of each pair, the same for copies of it. Its pairs have the reference's answer in
            common, and are one unit.
    """
    same, first, second = (replies.eq(way).fillna(False).astype(int) for way in ("same", "first", "second"))
    leaning = (first - second).groupby(questions).sum()
    decided = int((leaning != 0).sum())
    return {
        "same_orders": int(same.sum()),
        "first_orders": int(first.sum()),
        "second_orders": int(second.sum()),
        # Without a preference for a place, more of either is as likely as more of the other, whatever the answers are.
        "position_p": float(stats.binomtest(int((leaning > 0).sum()), decided).pvalue) if decided else float("nan"),
    }


def agreement(values: Sequence[pd.Series], kind: Value) -> float:
    """Return Krippendorff's α of judges (Krippendorff 2004), NaN with one judge or where no value varies.

    Args:
        values: of each judge, one for each answer; missing ones are left out.
        kind: numbers and preferences are compared by their squared difference, others by whether they are equal.
    """
    if kind == "category":
        codes = {name: code for code, name in enumerate(pd.unique(pd.concat(list(values)).dropna()))}
        values = [column.map(codes) for column in values]
    data = np.array([column.to_numpy(dtype=float, na_value=np.nan) for column in values])
    paired = data[:, (~np.isnan(data)).sum(axis=0) >= 2]
    if len(np.unique(paired[~np.isnan(paired)])) < 2:
        return float("nan")
    level: Literal["interval", "nominal"] = "interval" if kind in ("number", "preference") else "nominal"
    return float(krippendorff.alpha(reliability_data=paired, level_of_measurement=level))


def separability(table: pd.DataFrame) -> float:
    """Return how well a bag-of-words classifier predicts the variant from the answers, as an AUROC.

    All answers to a question are in one fold, so that it cannot know the variant by what the others of it lack.

    Args:
        table: the trajectories, with the text that a judge was shown as `completion`.
    """
    known = table[table["completion"].notna()]
    counts = known["variant"].value_counts()
    questions = asked_in(known).nunique()
    if len(counts) < 2 or counts.min() < LEAST_ANSWERS or questions < FOLDS:
        return float("nan")
    words = CountVectorizer(binary=True, max_features=MOST_WORDS, tokenizer=WORD.findall, token_pattern=None)
    model = make_pipeline(words, LogisticRegression(max_iter=200))
    variants = known["variant"].astype(str).to_numpy()
    texts = known["completion"].to_numpy()
    scores = cross_val_predict(
        model, texts, variants, groups=asked_in(known).to_numpy(), cv=GroupKFold(FOLDS), method="predict_proba"
    )
    names = np.unique(variants)
    return float(np.mean([roc_auc_score(variants == name, scores[:, place]) for place, name in enumerate(names)]))
