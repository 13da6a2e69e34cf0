"""What an experiment of full size costs besides its model: the whole command at a server that answers at once.

Beside it, in the same run: the same requests by lm-evaluation-harness, and a smaller experiment, to see how it grows.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from emoprobe.config.files import load_config, parse_config
from emoprobe.conversations.requests import chat_request
from emoprobe.conversations.samples import draw
from tests.benchmarks.measure import embedded_model, questions, report, timed_run
from tests.conftest import StubServer
from tests.workflow.pool import end_pool
from tests.workspace import ROOT, Workspace

IN_FLIGHT = 128
FULL, SMALL = 1319, 147  # questions: 9,233 and 1,029 trajectories


def run(arguments: list[str]) -> None:
    """Seven variants of GSM8K, 128 requests in flight, planning included; questions are drawn before the clock starts."""
    parser = argparse.ArgumentParser(prog="scale")
    parser.add_argument("--samples", type=int, default=FULL, help="questions; seven times as many trajectories")
    parser.add_argument("--small", type=int, default=SMALL, help="questions of the smaller experiment; 0 for none")
    parser.add_argument("--no-lm-eval", action="store_true", help="leave lm-evaluation-harness out")
    options = parser.parse_args(arguments)
    figures: dict[str, Any] = {}
    if options.small:
        small = _workflow(options.small)
        figures["small_trajectories"], figures["small_seconds"] = small["count"], small["wall"]
    found = _workflow(options.samples)
    count = found["count"]
    figures |= {
        "trajectories": count, "in_flight": IN_FLIGHT, "seconds": found["wall"], "per_second": count / found["wall"],
        "cpu_ms_per_trajectory": 1000 * found["cpu"] / count, "cpu_ms_of_the_pool": 1000 * found["cpu_pool"] / count,
    }  # fmt: skip
    if options.small:
        figures["linearity"] = found["wall"] / count / (small["wall"] / small["count"])
    if not options.no_lm_eval:
        other = _lm_eval(options.samples)
        figures["lm_eval_per_second"] = count / other["wall"]
        figures["lm_eval_cpu_ms_per_trajectory"] = 1000 * other["cpu"] / count
        figures["ratio_to_lm_eval"] = other["wall"] / found["wall"]
    report("scale", **figures)


def full_size(samples: int, url: str) -> dict[str, Any]:
    """Seven variants of that many questions, without captures, at a server."""
    return {
        "experiment": {"name": "scale"},
        "model": {"source": str(embedded_model())},
        "dataset": questions(samples),
        "variants": load_config(ROOT / "config/experiments/seven_variants.yaml").resolved()["variants"],
        "workers": {"endpoints": [url], "model_name": "stub", "requests": IN_FLIGHT, "keep_alive": 120.0},
        "capture": {"enabled": False},
    }


def _workflow(samples: int) -> dict[str, float]:
    server = StubServer()
    with tempfile.TemporaryDirectory() as folder:
        config = full_size(samples, server.url)
        workspace = Workspace(Path(folder), config)
        workspace.run("--until", "plan_analysis", "prepare_sample")
        try:
            # Warm: the pool runs, as it does for all but the first moments of an experiment.
            warm = workspace.layout.pair("control", "gsm8k_0001") / "trajectory.jsonl"
            workspace.run(str(warm.relative_to(workspace.folder)))
            warm.unlink()
            with timed_run(workspace, "--until", "generate", "--resources", f"requests={IN_FLIGHT}") as found:
                found["count"] = len(workspace.trajectories())
        finally:
            end_pool(config)
            server.stop()
    return found


def _lm_eval(samples: int) -> dict[str, float]:
    """Seconds and CPU seconds of `lm_eval` for the same messages."""
    server = StubServer()
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            config = parse_config(full_size(samples, server.url))
            with open(folder / "requests.jsonl", "w", encoding="utf-8") as file:
                for sample in draw(config.dataset, config.experiment.seed):
                    for variant in config.variants:
                        text = chat_request(config, "stub", variant, sample)["messages"][-1]["content"]
                        file.write(json.dumps({"prompt": text, "gold": sample.answer}) + "\n")
            task = {
                "task": "scale", "dataset_path": "json", "test_split": "train", "output_type": "generate_until",
                "dataset_kwargs": {"data_files": str(folder / "requests.jsonl"), "cache_dir": str(folder / "cache")},
                "doc_to_text": "{{prompt}}", "doc_to_target": "{{gold}}",
                "generation_kwargs": {"until": [], "max_gen_toks": config.generation.max_tokens, "do_sample": False},
                "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
            }  # fmt: skip
            (folder / "scale.yaml").write_text(yaml.safe_dump(task))
            arguments = f"model=stub,base_url={server.url}/v1/chat/completions,num_concurrent={IN_FLIGHT},max_retries=3"
            before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "lm_eval", "--model", "local-chat-completions", "--model_args", arguments,
                 "--apply_chat_template", "--include_path", name, "--tasks", "scale", "--output_path", str(folder / "out")],
                capture_output=True, text=True, cwd=name, check=False,
            )  # fmt: skip
            wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
            assert done.returncode == 0, done.stderr[-3000:]
            asked = len(server.requests())
            assert asked == samples * len(config.variants), asked
    finally:
        server.stop()
    return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}
