"""The stub server as a SLURM job runs it: `python -m tests.guarded_stub HOST PORT [DELAY]`, guarded as real ones are."""

from __future__ import annotations

import sys

import uvicorn

from server.guard import Guard
from tests.stub_server import Stub

if __name__ == "__main__":
    delay = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    app = Guard(Stub(delay))
    uvicorn.run(app, host=sys.argv[1], port=int(sys.argv[2]), log_level="error", access_log=False, lifespan="off")
