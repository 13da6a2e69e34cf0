"""The workflow on real vLLM servers. One pool with two servers serves every test of this module."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import openai
import pandas as pd
import pytest
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.event import ModelEvent
from inspect_ai.model import GenerateConfig, get_model
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import Tool, ToolFunction, tool

from emoprobe.config.files import parse_config
from emoprobe.conversations.rendering import Renderer
from emoprobe.conversations.tools import described_tools
from emoprobe.results.trajectory import Trajectory
from tests.byte_tokenizer import TOOL_CHATML
from tests.conftest import PATIENCE, VARIANTS
from tests.tools import look
from tests.workflow.pool import end_pool, server_key, server_process, worker_status, workers
from tests.workspace import Workspace, wait_for

# With tools, whose calls have arguments as their functions take them.
TOOLS = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--tool-strict-level", "parameter"]
LOOK = {"type": "function", "function": {"name": "look"}}
WORKERS = {"count": 2, "keep_alive": 1800.0, "kv_cache_gib": 1}


@pytest.fixture(scope="module")
def model(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with a chat template that shows tools."""
    folder = shutil.copytree(smollm2, tmp_path_factory.mktemp("tools") / "model")
    (folder / "chat_template.jinja").write_text(TOOL_CHATML)
    return folder


@pytest.fixture(scope="module")
def base(model: Path) -> Iterator[dict[str, Any]]:
    """The config that all tests share a server by; the server ends with the module."""
    config = {
        "experiment": {"name": "real"},
        "model": {"source": str(model)},
        "dataset": {"samples": 4},
        "variants": VARIANTS,
        "generation": {"max_tokens": 24, "engine": {"max_model_len": 2048, "extra_args": TOOLS}},
        "workers": WORKERS,
        "capture": {"enabled": False},
    }
    yield config
    end_pool(config)


@pytest.fixture(scope="module")
def finished(base: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A finished run of three variants on four samples."""
    workspace = Workspace(tmp_path_factory.mktemp("vllm"), base)
    workspace.output = workspace.run()  # type: ignore[attr-defined]
    return workspace


@pytest.fixture
def fresh(base: dict[str, Any], tmp_path: Path) -> Callable[..., Workspace]:
    """Another folder with the same servers."""

    def make(**sections: Any) -> Workspace:
        config = {**base}
        for section, values in sections.items():
            config[section] = {**config.get(section, {}), **values}
        return Workspace(tmp_path, config)

    return make


def test_every_pair_has_its_files_and_the_tables_agree(finished: Workspace) -> None:
    layout = finished.layout
    assert len(finished.trajectories()) == 12
    table = pd.read_parquet(layout.table("trajectories"))
    assert len(table) == 12
    accuracy = pd.read_parquet(layout.table("accuracy")).set_index("variant")
    assert list(accuracy.index) == list(VARIANTS)
    for variant in VARIANTS:
        graded = [
            finished.json(variant, sample, "sample.json")["metrics"]["correctness"]
            for sample in table["sample_id"].unique()
        ]
        assert accuracy.loc[variant, "correct"] == sum(graded)
    workers = pd.read_parquet(layout.table("workers"))
    assert set(workers["worker"]) <= {"vllm-0", "vllm-1"}
    assert workers["answered"].sum() == 12
    report = finished.json("report.json")
    assert report["trajectories"] == 12
    output = finished.output  # type: ignore[attr-defined]
    assert "control" in output
    assert "accuracy" in output


def test_stored_tokens_are_those_of_the_chat_template(finished: Workspace, model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    for variant in VARIANTS:
        state = finished.json(variant, "gsm8k_0002", "agent_state.json")
        text = tokenizer.apply_chat_template(state["request"]["messages"], add_generation_prompt=True, tokenize=False)
        assert state["prompt_token_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]
        content = state["response"]["choices"][0]["text"]
        assert tokenizer.decode(state["completion_token_ids"], skip_special_tokens=True) == content
        assert state["usage"]["completion_tokens"] == len(state["completion_token_ids"])


def test_metadata_tells_how_to_run_it_again(finished: Workspace) -> None:
    found = finished.json("metadata.json")
    assert found["experiment_name"] == "real"
    assert found["random_seed"] == 42
    assert found["samples"] == ["gsm8k_0001", "gsm8k_0002", "gsm8k_0003", "gsm8k_0004"]
    assert len(found["model"]["sha256"]) == 64
    assert found["package_versions"]["snakemake"].startswith("9.")
    assert parse_config(finished.json("experiment_config.json")) == parse_config(finished.config)


def test_nothing_is_left_to_do(finished: Workspace) -> None:
    assert finished.planned() == {}


def test_lost_trajectories_come_back_byte_for_byte(finished: Workspace) -> None:
    before = finished.trajectories()
    for path in list(before)[::3]:
        (finished.layout.root / path).unlink()
    assert finished.planned()["generate"] == 4
    finished.run("--until", "generate")
    assert finished.trajectories() == before


def test_sampled_trajectories_come_back_byte_for_byte(fresh: Callable[..., Workspace]) -> None:
    workspace = fresh(experiment={"name": "sampled"}, generation={"temperature": 0.8, "top_p": 0.95})
    workspace.run("--until", "generate")
    before = workspace.trajectories()
    assert len(set(before.values())) == 12
    for path in list(before)[::4]:
        (workspace.layout.root / path).unlink()
    workspace.run("--until", "generate")
    assert workspace.trajectories() == before


def test_a_prompt_that_is_too_long_fails_alone_with_its_reason(fresh: Callable[..., Workspace]) -> None:
    workspace = fresh(
        experiment={"name": "long"}, dataset={"samples": 2}, variants={"endless": {"text": "word " * 4000}}
    )
    output = workspace.run(ok=False)
    assert len(workspace.trajectories()) == 6
    log = (workspace.layout.log("generate", "endless", "gsm8k_0001")).read_text()
    assert "refused the request: status 400" in log
    assert "endless/gsm8k_0001" in log
    assert "maximum" in log or "context" in log or "length" in log
    assert "gsm8k_0001" in output


@dataclass
class Server:
    """A server of the pool as its clients know it."""

    url: str
    key: str = field(repr=False)
    model: str

    def rendered(self, messages: list[Any], tools: list[Any]) -> list[int]:
        """The tokens of a prompt with tools, by the renderer."""
        return Renderer.load(Path(self.model)).render(messages, {"tools": tools}).token_ids


@pytest.fixture
def server(base: dict[str, Any], finished: Workspace) -> Server:
    """The first server of the pool."""
    return Server(worker_status(base, "vllm-0")["url"], server_key(base, "vllm-0"), base["model"]["source"])


def direction(arguments: str) -> str:
    """The direction in the arguments of a call, which the model may write in no other way."""
    found = json.loads(arguments)
    assert found.keys() == {"direction"}
    assert found["direction"] in ("north", "south")
    return str(found["direction"])


@pytest.mark.parametrize("choice", ["required", "look"])
def test_a_model_calls_a_tool_and_goes_on_with_its_result(
    fresh: Callable[..., Workspace], server: Server, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    monkeypatch.setenv("SERVER_KEY", server.key)
    agent = {"kind": "agent", "tools": ["tests.tools:look"], "tool_parser": "hermes", "tool_choice": choice}
    workspace = fresh(
        experiment={"name": "agent"},
        dataset={"samples": 2},
        conversation=agent | {"max_turns": 3},
        generation={"max_tokens": 96},
        workers={"endpoints": [server.url], "api_key_env": "SERVER_KEY", "keep_alive": 0.0},
    )
    workspace.run("--until", "generate")
    made = workspace.trajectories()
    assert len(made) == 6
    for path in made:
        found = Trajectory.read((workspace.layout.root / path).parent)
        assert found.state is not None
        first, *others = [*(found.state.earlier_turns or []), found.state]
        assert others
        assert first.finish_reason == "tool_calls"
        called, result = found.messages[first.answer], found.messages[first.answer + 1]
        (call,) = called["tool_calls"]
        assert result["content"] == look(direction(call["function"]["arguments"]))  # type: ignore[arg-type]
        answers = [number for number, message in enumerate(found.messages) if message["role"] == "assistant"]
        for answer, turn in zip(answers, (first, *others), strict=True):
            tokens = server.rendered(found.messages[:answer], found.state.request["tools"])
            assert turn.prompt_token_ids == tokens
    path = next(iter(made))
    (workspace.layout.root / path).unlink()
    workspace.run("--until", "generate")
    assert workspace.trajectories() == made


def test_the_openai_client_has_a_model_call_a_tool_in_several_turns(server: Server) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0, timeout=PATIENCE)
    tools: Any = described_tools(("tests.tools:look",))
    messages: list[Any] = [{"role": "user", "content": "What is in the north?"}]
    asked: Any = {"model": server.model, "tools": tools, "max_tokens": 96, "temperature": 0.0, "seed": 1}
    asked["extra_body"] = {"return_token_ids": True}
    for choice in (LOOK, "none", "required"):
        answer = client.chat.completions.create(messages=messages, tool_choice=choice, **asked)  # type: ignore[call-overload]
        assert answer.model_extra["prompt_token_ids"] == server.rendered(messages, tools)
        message = answer.choices[0].message
        messages.append({"role": "assistant", "content": message.content or ""})
        if choice == "none":
            assert not message.tool_calls
            messages.append({"role": "user", "content": "And what is in the south?"})
            continue
        (call,) = message.tool_calls
        assert call.function.name == "look"
        messages[-1]["tool_calls"] = [call.model_dump()]
        content = look(direction(call.function.arguments))  # type: ignore[arg-type]
        messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    assert [message["role"] for message in messages] == [
        "user", "assistant", "tool", "assistant", "user", "assistant", "tool"
    ]  # fmt: skip


@tool  # type: ignore[untyped-decorator]
def lookout() -> Tool:
    """Inspect's form of the tool `look`."""

    async def execute(direction: Literal["north", "south"]) -> str:
        """Look in a direction.

        Args:
            direction: Where to look.
        """
        return look(direction)

    return execute


def test_inspect_has_a_model_call_a_tool_and_goes_on_with_its_result(server: Server, tmp_path: Path) -> None:
    config = GenerateConfig(
        max_tokens=96, temperature=0.0, seed=1, extra_body={"return_token_ids": True}, max_retries=0
    )
    model = get_model(
        f"openai-api/emoprobe/{server.model}", base_url=f"{server.url}/v1", api_key=server.key, config=config,
        memoize=False,
    )  # fmt: skip
    solver = [
        use_tools(lookout(), tool_choice=ToolFunction(name="lookout")), generate(tool_calls="single"),
        use_tools(tool_choice="auto"), generate(tool_calls="none"),
    ]  # fmt: skip
    task = Task(dataset=[Sample(input="What is in the north?")], solver=solver)
    (log,) = eval(task, model=model, display="none", log_dir=str(tmp_path))
    assert log.status == "success", log.error
    (sample,) = log.samples or []
    _, called, result, answer = sample.messages
    assert called.role == answer.role == "assistant"
    assert called.tool_calls is not None
    assert result.text == look(called.tool_calls[0].arguments["direction"])
    calls = [event.call for event in sample.events if isinstance(event, ModelEvent) and event.call is not None]
    assert len(calls) == 2
    for call in calls:
        request: Any = call.request
        response: Any = call.response
        assert response["prompt_token_ids"] == server.rendered(request["messages"], request["tools"])


def test_a_killed_server_costs_and_changes_nothing(base: dict[str, Any], fresh: Callable[..., Workspace]) -> None:
    wait_for(lambda: worker_status(base, "vllm-1")["state"] == "live", PATIENCE, "a second server")
    workspace = fresh(experiment={"name": "killed"}, generation={"max_tokens": 120})
    process = workspace.start("--until", "analyze_behaviour")
    wait_for(lambda: worker_status(base, "vllm-1")["in_flight"] > 0, PATIENCE, "requests at the second server")
    server, before = server_process(base, "vllm-1"), worker_status(base, "vllm-1")["restarts"]
    assert server is not None
    os.kill(server, signal.SIGKILL)
    assert process.wait(PATIENCE) == 0, (workspace.folder / "snakemake.out").read_text()[-3000:]
    workers = pd.read_parquet(workspace.layout.table("workers")).set_index("worker")
    assert int(workers["failures"]["vllm-1"]) >= 1
    assert worker_status(base, "vllm-1")["restarts"] == before + 1
    made = workspace.trajectories()
    assert len(made) == 12
    for path in list(made)[::2]:
        (workspace.layout.root / path).unlink()
    workspace.run("--until", "generate")
    assert workspace.trajectories() == made


def test_the_pool_says_what_it_runs(finished: Workspace) -> None:
    first, second = workers(finished.config)
    assert first["state"] == "live"
    assert first["in_flight"] == second["in_flight"] == 0
    assert first["served"] + second["served"] >= 12
