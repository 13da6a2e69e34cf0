"""Folder names for variants and samples whose names come from other tools, and may be hostile."""

from __future__ import annotations

import re
from collections.abc import Hashable

from emoprobe.config.section import MAX_NAME, RESERVED_NAMES, is_format
from emoprobe.results.layout import split_draw_id

_OTHER = re.compile(r"[^A-Za-z0-9_-]+")
_NUMBERED = re.compile(r".*_\d+")


class Names:
    """Unique folder names, each for one value, in the order of first appearance.

    Letters, digits, `_` and `-` are kept; a name cannot leave its folder, take one of the layout, or contain more than
    64 characters.

    Args:
        kind: `variant` or `sample`. The name of a sample ends in a number, as the names of further draws require.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._names: dict[Hashable, str] = {}
        self._taken: set[str] = set()

    def name(self, value: Hashable, proposal: str | None = None) -> str:
        """Return the name of a value.

        Args:
            value: identifies the variant or sample.
            proposal: text to make the name of, if the value has no name yet; None: there is none.
        """
        if value not in self._names:
            self._names[value] = self._unused(_OTHER.sub("-", proposal or "").strip("-_")[:MAX_NAME].strip("-_"))
            self._taken.add(self._names[value].lower())
        return self._names[value]

    def _unused(self, slug: str) -> str:
        if self._kind == "sample":
            if slug.isdigit() and len(slug) < 20:
                slug = f"sample_{int(slug):04d}"
            fits = _NUMBERED.fullmatch(slug) is not None and split_draw_id(slug) == (slug, 1)
        else:
            fits = slug != "" and slug.lower() not in RESERVED_NAMES and not is_format(slug)
        number = len(self._names) + 1
        base = slug[: MAX_NAME - 9] or self._kind
        while not fits or slug.lower() in self._taken:
            slug, fits, number = f"{base}_{number:04d}", True, number + 1
        return slug
