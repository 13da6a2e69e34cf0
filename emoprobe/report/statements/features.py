"""Sentences on features that differ with the tone, and on the quality of the autoencoders."""

from __future__ import annotations

import pandas as pd

from emoprobe.analysis.estimates import MIN_QUESTIONS, MIN_TEXTS
from emoprobe.analysis.features.conclusion import FeatureReason, conclude_tone
from emoprobe.report.statements import stated
from emoprobe.results.statement import Statement, Verdict

LIMITS = "That a feature differs says neither what it stands for nor that the model uses it."


def statements(autoencoders: pd.DataFrame, features: pd.DataFrame) -> list[Statement]:
    """Return a statement for each tone, and a note on the autoencoders.

    Args:
        autoencoders: the table `autoencoders`.
        features: the table `features`.
    """
    toy = bool(autoencoders["toy"].fillna(False).any())
    tones = [_tone(str(name), rows, toy) for name, rows in features.groupby("variant", sort=False)]
    return [*tones, _quality(autoencoders)]


def _tone(name: str, rows: pd.DataFrame, toy: bool) -> Statement:
    conclusion = conclude_tone(rows)
    about, title = f"feature:{name}", f"{name[0].upper()}{name[1:]}"
    reference, layer = rows["reference"].iloc[0], rows["layer"].iloc[0]
    best = conclusion.clearest
    if best is None:
        text = (
            f"Features that differ between {name} and {reference}: a verdict is not reachable; it takes {MIN_TEXTS} "
            f"texts of each and {MIN_QUESTIONS} questions in the half that features are tested on, and features that "
            "are active there."
        )
        return stated(about, conclusion, text)
    area = conclusion.separation
    autoencoder = "a toy autoencoder" if toy else "the autoencoder"
    level = (
        f"the one feature that differs most on the first half separates {name} from {reference} on the second with "
        f"AUROC {area['autoencoder']:.2f} (0.5 is chance, 1 is perfect); one of a random autoencoder with "
        f"{area['random']:.2f}, a principal component with {area['pca']:.2f}, the difference of means with "
        f"{area['diff_means']:.2f}"
    )
    texts = " and texts" if best["unit"] == "texts" else ""
    differ = (
        f"{title}: {conclusion.differing} of {conclusion.tested} features of {autoencoder} at layer {layer}, selected "
        f"on one half of the questions{texts}, differ from {reference} on the other half"
    )
    strongest = (
        f"feature {int(best['feature'])} on the {best['part']}, {_signed(best['difference'])} "
        f"[{_signed(best['low'])}, {_signed(best['high'])}], {best['standardized']:+.2f} standard deviations"
    )
    test = f"(corrected p = {best['p_tone']:.2g}; {_units(best)})"
    match conclusion.reason:
        case FeatureReason.SEPARATES:
            text = f"{differ} {test}; the clearest is {strongest}. For comparison, {level}. {LIMITS}"
        case FeatureReason.RANDOM_AS_WELL:
            text = f"{differ} {test}, but a feature of a random autoencoder separates the two as well here: {level}."
        case _:
            text = (
                f"{title}: no feature of {autoencoder} at layer {layer} is shown to differ from {reference} on the "
                f"questions{texts} that it was not chosen on {test}; the clearest of {conclusion.tested} is "
                f"{strongest}. For comparison, {level}."
            )
    return stated(about, conclusion, text)


def _units(row: pd.Series) -> str:
    texts = f"{row['texts']} texts, " if row["unit"] == "texts" else ""
    return f"{texts}{row['n']} questions"


def _signed(value: float) -> str:
    return f"{value:+.3g}"


def _quality(autoencoders: pd.DataFrame) -> Statement:
    seeds = autoencoders[autoencoders["kind"] != "random"]
    first, several = seeds.iloc[0], len(seeds) > 1
    where = f"at layer {first['layer']}"
    if first["kind"] == "trained":
        toys = "toys" if first["toy"] else "autoencoders"
        made = (
            f"The {len(seeds)} autoencoders {where} are {toys}: each has {first['width']:,} features and was trained "
            f"on {first['training_tokens']:,} tokens, with another seed"
            + ("; published ones see hundreds of millions" if first["toy"] else "")
        )
    else:
        made = f"The pretrained autoencoder {where} has {first['width']:,} features"
    was, leaves, recovers = ("they were", "they leave", "recover") if several else ("it was", "it leaves", "recovers")
    text = (
        f"{made}. On trajectories that {was} not trained on {leaves} {_range(seeds['fvu'], 100, 1)} % of the variance "
        f"unexplained, with {_range(seeds['l0'], 1, 1)} active features a token"
    )
    if seeds["recovered"].notna().any():
        text += f", and {recovers} {_range(seeds['recovered'], 100, 0)} % of the cross-entropy that zeros cost"
    text += f"; {_range(seeds['dead'], 100, 1)} % of the features are never active there"
    if several and seeds["shared"].notna().any():
        text += f"; {_range(seeds['shared'], 100, 0)} % of them are found by every seed"
    return Statement(about="feature:autoencoders", verdict=Verdict.NOTE, text=text + ".")


def _range(values: pd.Series, factor: float, digits: int) -> str:
    """The values of all seeds: one where they agree."""
    known = (values.dropna().astype(float) * factor).round(digits)
    low, high = known.min(), known.max()
    return f"{low:.{digits}f}" if low == high else f"{low:.{digits}f} to {high:.{digits}f}"
