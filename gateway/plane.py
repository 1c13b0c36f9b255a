"""What the HTTP face and the gRPC face share: settings, upstreams, drafters, admission, and an owner for loose tasks.

Rule: no task without an owner. Streams outlive the handler that began them by a farewell, so their tasks belong to the
process's task group, and none of them may take it down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from gateway.admission import Admission
from gateway.drafters import DrafterPlacement
from gateway.metrics import GatewayMetrics
from gateway.settings import GatewaySettings
from gateway.upstreams import UpstreamPool

log = logging.getLogger("nacre.gateway")


@dataclass(slots=True)
class Plane:
    """One gateway. `draining` once it takes nothing new, `over` once what still runs is to end."""

    settings: GatewaySettings
    metrics: GatewayMetrics
    pool: UpstreamPool
    drafters: DrafterPlacement
    admission: Admission
    tasks: asyncio.TaskGroup
    draining: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)
    _loose: set[asyncio.Task[None]] = field(default_factory=set)

    def background(self, work: Callable[[], Coroutine[Any, Any, Any]], name: str) -> asyncio.Task[None]:
        """Runs `work` on behalf of the process; whatever goes wrong in it is logged and ends there."""
        task = self.tasks.create_task(_contained(work, name), name=name)
        self._loose.add(task)
        task.add_done_callback(self._loose.discard)
        return task

    async def settle(self, timeout_s: float) -> None:
        """At the end of the process: gives background work some time, then ends it."""
        if self._loose:
            await asyncio.wait(tuple(self._loose), timeout=timeout_s)
        for task in tuple(self._loose):
            task.cancel()


async def _contained(work: Callable[[], Coroutine[Any, Any, Any]], name: str) -> None:
    try:
        await work()
    except Exception:
        log.exception("%s failed", name)


def cause_of(failure: BaseException) -> BaseException:
    """The first failure in a task group's group of them."""
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


@contextlib.asynccontextmanager
async def one_cause() -> AsyncIterator[None]:
    """Reduces a task group's exception group to the failure that caused it."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise cause_of(group) from None
