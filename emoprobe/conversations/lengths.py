"""Tokens that the longest conversation of an experiment needs: the context that vLLM is started with."""

from __future__ import annotations

from collections.abc import Iterable

from emoprobe.config.experiment import Config
from emoprobe.conversations.kinds import longest_conversation
from emoprobe.conversations.rendering import Renderer
from emoprobe.conversations.requests import rendered_prompt
from emoprobe.models.resolved import LEAST_LENGTH
from emoprobe.results.trajectory import Sample


def needed_length(config: Config, renderer: Renderer, samples: Iterable[Sample], context: int | None) -> int:
    """Return a length that every conversation of an experiment fits in, in tokens: its prompts and completions.

    It is a power of two from `LEAST_LENGTH` on, so that experiments share servers, or the model's own length. For
    agents and functions, whose lengths are not known in advance, it is the model's own.

    Args:
        config: the experiment.
        renderer: the model's.
        samples: of the data set.
        context: the longest text that the model takes; None where it is not known.

    Raises:
        DataError: a sample cannot be drawn.
        VariantError: a transform fails.
        PromptError: a prompt cannot be rendered.
    """
    if config.conversation.is_open and context is not None:
        return context
    longest = 0
    for sample in samples:
        for variant, settings in config.variants.items():
            for ask in range(settings.asks):
                draw = ask * config.generation.draws + 1
                turn = longest_conversation(config, variant, sample.question, sample.index, draw)
                request = {"messages": turn.messages, "chat_template_kwargs": config.generation.chat_template}
                longest = max(longest, len(rendered_prompt(config, renderer, request).token_ids))
    return padded_length(longest + completion_room(config), context)


def padded_length(tokens: int, context: int | None) -> int:
    """Return a length that so many tokens fit in, see `needed_length`."""
    length = max(LEAST_LENGTH, 1 << (tokens - 1).bit_length())
    return min(length, context or length)


def completion_room(config: Config) -> int:
    """Return the most tokens of all completions of a conversation; of one answer where more are not certain."""
    return config.generation.max_tokens * config.conversation.sure_answers
