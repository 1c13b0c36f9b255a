"""Puts the gateway together: watch the upstreams, listen on both ports, drain on a signal.

One event loop and one process. Order of a drain: readiness off, nothing new, running generations to their end or to
`drain_s`, then the listeners.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from gateway.admission import Admission
from gateway.chat import template_source
from gateway.drafters import DrafterPlacement
from gateway.metrics import GatewayMetrics
from gateway.openai.app import build_app
from gateway.plane import Plane, one_cause
from gateway.records import Records
from gateway.settings import GatewaySettings
from gateway.upstreams import UpstreamPool
from gateway.verifier_face import VerifierFace
from nacre.errors import InvalidArgument
from nacre.runtime.service import GrpcService, announce_ready, set_up_logging, until_signalled
from nacre.v1 import verifier_pb2_grpc

log = logging.getLogger("nacre.gateway")

_KEEP_ALIVE_S = 30
_BACKLOG = 2048
#: After the drain: how long connections may take to go away, and verifiers to hear that sessions are given up.
_CLOSE_S = 2
_FAREWELLS_S = 2.0


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a gateway listens."""

    http_port: int
    grpc_port: int


async def serve(
    settings: GatewaySettings,
    *,
    ready: Callable[[Ports], None] | None = None,
    until: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]] = until_signalled,
) -> None:
    """Runs a gateway until SIGTERM or SIGINT. Raises NacreError for everything the caller can mend.

    `ready` is called once both ports take calls (there may be no verifier yet: see /readyz). `until(drain)` decides
    when to stop, calls `drain` and returns; the default waits for a signal.
    """
    set_up_logging(settings.log_level)
    if not settings.verifiers:
        raise InvalidArgument("no verifier is given; name at least one with --verifiers host:port", param="verifiers")
    with contextlib.closing(_listen(settings.http_host, settings.http_port)) as listener:
        service = GrpcService(settings.grpc_host, settings.grpc_port, ["nacre.v1.Verifier"])
        async with running_plane(settings) as plane:
            records = Records(plane)
            verifier_pb2_grpc.add_VerifierServicer_to_server(VerifierFace(plane, records), service.server)
            http = _HttpServer(_http_config(build_app(plane)))
            sweeping = plane.tasks.create_task(records.sweep(), name="records")
            serving = plane.tasks.create_task(http.serve(sockets=[listener]), name="http")
            await service.start()
            while not http.started and not serving.done():  # noqa: ASYNC110  uvicorn has no event for it
                await asyncio.sleep(0.01)
            ports = Ports(listener.getsockname()[1], service.port)
            log.info("serving HTTP on port %d and gRPC on port %d", ports.http_port, ports.grpc_port)
            (ready or _announce)(ports)
            try:
                await until(lambda: _drain(plane, service))
            finally:
                plane.draining = True
                plane.over.set()
                http.should_exit = True
                await asyncio.wait({serving})
                await service.stop(0.0)
                sweeping.cancel()


@contextlib.asynccontextmanager
async def running_plane(settings: GatewaySettings) -> AsyncIterator[Plane]:
    """Everything behind the faces, at work; ended with a farewell to the verifiers. Raises InvalidArgument."""
    metrics = GatewayMetrics()
    chat_source = template_source(settings.chat_template)
    async with one_cause(), asyncio.TaskGroup() as group:
        pool = UpstreamPool(settings, metrics, chat_source)
        admission = Admission(
            max_running=settings.max_concurrency,
            max_waiting=settings.max_queue,
            timeout_s=settings.queue_timeout_s,
            metrics=metrics,
        )
        plane = Plane(settings, metrics, pool, DrafterPlacement(settings, pool, metrics), admission, group)
        watchers = [
            group.create_task(pool.run(), name="upstreams"),
            group.create_task(plane.drafters.run(), name="drafters"),
        ]
        try:
            yield plane
        finally:
            await plane.settle(_FAREWELLS_S)
            for task in watchers:
                task.cancel()


class _HttpServer(uvicorn.Server):
    """Signals are the gateway's business: it drains both faces together."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _http_config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_CLOSE_S,
    )


def _announce(ports: Ports) -> None:
    announce_ready(service="gateway", http_port=ports.http_port, grpc_port=ports.grpc_port)


async def _drain(plane: Plane, service: GrpcService) -> None:
    log.info("draining: %d generations, up to %g s", plane.admission.running, plane.settings.drain_s)
    plane.draining = True
    await service.not_serving()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(plane.settings.drain_s):
            while plane.admission.busy:  # noqa: ASYNC110  a drain may be a tick late
                await asyncio.sleep(0.05)


def _listen(host: str, port: int) -> socket.socket:
    """A bound listening socket. Raises InvalidArgument if the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise InvalidArgument(
            f"cannot serve HTTP on {host}:{port} ({reason.lower()}); choose another --http-port", param="http_port"
        ) from None
    return listener
