"""What a probe has to beat: features of a trajectory that are no inner state, such as its length."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer

from emoprobe.analysis.probes.row_codes import RowCodes, folds_by_group

WORDS = 500  # the commonest words of the responses
MOST_COMPONENTS, GROUPS_A_COMPONENT = 16, 5
BINS = 5
RIDGE = 1e-3  # of the rows, on columns of unit variance


def is_response(position: str) -> bool:
    """Whether a position lies in the response, so that its words are to be beaten as well."""
    return position.startswith("response")


def nuisance_features(table: pd.DataFrame, design: RowCodes, words: bool) -> np.ndarray:
    """Length, truncation and format of each response, and its bag of words where asked for: (n, k), unit variance.

    Length enters as a curve (logarithm, its square and cube, quintiles). The bag of words enters by its first principal
    components, at most one for five groups of questions, so that it can be fitted to them. The group of a question
    enters where folds divide groups. Columns that a table lacks are left out.
    """
    columns = [
        *_lengths(table, "completion_tokens"),
        *_lengths(table, "characters"),
        *(_dummies(table, name) for name in ("truncated", "compliant", "extraction") if name in table),
    ]
    if "group" in table and not folds_by_group(table, design.folds):
        columns.append(_dummies(table, "group"))
    if words and "completion" in table:
        columns.append(_bag_of_words(table["completion"].fillna("").astype(str).tolist(), design))
    return _scaled(np.column_stack([np.zeros(len(table)), *columns]))


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


def _lengths(table: pd.DataFrame, name: str) -> list[np.ndarray]:
    if name not in table:
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


def _bag_of_words(texts: list[str], design: RowCodes) -> np.ndarray:
    count = min(MOST_COMPONENTS, len(np.unique(design.group)) // GROUPS_A_COMPONENT)
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
