"""Verifiers, drafters and a gateway as child processes on this machine, wired together.

Rule: whatever goes wrong at the start is one error, and leaving the processes' context ends them all.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

from nacre.cli.model_files import resolve
from nacre.drafting import method_names, needs_model
from nacre.errors import InvalidArgument, NacreError, Unavailable
from nacre.runtime.delay_proxy import DelayProxy, Link
from nacre.runtime.processes import Child, ChildSpec, Processes, with_flag
from nacre.runtime.proposers import build_local_proposer
from nacre.runtime.settings import DrafterSettings, VerifierSettings, load_settings

T = TypeVar("T")

LOCALHOST = "127.0.0.1"
#: How long a gateway may take to hear from the first verifier.
GATEWAY_TIMEOUT_S = 60.0
#: A local stack is stopped by someone who waits for it; running generations get this long.
LOCAL_DRAIN_S = 3


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What to start. None leaves a value to the services' own layers of settings; `network_delay_ms` is one way."""

    target: str | None = None
    draft: str | None = None
    dtype: str | None = None
    device: str | None = None
    threads: int | None = None
    seed: int | None = None
    method: str | None = None
    local: str | None = None
    datastore: str | None = None
    verifiers: int = 1
    drafters: int = 1
    http_port: int = 0
    grpc_port: int = 0
    network_delay_ms: float = 0.0
    log_level: str = "warning"
    config: str | None = None
    verifier_cores: tuple[int, ...] = ()
    drafter_cores: tuple[int, ...] = ()


@dataclass(slots=True)
class Stack:
    """What was started, and where it listens."""

    verifiers: list[Child] = field(default_factory=list)
    drafters: list[Child] = field(default_factory=list)
    gateway: Child | None = None
    proxies: list[DelayProxy] = field(default_factory=list)
    model: str = ""

    @property
    def http_address(self) -> str:
        assert self.gateway is not None
        return f"{LOCALHOST}:{self.gateway.ready['http_port']}"

    @property
    def grpc_address(self) -> str:
        return address_of(self.gateway)

    @property
    def children(self) -> list[Child]:
        return [*self.verifiers, *self.drafters, *([self.gateway] if self.gateway else [])]


def address_of(child: Child | None) -> str:
    assert child is not None
    return f"{LOCALHOST}:{child.ready['grpc_port']}"


def verifier_spec(options: StackOptions, number: int = 1) -> ChildSpec:
    """Raises InvalidArgument for settings that cannot be right, before anything is started."""
    arguments = _flags(
        config=options.config,
        target=options.target,
        dtype=options.dtype,
        device=options.device,
        threads=options.threads,
        seed=options.seed,
        local=options.local,
        datastore=options.datastore,
        host=LOCALHOST,
        grpc_port=0,
        drain_s=LOCAL_DRAIN_S,
        log_level=options.log_level,
    )
    settings = load_settings(VerifierSettings, "verifier", arguments).settings
    if settings.local:
        build_local_proposer(settings)  # an error now, not in a child
    spec = ChildSpec(_numbered("verifier", number, options.verifiers), "verifier_service", arguments)
    return _on_cores(with_flag(spec, "--target", resolve(settings.target)), options.verifier_cores)


def drafter_spec(options: StackOptions, number: int = 1) -> ChildSpec:
    """Raises InvalidArgument for settings that cannot be right, before anything is started."""
    arguments = _flags(
        config=options.config,
        method=options.method,
        datastore=options.datastore,
        draft=options.draft,
        device=options.device,
        threads=options.threads,
        host=LOCALHOST,
        grpc_port=0,
        log_level=options.log_level,
    )
    settings = load_settings(DrafterSettings, "drafter", arguments).settings
    method_names(settings.method)  # an error now, not in a child
    spec = ChildSpec(_numbered("drafter", number, options.drafters), "drafter_service", arguments)
    if needs_model(settings.method):
        spec = with_flag(spec, "--draft", resolve(settings.draft))
    return _on_cores(spec, options.drafter_cores)


def check(options: StackOptions) -> None:
    """Raises InvalidArgument for what can be known to be wrong before anything is started."""
    verifier_spec(options)
    drafter_spec(options)
    for flag, port in (("--http-port", options.http_port), ("--grpc-port", options.grpc_port)):
        check_port_free(flag, port)


async def start_stack(
    options: StackOptions,
    processes: Processes,
    resources: AsyncExitStack,
    *,
    say: Callable[[str], None] = lambda text: None,
) -> Stack:
    """Starts everything and returns once the gateway serves the model. Raises NacreError; `resources` holds proxies."""
    verifiers = [verifier_spec(options, number) for number in range(1, options.verifiers + 1)]
    drafters = [drafter_spec(options, number) for number in range(1, options.drafters + 1)]
    stack = Stack()

    async def start(spec: ChildSpec) -> Child:
        child = await processes.start(spec)
        say(f"{spec.name} is ready (process {child.pid})")
        return child

    started = await in_parallel(*(start(spec) for spec in (*verifiers, *drafters)))
    stack.verifiers, stack.drafters = started[: len(verifiers)], started[len(verifiers) :]
    stack.model = str(stack.verifiers[0].ready.get("model", ""))
    reach = []
    if options.network_delay_ms > 0:
        for verifier in stack.verifiers:
            link = Link(delay_s=options.network_delay_ms / 1e3)
            proxy = await resources.enter_async_context(DelayProxy(address_of(verifier), link))
            stack.proxies.append(proxy)
            reach.append(f"{address_of(verifier)}={proxy.address}")
    arguments = _flags(
        config=options.config,
        http_port=options.http_port,
        grpc_port=options.grpc_port,
        verifiers=",".join(map(address_of, stack.verifiers)),
        drafters=",".join(map(address_of, stack.drafters)) or None,
        drafters_reach=",".join(reach) or None,
        seed=options.seed,
        drain_s=LOCAL_DRAIN_S,
        log_level=options.log_level,
    )
    stack.gateway = await start(ChildSpec("gateway", "gateway", arguments))
    await until_served(stack.grpc_address)
    return stack


async def until_served(address: str) -> None:
    """Returns once `address` answers with a model. Raises Unavailable after a minute."""
    from nacre.client import AsyncClient, Retry

    told = "it did not answer"
    try:
        async with (
            AsyncClient(address, retry=Retry(attempts=0), timeout_s=5.0) as client,
            asyncio.timeout(GATEWAY_TIMEOUT_S),
        ):
            while True:
                try:
                    await client.model()
                    return
                except NacreError as error:
                    if not error.retryable:
                        raise
                    told = error.message
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise Unavailable(f"the gateway serves no model after {GATEWAY_TIMEOUT_S:g} s: {told}") from None


def check_port_free(flag: str, port: int, host: str = LOCALHOST) -> None:
    """Raises InvalidArgument if something listens on the port already: known in a moment, not after loading a model."""
    if port == 0:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise InvalidArgument(
                f"{flag} is {port}, which cannot be had on {host} ({reason}); choose another, or 0 for any free one"
            ) from None


async def in_parallel(*work: Coroutine[Any, Any, T]) -> list[T]:
    """All results in order; the first error ends the others and is raised alone."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
    except BaseExceptionGroup as errors:
        cause: BaseException = errors
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        raise cause from None
    return [task.result() for task in tasks]


def _flags(**values: Any) -> tuple[str, ...]:
    """Command-line flags for what is not None."""
    pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in values.items() if value is not None)
    return tuple(part for pair in pairs for part in pair)


def _numbered(name: str, number: int, count: int) -> str:
    return f"{name}-{number}" if count > 1 else name


def _on_cores(spec: ChildSpec, cores: tuple[int, ...]) -> ChildSpec:
    return ChildSpec(spec.name, spec.module, spec.arguments, cores)
