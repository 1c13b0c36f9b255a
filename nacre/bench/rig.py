"""The rig: a verifier on core A; drafters, the wire and the client on core B; each process with one thread.

Everything is started when it is first asked for, shared by all that ask for the same, and ended with the rig. Idle
processes cost nothing but memory.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from nacre.bench.baselines import Baseline, flags_of
from nacre.errors import InvalidArgument
from nacre.runtime.delay_proxy import DelayProxy, Link, Passage
from nacre.runtime.grpc_options import CHANNEL_OPTIONS
from nacre.runtime.processes import Child, ChildSpec, Processes, available_cores
from nacre.text import Vocabulary
from nacre.v1 import verifier_pb2, verifier_pb2_grpc
from nacre.wire.errors import error_of

VERIFIER, DRAFTER = "verifier_service", "drafter_service"
LOCKSTEP_VERIFIER, ABLATED_VERIFIER = "verifier_service.lockstep", "verifier_service.ablated"
LOCALHOST = "127.0.0.1"
#: One process serves every scenario, however many sessions it asks for; those that are just leaving count too.
MOST_SESSIONS = 4096


@dataclass(frozen=True, slots=True)
class RigOptions:
    """Models are directories or hub ids, the target inflated already if it is to be; `base` is what it was made of."""

    target: str
    draft: str
    base: str = ""
    dtype: str = "bfloat16"
    threads: int = 1
    pin: bool = True
    log_level: str = "error"


@dataclass(slots=True)
class Served:
    """What a verifier says of itself, and its tokenizer."""

    model: verifier_pb2.GetModelResponse
    vocabulary: Vocabulary


@dataclass(slots=True)
class Wire:
    """A link to one verifier. `address` is where to dial; `passages` is filled while someone listens."""

    address: str
    bytes_up: int = 0
    bytes_down: int = 0
    delayed: bool = False
    listen: Callable[[Passage], None] | None = None

    def passed(self, passage: Passage) -> None:
        if passage.up:
            self.bytes_up += passage.size_bytes
        else:
            self.bytes_down += passage.size_bytes
        if self.listen is not None:
            self.listen(passage)


@dataclass(slots=True)
class Cores:
    """Core numbers; empty: not pinned."""

    verifier: tuple[int, ...] = ()
    rest: tuple[int, ...] = ()
    before: frozenset[int] = field(default_factory=frozenset)  # this process's own, to be given back


class Rig:
    """An async context manager around all processes, wires and channels of a run."""

    def __init__(self, options: RigOptions, *, on_line: Callable[[str, str], None] | None = None) -> None:
        self.options = options
        self.cores = _cores(options)
        self.starting_s = 0.0  # spent on starting processes
        self._resources = AsyncExitStack()
        self._processes = Processes(on_line=on_line)
        self._children: dict[tuple[Any, ...], Child] = {}
        self._started = 0
        self._at: dict[str, Child] = {}
        self._wires: dict[tuple[str, float], Wire] = {}
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._served: dict[str, Served] = {}

    async def __aenter__(self) -> Rig:
        if self.cores.rest:
            # Threads of gRPC are yet to come and inherit it.
            os.sched_setaffinity(0, self.cores.rest)
            self._resources.callback(os.sched_setaffinity, 0, self.cores.before)
        await self._resources.enter_async_context(self._processes)
        return self

    async def __aexit__(self, *exception: Any) -> None:
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()
        await self._resources.aclose()

    # -- processes -----------------------------------------------------------------------------------------------

    async def verifier(self, settings: Mapping[str, Any], module: str = VERIFIER) -> str:
        """The address of a verifier with these settings beside the rig's own."""
        options = self.options
        own = {
            "target": options.target,
            "dtype": options.dtype,
            "threads": options.threads,
            "max_sessions": MOST_SESSIONS,
        }
        wanted = {**own, **self._service(), **settings}
        return self._address(await self.child(module, flags_of(wanted), self._cores_for(int(wanted["threads"]))))

    async def verifier_for(self, baseline: Baseline) -> str:
        """The address of the verifier that a baseline of kind `nacre` runs on."""
        if not baseline.without:
            return await self.verifier(baseline.verifier)
        return await self.verifier({**baseline.verifier, "without": baseline.without}, ABLATED_VERIFIER)

    async def drafter(self, settings: Mapping[str, Any]) -> str:
        """The address of a drafter with these settings beside the rig's own."""
        own = {"draft": self.options.draft, "threads": 1, "max_sessions": MOST_SESSIONS}
        return self._address(
            await self.child(DRAFTER, flags_of({**own, **self._service(), **settings}), self.cores.rest)
        )

    async def child(self, module: str, arguments: tuple[str, ...], cores: tuple[int, ...]) -> Child:
        """A running child process of this kind, started if there is none yet."""
        key = (module, arguments, cores)
        child = self._children.get(key)
        if child is None or not child.running:
            self._started += 1
            name = f"{module.rpartition('.')[2].removesuffix('_service')}-{self._started}"
            began = time.monotonic()
            child = await self._processes.start(ChildSpec(name, module, arguments, cores))
            self.starting_s += time.monotonic() - began
            self._children[key] = child
        return child

    async def end(self, child: Child) -> None:
        """Ends a child that is needed no longer, to have its memory back."""
        self._children = {key: other for key, other in self._children.items() if other is not child}
        await self._processes.end(child)

    def pid_at(self, address: str) -> int | None:
        """The process that serves at an address that `verifier` or `drafter` has told."""
        child = self._at.get(address)
        return None if child is None else child.pid

    def _address(self, child: Child) -> str:
        address = f"{LOCALHOST}:{child.ready['grpc_port']}"
        self._at[address] = child
        return address

    def _cores_for(self, threads: int) -> tuple[int, ...]:
        """The verifier's cores, and the next ones too for a baseline with more threads than the rig's."""
        if not self.options.pin or threads <= len(self.cores.verifier):
            return self.cores.verifier
        return tuple(sorted(self.cores.before))[:threads]

    def _service(self) -> dict[str, Any]:
        return {"host": LOCALHOST, "grpc_port": 0, "log_level": self.options.log_level}

    def peak_memory_mb(self) -> dict[str, float]:
        """Name of a process -> most memory it has had resident, where the system tells."""
        found = {}
        for child in self._children.values():
            try:
                status = Path(f"/proc/{child.pid}/status").read_text()
            except OSError:
                continue
            peak = next((line for line in status.splitlines() if line.startswith("VmHWM")), None)
            if peak is not None:
                found[child.name] = int(peak.split()[1]) / 1024
        return found

    # -- wires ---------------------------------------------------------------------------------------------------

    async def wire(self, address: str, rtt_ms: float) -> Wire:
        """A link of that round-trip time to `address`; none at all for 0."""
        wire = self._wires.get((address, rtt_ms))
        if wire is None:
            wire = Wire(address)
            if rtt_ms > 0:
                proxy = DelayProxy(address, Link(delay_s=rtt_ms / 2e3), observe=wire.passed)
                wire.address = (await self._resources.enter_async_context(proxy)).address
                wire.delayed = True
            self._wires[address, rtt_ms] = wire
        return wire

    def channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        return self._channels[address]

    async def served(self, address: str) -> Served:
        """What the verifier at `address` (not through a wire) serves."""
        if address not in self._served:
            stub = verifier_pb2_grpc.VerifierStub(self.channel(address))
            try:
                model = await stub.GetModel(verifier_pb2.GetModelRequest())
                pieces = [piece.chunk async for piece in stub.GetTokenizer(verifier_pb2.GetTokenizerRequest())]
            except grpc.aio.AioRpcError as failure:
                raise error_of(failure, address) from None
            self._served[address] = Served(model, Vocabulary(b"".join(pieces)))
        return self._served[address]


def _cores(options: RigOptions) -> Cores:
    cores = available_cores()
    if not options.pin:
        return Cores()
    if len(cores) <= options.threads:
        raise InvalidArgument(
            f"the rig needs {options.threads + 1} cores, the verifier's apart from the drafter's; this machine gives "
            f"{len(cores)}: ask for fewer threads or add --no-pin"
        )
    return Cores(cores[: options.threads], cores[options.threads : options.threads + 1], frozenset(cores))


def busy_ms(pid: int | None) -> float | None:
    """Processor time a process has had so far, all threads together, in steps of a tick (10 ms); None if untold."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) * 1e3 / os.sysconf("SC_CLK_TCK")


async def until_idle() -> None:
    """Lets what the last sample left behind (farewells, closing streams) run before the next begins."""
    await asyncio.sleep(0.02)
