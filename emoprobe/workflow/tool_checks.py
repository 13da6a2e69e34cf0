"""Check the tools of an agent, and whether the model's chat template shows them, once its tokenizer is here."""

from __future__ import annotations

from emoprobe.config.experiment import Config
from emoprobe.config.section import CONTROL
from emoprobe.conversations.rendering import PromptError, Renderer
from emoprobe.conversations.requests import rendered_prompt
from emoprobe.conversations.tool_schemas import ToolError, tool_schemas
from emoprobe.conversations.variants import opening_messages
from emoprobe.results.trajectory import Message

RESULT = "5 apples"


def check_tools(config: Config, renderer: Renderer) -> list[str]:
    """Return what is wrong with the tools of an experiment, one line a problem; transformers is imported for it."""
    settings, source = config.conversation, config.model.source
    if not settings.tools:
        return []
    try:
        schemas = tool_schemas(settings.tools)
    except ToolError as error:
        return [str(error)]
    name, number = schemas[0]["function"]["name"], "call01001"
    call = {"id": number, "type": "function", "function": {"name": name, "arguments": "{}"}}
    result = {"role": "tool", "name": name, "tool_call_id": number, "content": RESULT}
    opening: list[Message] = [*opening_messages(config, CONTROL, "What is 2 + 3?", 0)]
    if opening[-1]["role"] == "assistant":
        opening.pop()  # the beginning of an answer
    messages = [*opening, {"role": "assistant", "content": "", "tool_calls": [call]}, result]
    arguments = {"chat_template_kwargs": config.generation.chat_template}
    try:
        plain = rendered_prompt(config, renderer, {"messages": opening} | arguments).text
        shown = rendered_prompt(config, renderer, {"messages": opening, "tools": schemas} | arguments).text
        after = rendered_prompt(config, renderer, {"messages": messages, "tools": schemas} | arguments).text
    except PromptError as error:
        return [f"model.source = {source!r}: {error}; choose a model that was trained to call tools"]
    if shown == plain or RESULT not in after:
        what = "results of tools" if shown != plain else "tools"
        return [
            f"conversation.tools: the chat template of {source} does not show {what} to the model; choose a model that "
            "was trained to call tools"
        ]
    return []
