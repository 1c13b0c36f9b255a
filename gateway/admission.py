"""Who may generate now, who waits, and who is sent away: a bounded number running and a bounded queue, in order.

Rule: what cannot be queued is refused before anything is spent on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

from gateway.metrics import GatewayMetrics
from nacre.errors import ResourceExhausted


class Admission:
    """Counts generations: `with admission.places(n) as places:` and, for each of the n, `async with places.turn():`."""

    def __init__(self, *, max_running: int, max_waiting: int, timeout_s: float, metrics: GatewayMetrics) -> None:
        self.running = 0
        self.waiting = 0
        self._turns = asyncio.Semaphore(max_running)
        self._bound = max_running + max_waiting
        self._timeout_s = timeout_s
        self._metrics = metrics

    @property
    def busy(self) -> bool:
        return self.running + self.waiting > 0

    @contextlib.contextmanager
    def places(self, count: int) -> Iterator[Places]:
        """Room for `count` generations. Raises ResourceExhausted if there is none."""
        taken = self.running + self.waiting
        if taken + count > self._bound:
            self._metrics.rate_limited()
            raise ResourceExhausted(
                f"{taken} generations run or wait here; {count} more would pass the limit of {self._bound}: "
                "try again later"
            )
        places = Places(self, count)
        self.moved(waiting=count)
        try:
            yield places
        finally:
            self.moved(waiting=-places.left)

    async def acquire(self) -> None:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._turns.acquire()
        except TimeoutError:
            self._metrics.rate_limited()
            raise ResourceExhausted(
                f"no turn came within {self._timeout_s:g} s, {self.running} generations are running: try again later"
            ) from None
        self._metrics.queued(time.monotonic() - begun)

    def release(self) -> None:
        self._turns.release()

    def moved(self, *, waiting: int = 0, running: int = 0) -> None:
        self.waiting += waiting
        self.running += running
        self._metrics.waiting.set(self.waiting)
        self._metrics.running.set(self.running)


class Places:
    """The places of one request; `left` have not had their turn yet."""

    def __init__(self, admission: Admission, count: int) -> None:
        self._admission = admission
        self.left = count

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for a turn and holds it. Raises ResourceExhausted if none comes in time."""
        await self._admission.acquire()
        self.left -= 1
        self._admission.moved(waiting=-1, running=1)
        try:
            yield
        finally:
            self._admission.moved(running=-1)
            self._admission.release()
