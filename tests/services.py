"""Real services for tests: verifiers, drafters and a gateway as processes on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nacre.models import bundled
from nacre.runtime.processes import Child, ChildSpec, Processes
from nacre.training.inflate import inflate

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
        child = await self._verifier(*flags, port=port)
        self.verifiers.append(child)
        return child

    async def start_drafter(self, *flags: str, method: str = "model") -> Child:
        child = await self._drafter(*flags, method=method)
        self.drafters.append(child)
        return child

    async def start_together(
        self, *, verifiers: int, drafters: int, verifier_flags: Sequence[str] = (), drafter_flags: Sequence[str] = ()
    ) -> None:
        """All at once: most of a start is one core's work."""
        started = await asyncio.gather(
            *(self._verifier(*verifier_flags) for _ in range(verifiers)),
            *(self._drafter(*drafter_flags) for _ in range(drafters)),
        )
        self.verifiers += started[:verifiers]
        self.drafters += started[verifiers:]

    async def heal(self) -> None:
        """Starts again, at the same addresses, what has ended."""
        lost = [child for child in self.verifiers if not child.running]
        lost_drafters = [child for child in self.drafters if not child.running]
        self.verifiers = [child for child in self.verifiers if child.running]
        self.drafters = [child for child in self.drafters if child.running]
        await asyncio.gather(
            *(self.start_verifier(port=int(child.ready["grpc_port"])) for child in lost),
            *(self.start_drafter("--grpc-port", str(child.ready["grpc_port"])) for child in lost_drafters),
        )

    async def start_gateway(self, *flags: str, drafters: Sequence[Child] | None = None) -> Child:
        """In front of all verifiers and of these drafters, all if none are named; `address` is then its own."""
        known = self.drafters if drafters is None else drafters
        arguments = [
            *("--http-port", "0", "--grpc-port", "0"),
            *("--verifiers", ",".join(address(child) for child in self.verifiers)),
            *flags,
        ]
        if known:
            arguments += ["--drafters", ",".join(address(child) for child in known)]
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

    async def _verifier(self, *flags: str, port: int = 0) -> Child:
        arguments = ("--target", self.target, "--dtype", self.dtype, "--grpc-port", str(port), *flags)
        return await self.processes.start(ChildSpec("verifier", "verifier_service", arguments))

    async def _drafter(self, *flags: str, method: str = "model") -> Child:
        arguments = ("--draft", self.draft, "--method", method, "--grpc-port", "0", *flags)
        return await self.processes.start(ChildSpec("drafter", "drafter_service", arguments))


@pytest.fixture(scope="session")
def slow_target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bundled target, inflated: a pass takes so much longer than a guess from a table that, also on a machine
    busy with other tests, guesses come in time.
    """
    folder: Path = tmp_path_factory.mktemp("slow") / "target"
    inflate(bundled(TARGET), folder)
    yield str(folder)
    shutil.rmtree(folder)  # 226 MB that pytest would keep for three runs


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
        await running.start_together(
            verifiers=verifiers, drafters=drafters, verifier_flags=verifier_flags, drafter_flags=drafter_flags
        )
        if gateway:
            await running.start_gateway(*gateway_flags)
        yield running
