"""Describe the tools of an agent to a model, by the signatures and docstrings of their functions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from emoprobe.config.science.conversation import tool_name
from emoprobe.conversations.variants import VariantError
from emoprobe.functions import load_function


class ToolError(VariantError):
    """Raised for a tool that cannot be described to a model; the message names the key and the function."""


def tool_schemas(references: Sequence[str]) -> list[dict[str, Any]]:
    """Return tools as OpenAI's API takes them; transformers is imported for it, which takes seconds.

    Args:
        references: `conversation.tools`.

    Raises:
        ToolError: a function cannot be imported, or lacks a type hint or the description of an argument.
    """
    from transformers.utils.chat_template_utils import get_json_schema

    schemas = []
    for place, reference in enumerate(references):
        key = f"conversation.tools.{place}"
        function = load_function(key, reference, ToolError)
        try:
            schema = get_json_schema(function)["function"]
        except Exception as error:  # of kinds of the library's, and bare ones
            raise ToolError(f"{key}: {reference} cannot be described to a model ({error})") from error
        # The result's type, which transformers adds, is no part of OpenAI's API; vLLM leaves it out.
        described = {"description": schema["description"], "parameters": schema["parameters"]}
        schemas.append({"type": "function", "function": {"name": tool_name(reference), **described}})
    return schemas


def write(references: Sequence[str]) -> None:
    """Print the schemas of tools, or the error, as one line of JSON."""
    try:
        print(json.dumps({"schemas": tool_schemas(references)}))
    except ToolError as error:
        print(json.dumps({"error": str(error)}))
