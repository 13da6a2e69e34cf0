"""The routes: an OpenAI-compatible API that also captures activations."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Coroutine
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from emoprobe.config.science.capture import STREAM_POINTS
from server.capture.completions import Work, events
from server.capture.errors import REQUEST_ERRORS, AsciiJSON, BadRequestError, error_body, error_response
from server.capture.limits import RequestLimits
from server.capture.schema import ChatRequest, CompletionRequest, Interventions, Sampling, accepted_fields
from server.capture.service import Service

MAX_BODY = 16 << 20
MAX_BODIES = 512 << 20  # of all requests at once, with what becomes of them
MAX_REQUESTS = 4096
CLIENT_CLOSED = 499
MAX_PLACE = 300  # characters of a field's name in a message
CLIENT_HEADER = "x-emoprobe-client"
BODIES: dict[str, type[BaseModel]] = {
    "/v1/interventions": Interventions,
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": text}
    for status, text in (
        (400, "The request cannot be served; the message says what is accepted."),
        (401, "The API key is missing or wrong."),
        (404, "The model is not the one that is served."),
        (408, "It took longer than the server allows."),
        (413, "The body is too large."),
        (429, "Too many requests at once."),
    )
}


def create_app(service: Service, api_key: str | None, request_timeout: float) -> FastAPI:
    """The application. The service is ready when this is called, so `/health` has nothing to wait for."""
    app = FastAPI(title="Emoprobe NNsight server", default_response_class=AsciiJSON, responses=ERRORS)
    app.add_middleware(
        RequestLimits, api_key=api_key, max_body=MAX_BODY, max_bodies=MAX_BODIES, max_requests=MAX_REQUESTS
    )
    _add_error_handlers(app)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Report the load; status 503 once the device fails for good, so that the server is restarted."""
        if service.engine.failure is not None:
            raise HTTPException(503, f"the device failed, restart the server: {service.engine.failure}")
        return {"status": "ok", **service.engine.load}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {
            "object": "list",
            "data": [
                {
                    "id": service.model.name,
                    "object": "model",
                    "created": 0,
                    "owned_by": "emoprobe",
                    "max_model_len": service.model.max_length,
                }
            ],
        }

    @app.get("/v1/model/structure")
    async def structure(request: Request) -> dict[str, Any]:
        """Return every hook point with the shape of its tensor.

        `residual_stream` says what the names that mean the same in every family are in this one: a site, or a sum of
        sites (a module path and its side, relative to a decoder layer); null, and why, where there is no such place.
        """
        architecture = service.model.architecture
        return {
            "model": service.model.name,
            "architecture": type(service.model.causal).__name__,
            "revision": getattr(service.model.causal.config, "_commit_hash", None),
            "dtype": str(service.model.dtype).removeprefix("torch."),
            "n_layers": architecture.n_layers,
            "d_model": architecture.d_model,
            "max_model_len": service.model.max_length,
            "hook_points": [
                {"name": name, "shape": ["n_layers", "n_positions", architecture.width(name)]}
                for name in [*architecture.places, *architecture.widths]
            ],
            "residual_stream": {
                name: {
                    "is": str(architecture.places[name]) if name in architecture.places else None,
                    "why": architecture.missing.get(name),
                }
                for name in STREAM_POINTS
            },
            "defaults": _defaults(service, request),
        }

    @app.get("/v1/interventions")
    async def interventions(request: Request) -> dict[str, Any]:
        """The client's defaults for what a request's `ndif` leaves out."""
        return _defaults(service, request)

    @app.post("/v1/interventions")
    async def set_interventions(body: Interventions, request: Request) -> dict[str, Any]:
        """Set the defaults of this client alone; what is left out keeps its value."""
        client = _client(request)
        if client is None:
            raise BadRequestError(f"defaults hold for one client: give it a name, in the header {CLIENT_HEADER}")
        given = {name: value for name, value in body.model_dump().items() if value is not None}
        service.captures.set_defaults(client, service.captures.defaults(client).model_copy(update=given))
        return _defaults(service, request)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Continue a conversation."""
        _fill_in(service, body, request)
        return await _serve(await Work.chat(service, body), request, request_timeout)

    @app.post("/v1/completions")
    async def text(body: CompletionRequest, request: Request) -> Response:
        """Continue a text, or look at one: token ids with `max_tokens` 0 are captured as they are."""
        _fill_in(service, body, request)
        return await _serve(await Work.text(service, body), request, request_timeout)

    @app.get("/v1/activations/{save_dir:path}/{file}", response_class=FileResponse)
    async def activation_file(save_dir: str, file: Literal["activations.safetensors", "metadata.json"]) -> Response:
        """A file of a folder that was written, for clients that do not share the server's disk."""
        path = service.captures.folder(save_dir) / file
        if not path.is_file():
            raise HTTPException(404, f"there is no {file} in {save_dir}")
        return FileResponse(path, media_type="application/octet-stream")

    @app.delete("/v1/activations/{save_dir:path}")
    async def delete_activations(save_dir: str) -> dict[str, Any]:
        """Delete an activation folder; one that does not exist counts as deleted."""
        await asyncio.to_thread(service.storage.delete, service.captures.folder(save_dir))
        return {"deleted": save_dir}

    return app


def _client(request: Request) -> str | None:
    """Return the sender of a request: its key and name; None where it has neither.

    Raises:
        BadRequestError: the name is none.
    """
    key, name = (request.headers.get(header, "") for header in ("authorization", CLIENT_HEADER))
    if not re.fullmatch(r"[\x21-\x7e]{0,200}", name):
        raise BadRequestError(f"{CLIENT_HEADER}: at most 200 printable ASCII characters without a space are accepted")
    return hashlib.sha256(f"{key}\0{name}".encode()).hexdigest() if key or name else None


def _defaults(service: Service, request: Request) -> dict[str, Any]:
    return service.captures.defaults(_client(request)).model_dump(include=set(Interventions.model_fields))


def _fill_in(service: Service, body: Sampling, request: Request) -> None:
    """Give a request that captures what its client has set for the fields that it leaves out."""
    if body.ndif is not None and body.ndif.captures:
        body.ndif = body.ndif.over(service.captures.defaults(_client(request)))


async def _serve(work: Work, request: Request, timeout: float) -> Response:
    if work.request.stream:
        return StreamingResponse(events(work, timeout), media_type="text/event-stream")
    try:
        async with asyncio.timeout(timeout):
            answer = await _unless_gone(request, work.answer())
        return Response(status_code=CLIENT_CLOSED) if answer is None else AsciiJSON(answer)
    except TimeoutError:
        return AsciiJSON(error_body(f"no answer within {timeout:g} s", 408), 408)
    finally:
        work.release()


async def _unless_gone(request: Request, work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any] | None:
    """The result of some work, which is cancelled, and None, when the client goes away before it is done."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    doing, leaving = asyncio.create_task(work), asyncio.create_task(gone())
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        leaving.cancel()
        doing.cancel()
        await asyncio.wait({doing})


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        errors = error.errors()
        # Of a value that may be of several types there is an error for each: an unknown field says the most.
        first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
        parts = first["loc"][1:] if first["loc"][0] == "body" else first["loc"]
        place = ".".join(map(str, parts))[:MAX_PLACE]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        body = BODIES.get(request.url.path)
        if first["type"] == "extra_forbidden" and body is not None:
            first["msg"] = f"is no known field; accepted: {', '.join(accepted_fields(body, parts))}"
        message = f"{place or 'body'}: {first['msg'].removeprefix('Value error, ')}{more}"
        return AsciiJSON(error_body(message, 400, place or None), 400)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        return AsciiJSON(error_body(str(error.detail), error.status_code), error.status_code, error.headers)

    async def failed(_: Request, error: Exception) -> Response:
        status, body = error_response(error)
        return AsciiJSON(body, status)

    for kind in REQUEST_ERRORS:
        app.add_exception_handler(kind, failed)

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> Response:
        message = f"the server failed on this request ({type(error).__name__}); see its log"
        return AsciiJSON(error_body(message, 500), 500)
