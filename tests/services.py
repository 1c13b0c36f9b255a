"""Real services for tests: verifiers, drafters and a gateway as processes on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from nacre.runtime.processes import Child, ChildSpec, Processes

TARGET = "demo-target"
DRAFT = "demo-draft"


@dataclass(slots=True)
class Services:
    """Addresses and processes; `start_drafter` and `start_verifier` add more."""

    processes: Processes
    target: str
    draft: str
    dtype: str
    verifiers: list[Child] = field(default_factory=list)
    drafters: list[Child] = field(default_factory=list)
    gateway: Child | None = None

    async def start_verifier(self, *flags: str, port: int = 0) -> Child:
        arguments = ("--target", self.target, "--dtype", self.dtype, "--grpc-port", str(port), *flags)
        child = await self.processes.start(ChildSpec("verifier", "verifier_service", arguments))
        self.verifiers.append(child)
        return child

    async def start_drafter(self, *flags: str, method: str = "model") -> Child:
        arguments = ("--draft", self.draft, "--method", method, "--grpc-port", "0", *flags)
        child = await self.processes.start(ChildSpec("drafter", "drafter_service", arguments))
        self.drafters.append(child)
        return child

    async def heal(self) -> None:
        """Starts again, at the same addresses, what has ended."""
        for child in [child for child in self.verifiers if not child.running]:
            self.verifiers.remove(child)
            await self.start_verifier(port=int(child.ready["grpc_port"]))
        for child in [child for child in self.drafters if not child.running]:
            self.drafters.remove(child)
            await self.start_drafter("--grpc-port", str(child.ready["grpc_port"]))

    async def start_gateway(self, *flags: str) -> Child:
        arguments = [
            *("--http-port", "0", "--grpc-port", "0"),
            *("--verifiers", ",".join(address(child) for child in self.verifiers)),
            *flags,
        ]
        if self.drafters:
            arguments += ["--drafters", ",".join(address(child) for child in self.drafters)]
        self.gateway = await self.processes.start(ChildSpec("gateway", "gateway", tuple(arguments)))
        return self.gateway

    @property
    def address(self) -> str:
        """Where clients connect."""
        assert self.gateway is not None
        return address(self.gateway)

    @property
    def url(self) -> str:
        assert self.gateway is not None
        return f"http://127.0.0.1:{self.gateway.ready['http_port']}"


def address(child: Child) -> str:
    return f"127.0.0.1:{child.ready['grpc_port']}"


@contextlib.asynccontextmanager
async def services(
    *,
    verifiers: int = 1,
    drafters: int = 1,
    gateway: bool = True,
    target: str = TARGET,
    draft: str = DRAFT,
    dtype: str = "bfloat16",
    verifier_flags: tuple[str, ...] = (),
    drafter_flags: tuple[str, ...] = (),
    gateway_flags: tuple[str, ...] = (),
) -> AsyncIterator[Services]:
    async with Processes() as processes:
        running = Services(processes, target, draft, dtype)
        for _ in range(verifiers):
            await running.start_verifier(*verifier_flags)
        for _ in range(drafters):
            await running.start_drafter(*drafter_flags)
        if gateway:
            await running.start_gateway(*gateway_flags)
        yield running
