"""The model servers: the pool that runs them on demand, and the NNsight server."""

import os
from pathlib import Path

# Read when nnsight is imported, so it is set before any module of this package does so.
os.environ.setdefault("NNSIGHT_CONFIG", str(Path(__file__).with_name("capture") / "nnsight.yaml"))
