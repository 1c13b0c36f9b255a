"""What every service process does alike: log, listen, announce itself, stop on a signal, fail with one line.

Start-up prints one line `ready {json}` on standard output once the service accepts calls: parents wait for it and read
the ports from it. SIGTERM and SIGINT drain; a second signal stops at once. Exit codes: 0 stopped, 2 a mistake of the
caller (message on standard error, no traceback), 1 our own.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry, start_http_server

from nacre.errors import InvalidArgument, NacreError
from nacre.runtime.grpc_options import SERVER_OPTIONS
from nacre.runtime.settings import StoreSettings, load_settings

T = TypeVar("T")

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def run_service(
    name: str,
    kind: type[T],
    serve: Callable[[], Callable[..., Coroutine[Any, Any, None]]],
    *,
    with_store: bool = False,
) -> int:
    """Parses the service's settings and runs it; returns the process's exit code.

    `serve()` imports the service's main coroutine: what it needs loads only after the flags are known to be right.
    It is called with the settings, and with those of the store as `store` if the service has one.
    """
    try:
        loaded = load_settings(kind, name)
        others = {"store": _store_settings(loaded.config)} if with_store else {}
        uvloop.run(serve()(loaded.settings, **others))
    except NacreError as error:
        print(f"nacre {name}: {error.message}", file=sys.stderr)  # noqa: T201  the one line the caller needs
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _store_settings(config: str) -> StoreSettings:
    settings: StoreSettings = load_settings(StoreSettings, "store", ["--config", config] if config else []).settings
    return settings


def set_up_logging(level: str) -> None:
    """Events with fields on standard error; nothing per token, never user text."""
    if level not in LEVELS:
        raise InvalidArgument(f"log_level is {level!r}; it must be one of {', '.join(LEVELS)}", param="log_level")
    logging.basicConfig(
        level=LEVELS[level],
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("grpc").setLevel(logging.WARNING)


def freeze_loaded() -> None:
    """Keeps the garbage collector from everything that is loaded by now, for it stays for good.

    To look through the objects of torch and transformers takes a fifth of a second, in the middle of somebody's answer.
    """
    gc.collect()
    gc.freeze()


def announce_ready(**fields: Any) -> None:
    """Tells the parent process that calls are accepted."""
    freeze_loaded()
    print("ready " + json.dumps(fields), flush=True)  # noqa: T201  a protocol with the parent


class GrpcService:
    """A grpc.aio server with the standard health protocol and reflection."""

    def __init__(self, host: str, port: int, service_names: list[str]) -> None:
        self.server = grpc.aio.server(options=SERVER_OPTIONS)
        self.health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self._names = ["", *service_names]
        reflection.enable_server_reflection(
            [
                *service_names,
                health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
                reflection.SERVICE_NAME,
            ],
            self.server,
        )
        try:
            self.port = self.server.add_insecure_port(f"{host}:{port}")
        except RuntimeError:
            self.port = 0
        if self.port == 0:
            raise InvalidArgument(f"cannot listen on {host}:{port}; the port is in use or not ours: choose another")

    async def start(self) -> None:
        await self.server.start()
        await self._set(health_pb2.HealthCheckResponse.SERVING)

    async def not_serving(self) -> None:
        """Readiness off: placement goes elsewhere, running streams go on."""
        await self._set(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def stop(self, grace_s: float = 0.0) -> None:
        await self.server.stop(grace_s)

    async def _set(self, status: Any) -> None:
        for name in self._names:
            await self.health.set(name, status)


def serve_metrics(host: str, port: int, registry: CollectorRegistry) -> Callable[[], None]:
    """Serves /metrics on its own port (0: not at all); returns what stops it."""
    if port == 0:
        return lambda: None
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError:
        raise InvalidArgument(f"cannot serve metrics on {host}:{port}; the port is in use: choose another") from None

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

    return stop


async def until_signalled(on_signal: Callable[[], Awaitable[None]] | None = None) -> None:
    """Returns after SIGTERM or SIGINT, once `on_signal` (a drain) is done or a second signal has cut it short."""
    loop = asyncio.get_running_loop()
    first, second = asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (second if first.is_set() else first).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    await first.wait()
    if on_signal is None:
        return
    drain = asyncio.ensure_future(on_signal())
    hurry = asyncio.ensure_future(second.wait())
    try:
        await asyncio.wait({drain, hurry}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (drain, hurry):
            task.cancel()
        await asyncio.gather(drain, hurry, return_exceptions=True)
