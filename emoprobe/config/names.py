"""Names that become folders and wildcards (of experiments, variants and samples), and names of variables."""

from __future__ import annotations

import re

CONTROL = "control"
FILLER = "filler"
# Folders of an experiment that hold something other than a variant.
RESERVED_NAMES = frozenset(
    {"activations", "benchmarks", "features", "figures", "logs", "probes", "samples", "steering", "tables", "models"}
)
NAME = r"^[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?$"
MAX_NAME = 64
# Variables of the environment are in capitals by convention, but for those of proxies.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*|(?:https?|ftp|all|no)_proxy")
# A run of capitals and digits as long as this, such as an access key of AWS.
_LIKE_A_KEY = re.compile(r"(?=.*\d)[A-Z0-9]{16,}")


def check_name(name: str) -> str:
    """Return the name if it can be a folder's name and a wildcard.

    Raises:
        ValueError: it has other characters, is too long, or is taken by the layout.
    """
    if not re.fullmatch(NAME, name) or len(name) > MAX_NAME:
        raise ValueError(f"{name!r} is no valid name: letters, digits, _ and - inside, at most {MAX_NAME} characters")
    if name.lower() in RESERVED_NAMES:
        raise ValueError(f"{name!r} is a folder of the results; choose another name")
    return name


def check_variable(name: str) -> str:
    """Return a name of an environment variable. What is refused is not repeated, as it may be the secret itself.

    Raises:
        ValueError: it is none, or looks like a key.
    """
    if not _VARIABLE.fullmatch(name) or len(name) > MAX_NAME or _LIKE_A_KEY.search(name):
        raise ValueError(
            "is no name of an environment variable (capitals, digits and _); if it is a key, change the key, export it "
            "as in `export MY_KEY=…`, and write the name MY_KEY here"
        )
    return name


def check_url(url: str) -> str:
    """Return the URL of a server without a slash at its end. What is refused is not repeated.

    Raises:
        ValueError: it is none, or has credentials, a query or a fragment in it.
    """
    if not re.fullmatch(r"https?://[^\s/@?#\\]+(/[^\s?#]*)?", url):
        raise ValueError(
            "must be an http:// or https:// URL without credentials, query or blank; the key goes to the variable that "
            "workers.api_key_env names"
        )
    return url.rstrip("/")
