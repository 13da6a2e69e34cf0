"""Inspect as a client of the NNsight server: several turns, and the beginning of an answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.event import ModelEvent
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, GenerateConfig, get_model
from inspect_ai.solver import Generate, Solver, TaskState, solver

from emoprobe.conversations.rendering import Renderer
from tests.conftest import PATIENCE
from tests.nnsight_server import NNsightServer

CONTINUED = {"add_generation_prompt": False, "continue_final_message": True}
BEGINNING = "Three,"


@solver  # type: ignore[untyped-decorator]
def three_turns(last: dict[str, Any]) -> Solver:
    """Have three turns answered, of which the last answer has a beginning; its request has further fields."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        state = await generate(state)
        state.messages.append(ChatMessageUser(content="Go on."))
        state = await generate(state)
        state.messages += [ChatMessageUser(content="And now?"), ChatMessageAssistant(content=BEGINNING)]
        return await generate(state, extra_body={"return_token_ids": True, **last})

    return solve


# Inspect's provider for servers of vLLM asks by itself that the last message is continued.
@pytest.mark.parametrize(("provider", "last"), [("openai-api/emoprobe", CONTINUED), ("vllm", {})])
def test_inspect_asks_several_turns_and_continues_the_beginning_of_an_answer(
    nnsight_server: Callable[[str], NNsightServer],
    tiny: Callable[[str], Path],
    tmp_path: Path,
    provider: str,
    last: dict[str, Any],
) -> None:
    url, renderer = f"{nnsight_server('llama').url}/v1", Renderer.load(tiny("llama"))
    config = GenerateConfig(max_tokens=8, temperature=0.0, seed=1, extra_body={"return_token_ids": True}, max_retries=0)
    model = get_model(f"{provider}/tiny", base_url=url, api_key="none", config=config, memoize=False)
    task = Task(dataset=[Sample(input="Count to ten.")], solver=three_turns(last))
    (log,) = eval(task, model=model, display="none", log_dir=str(tmp_path), max_retries=0)
    assert log.status == "success", log.error
    (sample,) = log.samples or []
    said = [{"role": message.role, "content": message.text} for message in sample.messages]
    assert [message["role"] for message in said] == ["user", "assistant"] * 3 + ["assistant"]
    client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=PATIENCE)
    calls = [event.call for event in sample.events if isinstance(event, ModelEvent) and event.call is not None]
    assert len(calls) == 3
    for call, answer in zip(calls, (1, 3, 6), strict=True):
        prompt = renderer.render(said[:answer])
        response: Any = call.response
        assert response["prompt_token_ids"] == prompt.token_ids
        asked: Any = {"model": "tiny", "max_tokens": 8, "temperature": 0.0}
        assert said[answer]["content"] == client.completions.create(prompt=prompt.token_ids, **asked).choices[0].text
        assert response["choices"][0]["token_ids"]
    assert prompt.text.endswith(BEGINNING)
    assert sample.output.usage is not None
    assert sample.output.usage.input_tokens == len(prompt.token_ids)
