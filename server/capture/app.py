"""The routes: an OpenAI-compatible API that also captures activations."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from emoprobe.config.science.capture import STREAM_POINTS
from server.capture.answers import error_body
from server.capture.completions import Work
from server.capture.errors import TOLD, told
from server.capture.limits import RequestLimits
from server.capture.responses import AsciiJSON
from server.capture.schema import ChatRequest, CompletionRequest, Interventions, Ndif, StreamOptions
from server.capture.service import Service
from server.capture.streaming import events

MAX_BODY = 16 << 20
MAX_BODIES = 256 << 20  # of all requests at once
MAX_REQUESTS = 4096
CLIENT_CLOSED = 499
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
        """Whether the model is loaded and warm, and what waits."""
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
    async def structure() -> dict[str, Any]:
        """What can be captured: every hook point with the shape of its tensor.

        `residual_stream` says what the names that mean the same in every family are in this one: a site, or a sum of
        sites (a module path and its side, relative to a decoder layer); null, and why, where there is no such place.
        """
        found = service.model.architecture
        return {
            "model": service.model.name,
            "architecture": type(service.model.causal).__name__,
            "revision": getattr(service.model.causal.config, "_commit_hash", None),
            "dtype": str(service.model.dtype).removeprefix("torch."),
            "n_layers": found.n_layers,
            "d_model": found.d_model,
            "max_model_len": service.model.max_length,
            "hook_points": [
                {"name": name, "shape": ["n_layers", "n_positions", found.width(name)]}
                for name in [*found.places, *found.widths]
            ],
            "residual_stream": {
                name: {"is": str(found.places[name]) if name in found.places else None, "why": found.missing.get(name)}
                for name in STREAM_POINTS
            },
            "defaults": _fields(service),
        }

    @app.get("/v1/interventions")
    async def interventions() -> dict[str, Any]:
        """The defaults for what a request's `ndif` leaves out."""
        return _fields(service)

    @app.post("/v1/interventions")
    async def set_interventions(body: Interventions) -> dict[str, Any]:
        """Set these defaults; what is left out keeps its value."""
        given = {name: value for name, value in body.model_dump().items() if value is not None}
        wanted = service.captures.defaults.model_copy(update=given)
        service.captures.check_defaults(wanted)
        service.captures.defaults = wanted
        return _fields(service)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Continue a conversation."""
        return await _serve(await Work.chat(service, body), request, request_timeout)

    @app.post("/v1/completions")
    async def text(body: CompletionRequest, request: Request) -> Response:
        """Continue a text, or look at one: token ids with `max_tokens` 0 are captured as they are."""
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


def _fields(service: Service) -> dict[str, Any]:
    return service.captures.defaults.model_dump(include={"layers", "hook_points", "positions", "dtype"})


async def _serve(work: Work, request: Request, timeout: float) -> Response:
    if work.request.stream:
        return StreamingResponse(events(work, timeout), media_type="text/event-stream")
    try:
        async with asyncio.timeout(timeout):
            answer = await _unless_gone(request, work.answer())
    except TimeoutError:
        return AsciiJSON(error_body(f"no answer within {timeout:g} s", 408), 408)
    return Response(status_code=CLIENT_CLOSED) if answer is None else AsciiJSON(answer)


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
        first, *rest = error.errors()
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        more = f" (and {len(rest)} more)" if rest else ""
        if first["type"] == "extra_forbidden":
            first["msg"] = f"is no known field; accepted: {', '.join(_known(request.url.path, first['loc']))}"
        message = f"{place or 'body'}: {first['msg'].removeprefix('Value error, ')}{more}"
        return AsciiJSON(error_body(message, 400, place or None), 400)

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        return AsciiJSON(error_body(str(error.detail), error.status_code), error.status_code, error.headers)

    async def failed(_: Request, error: Exception) -> Response:
        status, body = told(error)
        return AsciiJSON(body, status)

    for kind in TOLD:
        app.add_exception_handler(kind, failed)


def _known(path: str, place: tuple[int | str, ...]) -> list[str]:
    """The fields that are accepted at a place in the body of a request."""
    if "ndif" in place:
        return list(Ndif.model_fields)
    if "stream_options" in place:
        return list(StreamOptions.model_fields)
    if path == "/v1/interventions":
        return list(Interventions.model_fields)
    return (ChatRequest if path == "/v1/chat/completions" else CompletionRequest).served_fields()
