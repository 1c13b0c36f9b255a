"""One processor core: a long job at a time, and short work that delays it.

Services here run on a core each: a message handled while the model computes makes the pass or step end later, one
handled while nothing runs delays the next job if that comes too soon. That is how messages cost model time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from nacre.sim.world import World


class Core:
    """`busy_s` is all the time it has worked, jobs and short work alike."""

    __slots__ = ("_free_at_s", "_owed_s", "_running", "_world", "busy_s")

    def __init__(self, world: World) -> None:
        self.busy_s = 0.0
        self._world = world
        self._running = False
        self._owed_s = 0.0  # short work done since the job began
        self._free_at_s = 0.0

    def spend(self, seconds: float) -> None:
        """Short work, now."""
        if seconds <= 0.0:
            return
        self.busy_s += seconds
        if self._running:
            self._owed_s += seconds
        else:
            self._free_at_s = max(self._free_at_s, self._world.now_s) + seconds

    def run(self, seconds: float, done: Callable[[], None]) -> None:
        """Begins a job; calls `done` at its end. One job at a time."""
        assert not self._running, "a core runs one job at a time"
        self._running = True
        self.busy_s += seconds
        wait_s = max(0.0, self._free_at_s - self._world.now_s)
        self._world.after(wait_s + seconds, partial(self._end, done))

    def _end(self, done: Callable[[], None]) -> None:
        if self._owed_s > 0.0:
            owed_s, self._owed_s = self._owed_s, 0.0
            self._world.after(owed_s, partial(self._end, done))
            return
        self._running = False
        done()
