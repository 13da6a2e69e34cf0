"""Which features differ with the tone, how good the autoencoders are that found them, and what that does not say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from emoprobe.analysis.estimates import MIN_QUESTIONS, MIN_TEXTS
from emoprobe.results.statement import Statement

LIMITS = "That a feature differs says neither what it stands for nor that the model uses it."


def statements(autoencoders: pd.DataFrame, features: pd.DataFrame) -> list[Statement]:
    """A note on the autoencoders, and a statement for each tone.

    Args:
        autoencoders: the table `autoencoders`.
        features: the table `features`.
    """
    toy = bool(autoencoders["toy"].fillna(False).any())
    tones = [_tone(name, own, toy) for name, own in features.groupby("variant", sort=False)]
    return [*tones, _quality(autoencoders)]


def _tone(name: Any, rows: pd.DataFrame, toy: bool) -> Statement:
    about, title = f"feature:{name}", str(name).replace("_", " ").capitalize()
    reference, layer = rows["reference"].iloc[0], rows["layer"].iloc[0]
    own = rows[rows["method"] == "autoencoder"]
    tested = own[own["p"].notna()]
    if tested.empty:
        text = (
            f"Features that differ between {name} and {reference}: a verdict is not reachable; it takes {MIN_TEXTS} "
            f"texts and {MIN_QUESTIONS} questions in the half that features are tested on, and features that are "
            "active there."
        )
        return Statement(about=about, verdict="note", text=text)
    found = tested[tested["differs"].fillna(False)]
    best = tested.iloc[int(tested["p"].to_numpy(dtype=float).argmin())]
    separation = {method: _separation(part) for method, part in rows.groupby("method")}
    ours, chance = separation.get("autoencoder", 0.5), separation.get("random", 0.5)
    clear = len(found) > 0 and ours > chance
    called = "a toy autoencoder" if toy else "the autoencoder"
    level = (
        f"by the one feature that differs most on the first half, {name} is told from {reference} on the second with "
        f"AUROC {ours:.2f} (0.5 is chance, 1 is perfect); by one of a random autoencoder with {chance:.2f}, by a "
        f"principal component with {separation.get('pca', 0.5):.2f}, by the difference of means with "
        f"{separation.get('diff_means', 0.5):.2f}"
    )
    count = f"{len(found)} of {len(tested)} features of {called} at layer {layer}, put up on one half of the questions"
    texts = " and texts" if best["unit"] == "texts" else ""
    strongest = (
        f"feature {int(best['feature'])} on the {best['part']}, {_signed(best['difference'])} "
        f"[{_signed(best['low'])}, {_signed(best['high'])}], {best['standardized']:+.2f} standard deviations"
    )
    test = f"(corrected p = {best['p_tone']:.2g}; {_units(best)})"
    if clear:
        text = (
            f"{title}: {count}{texts}, differ from {reference} on the other half {test}; the clearest is {strongest}. "
            f"For comparison, {level}. {LIMITS}"
        )
    elif len(found):
        text = (
            f"{title}: {count}{texts}, differ from {reference} on the other half {test}, but they tell no more than "
            f"those of a random autoencoder: {level}."
        )
    else:
        text = (
            f"{title}: no feature of {called} at layer {layer} is shown to differ from {reference} on the questions"
            f"{texts} that it was not chosen on {test}; the clearest of {len(tested)} is {strongest}. For comparison, "
            f"{level}."
        )
    return Statement(
        about=about,
        verdict="found" if clear else "not_found",
        text=text,
        estimate=float(best["difference"]),
        low=float(best["low"]),
        high=float(best["high"]),
        p=float(best["p_tone"]),
        n=int(best["n"]),
    )


def _separation(rows: pd.DataFrame) -> float:
    """The area of the feature that differs most on the fitting half; of difference of means, of the better part."""
    known = rows[rows["auroc"].notna()]
    if known.empty:
        return 0.5
    if known["fitted"].notna().any():
        return float(known["auroc"].iloc[int(np.nanargmax(known["fitted"].abs().to_numpy(dtype=float)))])
    return float(known["auroc"].max())


def _units(row: pd.Series) -> str:
    texts = f"{row['texts']} texts, " if row["unit"] == "texts" else ""
    return f"{texts}{row['n']} questions"


def _signed(value: float) -> str:
    return f"{value:+.3g}"


def _quality(autoencoders: pd.DataFrame) -> Statement:
    own = autoencoders[autoencoders["kind"] != "random"]
    first, several = own.iloc[0], len(own) > 1
    where = f"at layer {first['layer']}"
    if first["kind"] == "trained":
        toys = "toys" if first["toy"] else "autoencoders"
        made = (
            f"The {len(own)} autoencoders {where} are {toys}: each has {first['width']:,} features and was trained "
            f"on {first['training_tokens']:,} tokens, with another seed"
            + ("; published ones see hundreds of millions" if first["toy"] else "")
        )
    else:
        made = f"The pretrained autoencoder {where} has {first['width']:,} features"
    was, leaves, recovers = ("they were", "they leave", "recover") if several else ("it was", "it leaves", "recovers")
    text = (
        f"{made}. On trajectories that {was} not trained on {leaves} {_range(own['fvu'], 100, 1)} % of the variance "
        f"unexplained, with {_range(own['l0'], 1, 1)} active features a token"
    )
    if own["recovered"].notna().any():
        text += f", and {recovers} {_range(own['recovered'], 100, 0)} % of the cross-entropy that zeros cost"
    text += f"; {_range(own['dead'], 100, 1)} % of the features are never active there"
    if several and own["shared"].notna().any():
        text += f"; {_range(own['shared'], 100, 0)} % of them are found by every seed"
    return Statement(about="feature:autoencoders", verdict="note", text=text + ".")


def _range(values: pd.Series, factor: float, digits: int) -> str:
    """The values of all seeds: one where they agree."""
    known = (values.dropna().astype(float) * factor).round(digits)
    low, high = known.min(), known.max()
    return f"{low:.{digits}f}" if low == high else f"{low:.{digits}f} to {high:.{digits}f}"
