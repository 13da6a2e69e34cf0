"""`scores.json` of a steered trajectory: what forward passes over its answer tell."""

from __future__ import annotations

from pathlib import Path

from emoprobe.results import atomic
from emoprobe.results.record import Record, content_sha256


class Scores(Record):
    """Log-probabilities in nats.

    `gold` is the text that was forced after the prompt, `log_p_gold` the sum over its tokens under the edit.
    `perplexity` is the unedited model's on the answer, of so many `tokens`. `kl` has the divergence of the edited from
    the unedited model's distribution of the next token, for each of the answer's first tokens; zeros where nothing was
    edited. `error` says why there are no numbers; null: there are. `sha256` is that of the rest; null in files of
    version 0.2.
    """

    gold: str | None = None
    gold_tokens: int | None = None
    log_p_gold: float | None = None
    tokens: int | None = None
    perplexity: float | None = None
    kl: list[float] | None = None
    error: str | None = None
    sha256: str | None = None

    @property
    def content_sha256(self) -> str:
        """The hash of everything but the hash."""
        return content_sha256({key: value for key, value in self.values().items() if key != "sha256"})

    def write(self, path: Path) -> None:
        """Write `scores.json`."""
        atomic.write_json(path, self.values() | {"sha256": self.content_sha256})
