"""What a person can do about an error: "run again" only where running again can help."""

from __future__ import annotations

import re
from collections.abc import Sequence

from emoprobe.conversations.responses import OtherPromptError
from server.pool.connections import RequestError

TRANSIENT = "run again for new attempts; logs/pool.log and logs/servers/ say more."
REQUEST = "change what is asked (the prompt, generation.max_tokens, generation.engine.max_model_len), then run again."
# Statuses by which one server refuses what another may accept: it has another key, or another model.
OF_THE_SERVER = (401, 403, 404)
_BY_STATUS = {
    401: "set workers.api_key_env or workers.api_key_file to the key of the servers, then run again.",
    403: "set workers.api_key_env or workers.api_key_file to a key that may do this, then run again.",
    404: "set workers.model_name to a model of the servers, and workers.endpoints to their base URLs, then run again.",
    502: "make the object storage that the server pushes to accept the files (see the error), then run again.",
    507: "make room in the folder where the server writes, and let it write there, then run again.",
}
# What a server writes when it ends by itself, and what to change for it.
_BY_LOG = (
    (
        r"out of memory|No available memory for the cache blocks|larger than the available KV cache|"
        r"less than desired GPU memory utilization|Cannot allocate memory|MemoryError",
        "the model does not fit: lower generation.engine.max_model_len, workers.kv_cache_gib or workers.count, set "
        "workers.gpu_memory or generation.engine.tensor_parallel to what the GPUs have, or take a smaller model.",
    ),
    (
        r"is greater than the derived max_model_len|larger than the maximum model length",
        "lower generation.engine.max_model_len to what the model holds.",
    ),
    (r"No module named '?([\w.]+)|ImportError|requires the (\S+) library", "install the package that is missing."),
    (r"No space left on device", "make room on the disk."),
    (r"Permission denied", "give this user the right to read and write the file that is named."),
    (r"unrecognized arguments|error: argument", "correct generation.engine.extra_args."),
    (
        r"does not recognize this architecture|[Mm]odel architectures? .* (?:is|are) not supported",
        "take a model that the server supports (model.source).",
    ),
)


def for_attempts(errors: Sequence[RequestError | ValueError]) -> str:
    """Return what to do where every attempt of a request failed, by the errors that they ended with."""
    statuses = {error.status for error in errors if isinstance(error, RequestError)}
    known = [_BY_STATUS[status] for status in _BY_STATUS if status in statuses]
    if known:
        return known[0]
    if all(isinstance(error, RequestError) and error.timed_out for error in errors):
        return "raise workers.timeout, or lower workers.requests or generation.max_tokens, then run again."
    if all(isinstance(error, OtherPromptError) for error in errors):
        return (
            "set workers.endpoints to servers that take the token ids of a prompt as they are, as vLLM's "
            "/v1/completions does, then run again."
        )
    if not any(isinstance(error, RequestError) for error in errors):
        return "set workers.endpoints to servers that answer as vLLM or the NNsight server do, then run again."
    return TRANSIENT


def for_server(log: str) -> str:
    """Return what to do where no server is left, by what was said of it and the end of its log."""
    found = [advice for pattern, advice in _BY_LOG if re.search(pattern, log)]
    return " ".join(found or ["change what the log names, then run again."])
