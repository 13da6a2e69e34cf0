"""The NNsight server: an OpenAI-compatible API that also captures activations.

It imports the library, never the pool.
"""

import os
from pathlib import Path

# Read when nnsight is imported, so it is set before any module of this package does so.
os.environ.setdefault("NNSIGHT_CONFIG", str(Path(__file__).with_name("nnsight.yaml")))
