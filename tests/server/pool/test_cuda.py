"""The command lines that start vLLM on GPUs, read by the very vLLM that `envs/cuda.txt` installs. That takes no GPU."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from emoprobe.config.execution.slurm import SlurmShape
from emoprobe.config.experiment import Config
from emoprobe.config.files import load_config, load_study, parse_config
from emoprobe.models import hardware
from emoprobe.models.resolved import with_placement, with_values
from emoprobe.models.settings import why_not_batch_invariant
from emoprobe.models.source import ModelCard
from emoprobe.results import atomic
from emoprobe.workflow.model_checks import batch_problems
from emoprobe.workflow.triggers import Triggers
from server import supervisor
from server.pool.fleets import ServerSlot, local_process
from server.pool.launch import Share, command, environment
from server.pool.launcher import LaunchError
from server.pool.run import ExperimentJobs
from server.pool.slurm.cluster import JobState
from server.pool.slurm.folder import JobCommand
from server.pool.slurm.job import SlurmJob
from tests.server.pool.house import House
from tests.workspace import ROOT

VARIABLE = "EMOPROBE_CUDA"  # the folder of an environment with envs/cuda.txt
SHIPPED = [ROOT / "config/config.yaml", *sorted((ROOT / "config").glob("experiments/*.yaml"))]
ENGINES: list[dict[str, Any]] = [
    {},
    {"max_model_len": None, "compile": False},
    {"max_model_len": 16384, "tensor_parallel": 4, "compile": True},
    {"extra_args": ["--quantization", "fp8", "--seed", "1", "--no-enable-prefix-caching"]},
]
VALUES = {"model.dtype": "bfloat16", "engine.tensor_parallel": 1, "engine.max_model_len": 4096}
SHARES = [Share([0, 1], ["0"]), Share([0, 1], ["0", "1", "2", "3"])]


def line(config: Config, share: Share, model: Path) -> list[str]:
    """The arguments of a vLLM server."""
    whole = command("vllm", config, str(model), config.model.source, share, 8123, Path("/results"))
    assert whole[:4] == [sys.executable, "-m", "server.pool.child", "vllm.entrypoints.openai.api_server"]
    return whole[4:]


@pytest.fixture
def cuda() -> Path:
    """The interpreter of an environment with vLLM for CUDA."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"{VARIABLE} names no environment with envs/cuda.txt; `envs/install.sh` makes one, of 9 GB")
    return Path(folder).absolute() / "bin/python"


def test_its_own_parser_reads_every_line(cuda: Path, tmp_path: Path) -> None:
    configs = [config for path in SHIPPED for config in load_study(path).configs.values()]
    configs += [parse_config({"generation": {"engine": engine}}) for engine in ENGINES]
    configs = [with_placement(with_values(config, VALUES), tmp_path) for config in configs]
    pairs = [(config, share) for config in configs for share in SHARES]
    script = Path(__file__).with_name("vllm_parse.py")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    asked = json.dumps([line(config, share, tmp_path) for config, share in pairs])
    done = subprocess.run([str(cuda), str(script)], input=asked, capture_output=True, text=True, env=env, timeout=580)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    locked = dict(text.split("==") for text in (ROOT / "envs/cuda.txt").read_text().splitlines() if "==" in text)
    assert answer["vllm"] == locked["vllm"]
    assert answer["cuda"] is not None
    assert len(answer["read"]) == len(pairs)
    for (config, _), read in zip(pairs, answer["read"], strict=True):
        engine = config.generation.engine
        assert read == {
            "model": str(tmp_path),
            "name": [config.model.source],
            "dtype": config.model.dtype,
            "port": 8123,
            "host": "127.0.0.1",
            "max_num_seqs": config.workers.requests,
            "max_model_len": engine.max_model_len,
            "gpu_memory": config.workers.gpu_memory,
            "tensor_parallel": engine.tensor_parallel,
            "eager": engine.compile is False,
        }


OLD, NEW = hardware.parse_gpus("0, GPU-a1b2, Tesla T4, 15360, 7.5\n1, GPU-c3d4, NVIDIA H100 80GB HBM3, 81559, 9.0\n")


def test_batch_invariance_is_asked_for_where_the_gpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "gpus", lambda: [OLD, NEW])
    config = parse_config({})
    with_it = environment(config, Share([0], ["1"]), "key")
    assert with_it["VLLM_BATCH_INVARIANT"] == "1"
    assert with_it["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"  # of which the share's indices speak
    monkeypatch.delenv("VLLM_BATCH_INVARIANT", raising=False)
    for gpus in (["0"], ["0", "1"], ["GPU-a1"]):
        assert "VLLM_BATCH_INVARIANT" not in environment(config, Share([0], gpus), "key")
    assert hardware.described(["0", "1"]) == f"{OLD} + {NEW}"
    assert hardware.described([]).startswith("CPU ")


def test_batch_invariance_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "gpus", lambda: [OLD, NEW])
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    on, off = (parse_config({"generation": {"engine": {"batch_invariant": choice}}}) for choice in (True, False))
    assert environment(on, Share([0], ["1"]), "key")["VLLM_BATCH_INVARIANT"] == "1"
    assert "VLLM_BATCH_INVARIANT" not in environment(off, Share([0], ["1"]), "key")
    with pytest.raises(LaunchError, match=r"batch_invariant = True: Tesla T4 .* set it to auto or false"):
        environment(on, Share([0], ["0", "1"]), "key")
    default = parse_config({})
    assert {Triggers.of(config).answers for config in (on, off)}.isdisjoint({Triggers.of(default).answers})
    assert "batch_invariant" not in default.generation.engine.content()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "qwen3_next"}, "models of the kind qwen3_next"),
        ({"model_type": "x", "layer_types": ["linear_attention", "full_attention"]}, "kind linear_attention"),
        ({"text_config": {"layer_types": ["mamba", "attention"]}}, "kind mamba"),
        ({"model_type": "gemma3", "layer_types": ["sliding_attention", "full_attention"]}, None),
        ({"model_type": "llama"}, None),
    ],
)
def test_models_without_batch_invariant_kernels(tmp_path: Path, settings: dict[str, Any], words: str | None) -> None:
    reason = why_not_batch_invariant(settings)
    assert (reason is None) == (words is None)
    assert words is None or (reason is not None and words in reason)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    kept = {"model.dtype": "float32", "capture.dtype": "float16", "engine.tensor_parallel": 1}
    card = ModelCard("m", str(tmp_path), None, "", 4096, resolved=kept)
    for choice in ("auto", False, True):
        engine = {"batch_invariant": choice, "max_model_len": 4096}
        config = parse_config({"generation": {"engine": engine}})
        experiment = ExperimentJobs(config, tmp_path / str(choice), tmp_path)
        atomic.write_json(experiment.layout.model, card.to_json())
        # Without a choice a server starts without them; insisting on them is refused while the plan is made.
        started = experiment.started.generation.engine.batch_invariant
        assert started is (False if choice == "auto" and words else choice)
        problem = f"generation.engine.batch_invariant = True: {reason}; set it to auto or false"
        assert list(batch_problems(config, settings)) == [problem] * (choice is True and words is not None)


def test_insisting_on_an_old_gpu_is_refused_while_the_plan_is_made() -> None:
    workers = {"endpoints": ["http://a:1"], "hardware": {"http://a:1": str(OLD)}}
    config = parse_config({"generation": {"engine": {"batch_invariant": True}}, "workers": workers})
    assert "need compute capability 8.0; set it to auto" in "".join(batch_problems(config, {}))


def test_a_server_here_with_a_gpu_needs_pytorch_for_cuda(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.add("one")
    experiment = ExperimentJobs(load_config(house.plan / "one.json"), house.results, house.folder)
    slot = ServerSlot("vllm", 0, Share([0], ["0"]), "key", house.folder / "log")
    monkeypatch.setattr(hardware, "torch_build", lambda *_: "cpu")
    with pytest.raises(LaunchError, match=r"PyTorch for CPUs; install envs/cuda\.txt with `make HARDWARE=cuda env`"):
        asyncio.run(local_process(experiment, slot).start())
    assert not (house.folder / "log").exists()


class RefusedCluster:
    """SLURM starts each job, which says that it cannot start a server."""

    def __init__(self, folder: Path) -> None:
        self.path = folder

    async def open(self) -> RefusedCluster:
        return self

    async def submit(self, _options: list[str], _script: str) -> str:
        note = {"status": 1, "reason": "it has PyTorch for CPUs"}
        (self.path / "vllm-0-1" / supervisor.ENDED).write_text(json.dumps(note))
        return "17"

    async def look(self) -> None:
        """Nothing to see."""

    def state(self, _job: str) -> JobState:
        return JobState("RUNNING", "None", "node1")


def test_a_slurm_job_that_cannot_start_a_server_is_not_started_again(tmp_path: Path) -> None:
    cluster: Any = RefusedCluster(tmp_path)
    made = JobCommand(["python"], {}, tmp_path)
    job = SlurmJob("vllm-0", SlurmShape(gres="gpu:1"), lambda: made, "key", cluster, tmp_path / "log")
    with pytest.raises(LaunchError, match="job 17: it has PyTorch for CPUs"):
        asyncio.run(job.start())


def test_what_the_driver_says_is_read() -> None:
    assert (OLD.name, OLD.memory_gb, OLD.capability, OLD.batch_invariant) == ("Tesla T4", 16.1, (7, 5), False)
    assert (NEW.memory_gb, NEW.batch_invariant) == (85.5, True)
    assert hardware.parse_gpus("No devices were found\n0, GPU-e5, Old, [N/A], [N/A]\n") == []
