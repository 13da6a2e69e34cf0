"""What a probe has to beat: features of prompt, question and answer that are no inner state, such as their length."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer

from emoprobe.analysis.probes.confounds import text_features
from emoprobe.analysis.probes.row_codes import RowCodes, folds_by_group

WORDS = 500  # the commonest words of the responses
MOST_COMPONENTS, GROUPS_A_COMPONENT = 16, 5
BINS = 5
RIDGE = 1e-3  # of the rows, on columns of unit variance
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")

# The text of each row of a table as its variant places it; None where that is not known.
RowTexts = Sequence[str | None]


def prompt_features(table: pd.DataFrame, texts: RowTexts) -> dict[str, np.ndarray]:
    """Return what differs between the prompts of a question beside their meaning: (n, k) each, by its name.

    Tokens are those that the text adds: what all prompts of a question share cannot separate variants. Words and
    punctuation are those of the text, and left out where a row's text is not known; so are columns that lack a value.
    """
    features: dict[str, np.ndarray] = {}
    if table["prompt_tokens"].notna().all():
        tokens = table["prompt_tokens"].astype(float)
        own = tokens - tokens.groupby(table["sample_id"].astype(str)).transform("mean")
        features["prompt tokens"] = own.to_numpy()[:, None]
    known = [text for text in texts if text is not None]
    if known and len(known) == len(texts):
        features |= text_features(known)
    if table["started"].notna().all():
        features["order of capture"] = table["started"].rank().to_numpy(dtype=float)[:, None]
    return features


def answer_features(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return length, truncation and form of each response, (n, k) each, by their names.

    Length enters as a curve (logarithm, its square and cube, quintiles). Columns without any value are left out.
    """
    lengths = [*_lengths(table, "completion_tokens"), *_lengths(table, "characters")]
    features = {"length": np.column_stack(lengths)} if lengths else {}
    form = [_dummies(table, name) for name in ("compliant", "extraction") if _has_values(table, name)]
    if _has_values(table, "truncated"):
        features["truncation"] = _dummies(table, "truncated")
    if form:
        features["format"] = np.column_stack(form)
    return features


def question_features(table: pd.DataFrame, groups: int) -> np.ndarray:
    """Return length and numbers of each question, (n, k): how many, their digits, the largest and the smallest.

    Logarithms enter, and their squares where there are five groups of questions for each column; of a table without
    questions there are no columns.
    """
    if not _has_values(table, "question"):
        return np.zeros((len(table), 0))
    codes, questions = pd.factorize(table["question"].fillna("").astype(str))
    rows = []
    for question in questions:
        numbers = [number.replace(",", "") for number in NUMBER.findall(question)]
        values = [float(number) for number in numbers] or [0.0]
        counts = (len(question), len(question.split()), len(numbers), sum(map(len, numbers)), max(values), min(values))
        rows.append(np.log1p(counts))
    features = _scaled(np.array(rows)[codes])
    if 2 * features.shape[1] * GROUPS_A_COMPONENT <= groups:
        features = _scaled(np.column_stack([features, features**2]))
    return features


def nuisance_features(table: pd.DataFrame, design: RowCodes, words: bool) -> np.ndarray:
    """Length, truncation and format of each response, and its bag of words where asked for: (n, k), unit variance.

    Length and numbers of the question enter as well. The bag of words enters by its first principal components, at most
    one for five groups of questions, so that it can be fitted to them. The group of a question enters where folds
    divide groups.
    """
    columns = [*answer_features(table).values(), question_features(table, len(np.unique(design.group)))]
    if _has_values(table, "group") and not folds_by_group(table, design.folds):
        columns.append(_dummies(table, "group"))
    if words and _has_values(table, "completion"):
        columns.append(bag_of_words(table["completion"].fillna("").astype(str).tolist(), _most(design)))
    return _scaled(np.column_stack([np.zeros(len(table)), *columns]))


def _most(design: RowCodes) -> int:
    return min(MOST_COMPONENTS, len(np.unique(design.group)) // GROUPS_A_COMPONENT)


def with_variants(features: np.ndarray, design: RowCodes) -> np.ndarray:
    """The same with a column for each variant: what depends on it alone is no finding about correctness."""
    return _scaled(np.column_stack([features, np.eye(len(design.variants))[design.variant]]))


def orthonormal(features: np.ndarray) -> np.ndarray:
    """An orthonormal basis (n, rank) of the columns and a constant."""
    whole = np.column_stack([np.ones(len(features)), features])
    spectrum, axes = np.linalg.eigh(whole.T @ whole)
    kept = spectrum > 1e-9 * spectrum[-1]
    basis: np.ndarray = whole @ axes[:, kept] / np.sqrt(spectrum[kept])
    return basis


def fitted(features: np.ndarray, labels: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Labels (n) as a linear function of the features, by least squares on the training rows: (n)."""
    x, y = features[training], labels[training]
    mean, level = x.mean(0), y.mean()
    x = x - mean
    weights = np.linalg.solve(x.T @ x + RIDGE * len(x) * np.eye(x.shape[1]), x.T @ (y - level))
    predictions: np.ndarray = level + (features - mean) @ weights
    return predictions


def _has_values(table: pd.DataFrame, name: str) -> bool:
    return bool(table[name].notna().any())


def _lengths(table: pd.DataFrame, name: str) -> list[np.ndarray]:
    if not _has_values(table, name):
        return []
    values = np.log1p(table[name].astype("Float64").fillna(0.0).to_numpy(dtype=float))
    standard = _scaled(values[:, None])
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, values, side="right")
    return [np.column_stack([standard, standard**2, standard**3]), np.eye(len(edges) + 1)[bins]]


def _dummies(table: pd.DataFrame, name: str) -> np.ndarray:
    codes = pd.factorize(table[name].astype("string").fillna("none"))[0]
    dummies: np.ndarray = np.eye(codes.max() + 1)[codes]
    return dummies


def bag_of_words(texts: list[str], count: int) -> np.ndarray:
    """Return the first principal components of the counts of the commonest words, (n, at most `count`)."""
    vectors = CountVectorizer(max_features=WORDS, token_pattern=r"(?u)\b\w+\b")  # noqa: S106 (no password)
    try:
        counts = np.log1p(vectors.fit_transform(texts).toarray().astype(float))
    except ValueError:  # no response has a word
        return np.zeros((len(texts), 0))
    centred = counts - counts.mean(0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    components: np.ndarray = centred @ axes[:, :count]
    return components


def _scaled(columns: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and variance 1, constant ones left out; a column of zeros where all are."""
    deviation = columns.std(0)
    kept = deviation > 1e-9
    if not kept.any():
        return np.zeros((len(columns), 1))
    standard: np.ndarray = (columns[:, kept] - columns[:, kept].mean(0)) / deviation[kept]
    return standard
