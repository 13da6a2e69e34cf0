"""Check a GPU: python -m tests.gpu [--part capture|generation] [--device cpu] [--tiny]. Exit status 1 where a step fails.

The part `capture` needs PyTorch, transformers and nnsight, no network and no weights; `generation` needs vLLM and serves
a model directory, by default the embedded model.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from tests.gpu import steps
from tests.gpu.capture import CaptureCheck
from tests.gpu.generation import GenerationCheck
from tests.gpu.probes import probes

PARTS = ("capture", "generation")


def check(setting: steps.Setting, parts: tuple[str, ...]) -> bool:
    """Run the steps of some parts; return whether none failed."""
    done = [steps.run("versions", lambda: steps.versions(setting))]
    if "capture" in parts:
        capture = CaptureCheck(setting)
        done += [steps.run(name, step) for name, step in capture.steps]
        capture.close()
        done.append(steps.run("probes", lambda: probes(setting)))
    if "generation" in parts:
        generation = GenerationCheck(setting)
        try:
            done += [steps.run(name, step) for name, step in generation.steps]
        finally:
            generation.close()
    return all(done)


def main() -> int:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(prog="make gpu-check", description=__doc__)
    parser.add_argument("--part", choices=PARTS, help="one part; default: both")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="a model of three layers and small batches")
    parser.add_argument("--model", type=Path, help="directory of the model that vLLM serves; default: the embedded one")
    parser.add_argument(
        "--backend", default="vllm", choices=["vllm", "nnsight"], help="server of the part `generation`"
    )
    arguments = parser.parse_args()
    logging.getLogger("server").setLevel(logging.CRITICAL)  # errors are injected
    with tempfile.TemporaryDirectory() as folder:
        setting = steps.Setting(Path(folder), arguments.device, arguments.tiny, arguments.model, arguments.backend)
        return 0 if check(setting, (arguments.part,) if arguments.part else PARTS) else 1


if __name__ == "__main__":
    sys.exit(main())
