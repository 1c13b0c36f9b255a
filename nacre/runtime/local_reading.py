"""What a verifier's local sources read from the store: what other verifiers saw, this one before it was restarted, and
the public tier.

Rule: it happens beside the sessions. None waits for the store, and what was read is learnt a piece at a time, about a
millisecond, with long pauses: the event loop belongs to the passes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from nacre.runtime.lessons import Lessons, Teach
from nacre.runtime.store_reader import FOLLOW_S, Followed, StoreReader
from nacre.store import Namespace, Store

#: Between two pieces.
PAUSE_S = 0.02


class LocalReading:
    """`teach` takes what was read, `namespace_of` says whose rows a tenant's are. `run()` must be running."""

    def __init__(self, store: Store, teach: Teach, namespace_of: Callable[[str], Namespace | None]) -> None:
        self._lessons = Lessons(teach, step_s=0.0)
        # A page a second is what is learnt at this pace.
        self._reader = StoreReader(store, self._lessons.add, backfill_s=FOLLOW_S)
        self._namespace_of = namespace_of
        self._begun: dict[str, asyncio.Task[Followed | None]] = {}

    def opened(self, session: str, tenant: str, tag: int) -> None:
        """A session begins: its tenant's rows are wanted, under `tag`."""
        namespace = self._namespace_of(tenant)
        if namespace is not None:
            self._begun[session] = asyncio.create_task(self._reader.begin(namespace, tag), name="local-reading")

    def closed(self, session: str) -> None:
        """It is over; unknown ones are ignored."""
        task = self._begun.pop(session, None)
        if task is not None:
            task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Followed | None]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._reader.end(task.result())

    async def run(self) -> None:
        """Follows and learns; cancelled to stop."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reader.run())
            group.create_task(self._learn())

    async def _learn(self) -> None:
        while True:
            if self._lessons:
                self._lessons.learn()
            await asyncio.sleep(PAUSE_S)
