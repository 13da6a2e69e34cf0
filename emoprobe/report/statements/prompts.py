"""Notes on what the model was given besides the messages: text that a chat template adds, markup in questions."""

from __future__ import annotations

from typing import Any

import pandas as pd

from emoprobe.results.statement import Statement

SHOWN = 300  # characters of a template's text
NAMED = 5  # samples


def notes(prompt: dict[str, Any], trajectories: pd.DataFrame) -> list[Statement]:
    """Return the notes that there is a reason for.

    Args:
        prompt: the entry `prompt` of `metadata.json`; empty in folders of other versions.
        trajectories: the table `trajectories`.
    """
    found: list[Statement] = []
    if added := " … ".join(prompt.get("added") or []):
        shown = added if len(added) <= SHOWN else f"{added[:SHOWN].rstrip()} …"
        text = (
            f"The chat template adds text to every prompt that no message holds: \u201c{' '.join(shown.split())}\u201d."
        )
        found.append(Statement(about="data:template", verdict="note", text=text))
    if "question" not in trajectories:
        return found
    questions = trajectories[["sample_id", "question"]].dropna().drop_duplicates("sample_id")
    held = {
        str(sample): [token for token in prompt.get("control_tokens") or [] if token and token in str(question)]
        for sample, question in zip(questions["sample_id"], questions["question"], strict=True)
    }
    held = {sample: tokens for sample, tokens in held.items() if tokens}
    if held:
        samples = ", ".join(list(held)[:NAMED]) + (", …" if len(held) > NAMED else "")
        tokens = ", ".join(sorted({token for each in held.values() for token in each}))
        text = (
            f"Questions write out control tokens of the model ({tokens}), which it reads as markup and not as text: "
            f"{samples}."
        )
        found.append(Statement(about="data:markup", verdict="note", text=text, estimate=float(len(held))))
    return found
