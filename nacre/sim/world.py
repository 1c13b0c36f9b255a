"""The event queue and the virtual clock.

Rule: the clock moves only from one event to the next; events of one instant run in the order they were scheduled.
Bound: `run` stops at a time and after a number of events, and says which; a world that never falls silent is a bug.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from nacre.sim.dice import Dice


class Stuck(Exception):
    """The world did more than its bound of events: something goes round in circles."""


class Timer:
    """A scheduled event; `cancel` makes it not happen."""

    __slots__ = ("_act",)

    def __init__(self, act: Callable[[], None]) -> None:
        self._act: Callable[[], None] | None = act

    def cancel(self) -> None:
        self._act = None

    def fire(self) -> None:
        act, self._act = self._act, None
        if act is not None:
            act()


class World:
    """Virtual time. `record`, if given, collects one line per message and event for a transcript."""

    def __init__(self, seed: int, record: list[str] | None = None) -> None:
        self.now_s = 0.0
        self.dice = Dice(seed)
        self.events = 0
        self._record = record
        self._scheduled = 0
        self._queue: list[tuple[float, int, Timer]] = []

    def after(self, delay_s: float, act: Callable[[], None]) -> Timer:
        return self.at(self.now_s + max(0.0, delay_s), act)

    def at(self, time_s: float, act: Callable[[], None]) -> Timer:
        timer = Timer(act)
        self._scheduled += 1
        heapq.heappush(self._queue, (max(time_s, self.now_s), self._scheduled, timer))
        return timer

    def run(self, *, until_s: float, max_events: int) -> bool:
        """Runs until nothing is left to happen (True) or `until_s` has come (False). Raises Stuck past `max_events`."""
        while self._queue:
            if self._queue[0][0] > until_s:
                return False
            self.now_s, _, timer = heapq.heappop(self._queue)
            timer.fire()
            self.events += 1
            if self.events > max_events:
                raise Stuck(f"more than {max_events} events by {self.now_s:.3f} s of virtual time")
        return True

    @property
    def recording(self) -> bool:
        return self._record is not None

    def note(self, who: str, what: object) -> None:
        if self._record is not None:
            self._record.append(f"{self.now_s * 1000:9.2f}  {who}  {what}")
