"""Errors of requests, and the JSON responses that report them."""

from __future__ import annotations

import json
import logging
from typing import Any

from fastapi.responses import JSONResponse

from emoprobe.results.activation_folder import ActivationError

log = logging.getLogger(__name__)


class BadRequestError(ValueError):
    """A request that cannot be served as it is; the message says what is accepted. `param` names the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class UnknownModelError(ValueError):
    """A request for a model that is not the served one."""


class BusyError(RuntimeError):
    """A request for which there is no memory left beside the others."""

    def __init__(self) -> None:
        super().__init__("the requests at once hold all memory that the server has for them; send this one again later")


class ForwardError(RuntimeError):
    """The model failed on a request."""

    def __init__(self, message: str = "the model failed on this request; see the server's log") -> None:
        super().__init__(message)


class NotFiniteError(ForwardError):
    """Predictions of a sequence that are infinite or no numbers; another try gives the same."""

    def __init__(self) -> None:
        super().__init__(
            "the model's predictions for this request are not finite: load the model in another type (model.dtype, or "
            "--dtype of the server)"
        )


class OutOfMemoryError(ForwardError):
    """The device has too little memory for a request, even without any other in the same batch."""

    def __init__(self) -> None:
        super().__init__(
            "the device has too little memory for this request alone; send a shorter text, capture fewer layers and "
            "hook points, or start the server with more GPU memory"
        )


REQUEST_ERRORS = (BadRequestError, UnknownModelError, BusyError, ForwardError, ActivationError, OSError)


def error_body(message: str, status: int, param: str | None = None) -> dict[str, Any]:
    """An error as OpenAI clients read it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def error_response(error: Exception) -> tuple[int, dict[str, Any]]:
    """The status and the body for one of the `REQUEST_ERRORS`."""
    match error:
        case BadRequestError():
            status, message, param = 400, str(error), error.param
        case UnknownModelError():
            status, message, param = 404, str(error), "model"
        case BusyError():
            status, message, param = 429, str(error), None
        case ActivationError():
            log.error("cannot push: %s", error)
            status, message, param = 502, str(error), None
        case OSError():
            log.error("cannot write: %s", error)
            status, message, param = 507, f"cannot write: {error.strerror or error}", None
        case _:
            status, message, param = 500, str(error), None
    return status, error_body(message, status, param)


class AsciiJSON(JSONResponse):
    """JSON in ASCII: it can also quote half of a surrogate pair that a client sent."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
