"""What is said of features, and their contexts on the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from emoprobe.report.page import feature_contexts
from emoprobe.report.statements.features import statements
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import Layout
from emoprobe.results.tables import frame, write_table

QUALITY: dict[str, Any] = {
    "name": "seed-1", "kind": "trained", "toy": True, "architecture": "topk", "layer": 7, "d": 8, "width": 64,
    "training_tokens": 12_345, "tokens": 9, "fvu": 0.2, "l0": 4.0, "dead": 0.1, "scored_tokens": 5, "recovered": 0.8,
    "shared": 0.5,
}  # fmt: skip
TESTED: dict[str, Any] = {
    "method": "autoencoder", "variant": "joy", "reference": "filler", "part": "question", "layer": 7, "feature": 3,
    "rank": 1, "fitted": 2.5, "n": 40, "texts": 4, "unit": "texts", "difference": 0.5, "low": 0.2, "high": 0.8,
    "p": 0.001, "p_corrected": 0.01, "p_tone": 0.02, "differs": True, "standardized": 1.2, "auroc": 0.9,
}  # fmt: skip
RANDOM = TESTED | {"method": "random", "auroc": 0.6, "differs": False}


def said(rows: list[dict[str, Any]], *quality: dict[str, Any]) -> dict[str, Any]:
    table = frame(TABLES["autoencoders"], list(quality) or [QUALITY])
    return {one.about: one for one in statements(table, frame(TABLES["features"], rows))}


def test_found_has_numbers_and_limits() -> None:
    found = said([TESTED, TESTED | {"feature": 5, "p": 0.5, "differs": False, "rank": 2, "fitted": 0.1}, RANDOM])
    one = found["feature:joy"]
    assert one.verdict == "found"
    assert (one.estimate, one.low, one.high, one.p, one.n) == (0.5, 0.2, 0.8, 0.02, 40)
    assert one.text.startswith("Joy: 1 of 2 features of a toy autoencoder at layer 7")
    for words in (
        "feature 3 on the question, +0.5 [+0.2, +0.8]",
        "AUROC 0.90",
        "random autoencoder with 0.60",
        "says neither",
    ):
        assert words in one.text


def test_a_variant_keeps_its_name() -> None:
    one = said([TESTED | {"variant": "rude_NOW"}, RANDOM | {"variant": "rude_NOW"}])["feature:rude_NOW"]
    assert one.text.startswith("Rude_NOW: 1 of 1 features")


def test_what_random_directions_do_as_well_is_not_found() -> None:
    one = said([TESTED, RANDOM | {"auroc": 0.95}])["feature:joy"]
    assert one.verdict == "not_found"
    assert "a feature of a random autoencoder separates the two as well here" in one.text


def test_not_found() -> None:
    one = said([TESTED | {"differs": False, "p_tone": 0.4, "low": -0.1}, RANDOM])["feature:joy"]
    assert one.verdict == "not_found"
    assert "no feature of a toy autoencoder" in one.text


def test_without_a_test_there_is_a_note() -> None:
    one = said([TESTED | {"p": None, "differs": None, "low": None, "high": None}])["feature:joy"]
    assert one.verdict == "note"
    assert "three texts" in one.text or "3 texts" in one.text
    assert one.p is None


def test_quality_is_told_over_seeds() -> None:
    text = said(
        [TESTED],
        QUALITY,
        QUALITY | {"name": "seed-2", "fvu": 0.3},
        QUALITY | {"name": "random", "kind": "random", "fvu": 9},
    )["feature:autoencoders"].text
    assert "The 2 autoencoders at layer 7 are toys" in text
    assert "12,345 tokens" in text
    assert "20.0 to 30.0 % of the variance" in text
    assert "recover 80 % of the cross-entropy" in text
    large = QUALITY | {"toy": False, "training_tokens": 20_000_000}
    assert "toy" not in said([TESTED], large)["feature:autoencoders"].text
    alone = {**QUALITY, "kind": "pretrained", "toy": None, "training_tokens": None, "shared": None, "recovered": None}
    text = said([TESTED], alone)["feature:autoencoders"].text
    assert text.startswith("The pretrained autoencoder at layer 7 has 64 features. On trajectories that it was not")
    assert "cross-entropy" not in text


def test_contexts_on_the_page(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert feature_contexts(layout) == []
    context = {
        "feature": 3, "rank": 1, "activation": 2.0, "variant": "joy", "sample_id": "s_0001", "draw": 1, "token": 9,
        "part": "response", "place": 1, "tokens": json.dumps(["a", "<b>"]), "activations": json.dumps([1.0, 2.0]),
    }  # fmt: skip
    write_table(layout, "feature_contexts", frame(TABLES["feature_contexts"], [context, context | {"feature": 5}]))
    rows = [TESTED | {"feature": 5, "differs": False, "fitted": 9.0}, TESTED]
    write_table(layout, "features", frame(TABLES["features"], rows))
    found = feature_contexts(layout)
    assert [entry["feature"] for entry in found] == [3, 5]
    assert found[0]["differs"] == ["joy, question: +1.20 sd, differs"]
    assert found[0]["contexts"][0]["tokens"][1] == {"text": "<b>", "share": 1.0, "top": True}


@pytest.mark.parametrize("tones", [1, 8])
@pytest.mark.parametrize("name", ["feature_effects", "feature_baselines"])
def test_figures(tmp_path: Path, name: str, tones: int) -> None:
    from emoprobe.config.files import parse_config
    from emoprobe.report.figures import FIGURES
    from emoprobe.report.figures.style import save_figure
    from emoprobe.report.figures.view import ExperimentView

    layout = Layout(tmp_path)
    view = ExperimentView(layout, parse_config({}))
    rows = [
        TESTED | {"variant": f"tone{tone}", "method": method, "part": part, "feature": tone, "differs": tone % 2 == 0}
        for tone in range(tones)
        for method in ("autoencoder", "random", "pca", "diff_means")
        for part in ("question", "response")
    ]
    write_table(layout, "features", frame(TABLES["features"], rows))
    save_figure(FIGURES[name].draw(view), tmp_path / "figure.svg")
    assert b"<path" in (tmp_path / "figure.svg").read_bytes()
    write_table(layout, "features", frame(TABLES["features"], [row | dict.fromkeys(("p", "auroc")) for row in rows]))
    save_figure(FIGURES[name].draw(view), tmp_path / "empty.svg")
