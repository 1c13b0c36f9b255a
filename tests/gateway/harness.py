"""A running gateway for a test: in process for HTTP without a socket, or listening on real ports."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import httpx

from gateway.openai.app import build_app
from gateway.plane import Plane
from gateway.server import Ports, running_plane, serve
from gateway.settings import GatewaySettings
from nacre.v1 import verifier_pb2_grpc
from tests.gateway.fake_verifier import FakeDrafter, FakeVerifier

PATIENCE_S = 60.0


def settings_for(
    verifiers: Sequence[FakeVerifier], drafters: Sequence[FakeDrafter] = (), **changes: Any
) -> GatewaySettings:
    quick: dict[str, Any] = {
        "http_port": 0,
        "grpc_port": 0,
        "poll_s": 0.05,
        "poll_timeout_s": 20.0,  # a busy machine is no dead peer
        "failover_wait_s": 30.0,
        "log_level": "error",
    }
    return GatewaySettings(
        verifiers=tuple(verifier.address for verifier in verifiers),
        drafters=tuple(drafter.address for drafter in drafters),
        **{**quick, **changes},
    )


async def until(condition: Callable[[], object]) -> None:
    """Waits for something that must happen, however busy the machine is."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  any condition will do
            await asyncio.sleep(0.005)


@dataclass
class InProcess:
    plane: Plane
    http: httpx.AsyncClient

    async def complete(self, **fields: Any) -> dict[str, Any]:
        return await self.answered("/v1/completions", fields)

    async def chat(self, **fields: Any) -> dict[str, Any]:
        return await self.answered("/v1/chat/completions", fields)

    async def answered(self, path: str, fields: dict[str, Any]) -> dict[str, Any]:
        response = await self.http.post(path, json=fields)
        assert response.status_code == 200, response.text
        return response.json()

    async def streamed(self, path: str, **fields: Any) -> list[dict[str, Any]]:
        """All events of a stream but the last, which must be [DONE] unless an error ends it."""
        response = await self.http.post(path, json={**fields, "stream": True})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        return events_of(response.text)


def events_of(text: str) -> list[dict[str, Any]]:
    lines = [line for line in text.split("\n\n") if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines)
    events = [line.removeprefix("data: ") for line in lines]
    if "error" not in json.loads(events[-1] if events[-1] != "[DONE]" else "{}"):
        assert events.pop() == "[DONE]"
    return [json.loads(event) for event in events]


def text_of(chunks: Sequence[dict[str, Any]], index: int = 0) -> str:
    """The text that the chunks of one choice make."""
    text = ""
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] == index:
                text += choice["text"] if "text" in choice else choice["delta"].get("content", "")
    return text


@contextlib.asynccontextmanager
async def in_process(
    verifiers: Sequence[FakeVerifier], drafters: Sequence[FakeDrafter] = (), *, wait: bool = True, **changes: Any
) -> AsyncIterator[InProcess]:
    """The HTTP face without a socket, in front of real gRPC upstreams."""
    async with running_plane(settings_for(verifiers, drafters, **changes)) as plane:
        transport = httpx.ASGITransport(build_app(plane))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=60) as http:
            if wait:
                await until(lambda: plane.pool.ready and all(d.up for d in plane.pool.drafters.values()))
            yield InProcess(plane, http)


@dataclass
class Listening:
    ports: Ports
    http: httpx.AsyncClient
    stub: verifier_pb2_grpc.VerifierStub
    channel: grpc.aio.Channel
    stop: asyncio.Event
    running: asyncio.Task[None]


@contextlib.asynccontextmanager
async def listening(
    verifiers: Sequence[FakeVerifier], drafters: Sequence[FakeDrafter] = (), *, wait: bool = True, **changes: Any
) -> AsyncIterator[Listening]:
    """A whole gateway on real ports; `stop` is its SIGTERM."""
    stop = asyncio.Event()
    bound: asyncio.Future[Ports] = asyncio.get_running_loop().create_future()

    async def until_stopped(drain: Callable[[], Any]) -> None:
        await stop.wait()
        await drain()

    settings = settings_for(verifiers, drafters, **{"drain_s": 5.0, **changes})
    running = asyncio.ensure_future(serve(settings, ready=bound.set_result, until=until_stopped))
    try:
        await asyncio.wait({running, bound}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        ports = bound.result()
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports.http_port}", timeout=60) as http,
            grpc.aio.insecure_channel(f"127.0.0.1:{ports.grpc_port}") as channel,
        ):
            if wait:
                async with asyncio.timeout(PATIENCE_S):
                    while (await http.get("/readyz")).status_code != 200:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
            yield Listening(ports, http, verifier_pb2_grpc.VerifierStub(channel), channel, stop, running)
    finally:
        stop.set()
        await running
