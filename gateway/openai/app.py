"""The routes, and what every request passes through: id, authentication, size limit, counting, errors.

    POST /v1/completions          GET /v1/models           GET /healthz   alive
    POST /v1/chat/completions     GET /v1/models/{id}      GET /readyz    takes requests
                                                           GET /metrics   Prometheus

Everything under /v1 needs a key if keys are set; what an orchestrator polls does not.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.auth import ApiKeys
from gateway.openai import answers, errors
from gateway.openai.errors import ApiError
from gateway.openai.fields import ChatFields, CompletionFields, parse
from gateway.openai.job import Job, chat_job, completion_job
from gateway.openai.responses import JobResponse
from gateway.plane import Plane
from nacre.errors import NacreError, Unavailable

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


def build_app(plane: Plane) -> ASGIApp:
    return Starlette(
        routes=[
            Route("/v1/completions", _Completions(plane).endpoint, methods=["POST"]),
            Route("/v1/chat/completions", _Completions(plane, chat=True).endpoint, methods=["POST"]),
            Route("/v1/models", _Models(plane).all, methods=["GET"]),
            Route("/v1/models/{name:path}", _Models(plane).one, methods=["GET"]),
            Route("/healthz", _Probes(plane).alive, methods=["GET"]),
            Route("/readyz", _Probes(plane).ready, methods=["GET"]),
            Route("/metrics", _Probes(plane).metrics, methods=["GET"]),
        ],
        middleware=[Middleware(Envelope, plane=plane)],
        exception_handlers={HTTPException: _routing_error},
    )


class Envelope:
    """Wraps every request: see the module's head."""

    def __init__(self, app: ASGIApp, plane: Plane) -> None:
        self._app = app
        self._plane = plane
        self._keys = ApiKeys(plane.settings.api_keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get(b"x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req-{secrets.token_hex(12)}"
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
                self._plane.metrics.http_answered(scope["path"], scope["method"], message["status"])
            await send(message)

        try:
            state = scope.setdefault("state", {})
            state["request_id"] = request_id
            if scope["path"].startswith("/v1"):
                state["tenant"] = self._keys.tenant(headers.get(b"authorization"))
            await self._app(scope, receive, send_on)
        except ClientDisconnect:  # before its request was complete: nobody is there to be answered
            self._plane.metrics.client_left()
        except Exception as failure:
            error = errors.described(failure)
            if started:
                raise
            await _error_response(error)(scope, receive, send_on)


class _Completions:
    def __init__(self, plane: Plane, *, chat: bool = False) -> None:
        self._plane = plane
        self._chat = chat

    async def endpoint(self, request: Request) -> Any:
        plane = self._plane
        body = await _read_body(request, plane.settings.max_body_bytes)
        if plane.draining:
            raise Unavailable("this gateway is shutting down; send the request to another one")
        return JobResponse(plane, await self._job(body, request.state.request_id, request.state.tenant))

    async def _job(self, body: bytes, label: str, tenant: str) -> Job:
        served, settings = self._plane.pool.model(), self._plane.settings
        if self._chat:
            return await chat_job(parse(body, ChatFields), served, settings, label=label, tenant=tenant)
        return await completion_job(parse(body, CompletionFields), served, settings, label=label, tenant=tenant)


class _Models:
    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    async def all(self, request: Request) -> Response:
        return _json_response({"object": "list", "data": [self._card()]})

    async def one(self, request: Request) -> Response:
        name, served = request.path_params["name"], self._plane.pool.model().name
        if name != served:
            raise errors.unknown_model(name, served)
        return _json_response(self._card())

    def _card(self) -> dict[str, Any]:
        served = self._plane.pool.model()
        return answers.model_card(served.name, served.created, served.max_positions)


class _Probes:
    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    async def alive(self, request: Request) -> Response:
        return _json_response({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        if self._plane.draining:
            raise Unavailable("this gateway is shutting down")
        pool = self._plane.pool
        if not pool.ready:
            pool.place()  # raises Unavailable with the reasons
        return _json_response({"status": "ready", "model": pool.model().name})

    async def metrics(self, request: Request) -> Response:
        text = self._plane.metrics.exposition()
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _read_body(request: Request, most_bytes: int) -> bytes:
    refusal = ApiError(
        413, f"the request body has more than {most_bytes} bytes, the limit: send less", code="body_too_large"
    )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most_bytes:
        raise refusal
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most_bytes:
            raise refusal
        chunks.append(chunk)
    return b"".join(chunks)


async def _routing_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    method, path = request.method[:20], request.url.path[:200]
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        told = ApiError(405, f"{method} is not allowed on {path}; use {allowed}", code="method_not_allowed")
    else:
        told = ApiError(
            error.status_code, f"nothing is served at {path}; see /v1/models", kind="not_found_error", code="not_found"
        )
    response = _error_response(told)
    response.headers.update(error.headers or {})
    return response


def _json_response(content: Any) -> Response:
    return Response(json.dumps(content), media_type="application/json")


def _error_response(error: ApiError | NacreError) -> Response:
    told = errors.described(error)
    response = Response(errors.body(told), status_code=told.status)
    for name, value in errors.headers(told):
        response.headers[name.decode()] = value.decode()
    return response
