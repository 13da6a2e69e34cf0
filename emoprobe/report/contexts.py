"""Top contexts of features, as the page shows them: tokens, the darker the more active the feature is on them."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from emoprobe.results.layout import Layout, draw_id
from emoprobe.results.tables import read_table

MOST = 12  # features that are shown


def feature_contexts(layout: Layout) -> list[dict[str, Any]]:
    """A few features with what they differ in and their contexts, those that differ first; empty without a table."""
    if not (layout.table("feature_contexts").exists() and layout.table("features").exists()):
        return []
    contexts = read_table(layout.root, "feature_contexts")
    features = read_table(layout.root, "features")
    own = features[features["method"] == "autoencoder"]
    own = own.assign(found=own["differs"].fillna(False).astype(bool), strength=own["fitted"].abs())
    own = own.sort_values(["found", "strength"], ascending=False, kind="stable")
    found: list[dict[str, Any]] = []
    for feature in dict.fromkeys(own["feature"]):
        shown = contexts[contexts["feature"] == feature]
        if len(shown) and len(found) < MOST:
            rows = own[own["feature"] == feature]
            found.append(
                {
                    "feature": int(feature),
                    "differs": [_difference(row) for row in rows.to_dict("records")],
                    "contexts": [_context(row) for row in shown.to_dict("records")],
                }
            )
    return found


def _difference(row: dict[Any, Any]) -> str:
    effect = "not active" if pd.isna(row["standardized"]) else f"{row['standardized']:+.2f} sd"
    return f"{row['variant']}, {row['part']}: {effect}, {'differs' if row['found'] else 'not shown to differ'}"


def _context(row: dict[Any, Any]) -> dict[str, Any]:
    activations = json.loads(row["activations"])
    largest = max(activations) or 1.0
    return {
        "where": f"{row['variant']}/{draw_id(row['sample_id'], row['draw'])}, {row['part']}",
        "activation": row["activation"],
        "tokens": [
            {"text": text, "share": round(max(0.0, value / largest), 2), "top": number == row["place"]}
            for number, (text, value) in enumerate(zip(json.loads(row["tokens"]), activations, strict=True))
        ],
    }
