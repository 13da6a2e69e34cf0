"""Packages that the core library does without, and the extras of `emoprobe` that install them."""

EXTRAS = {
    "datasets": "workflow",
    "fastapi": "server",
    "httpx": "workflow",
    "inspect_ai": "inspect",
    "obstore": "storage",
    "snakemake": "workflow",
    "torch": "probes",
    "transformers": "workflow",
    "uvicorn": "server",
}


def how_to_install(package: str) -> str:
    """Return how to install a package of `EXTRAS`, as the end of a message."""
    words = f"pip install 'emoprobe[{EXTRAS[package]}]'"
    # In the environment of a run, pip would replace packages that the run needs.
    return f"{words}, or `make env-dev` in a checkout" if package == "inspect_ai" else words
