"""What a drafter reads from the store: the newest when a session of a tenant opens, then what is new, once a second.

Rule: a session waits for one `seed`, which the store bounds, and only the first of its tenant here; everything else
happens beside it, and never for a token. Invariants: at most `most` tenants are followed; a tenant without sessions is
followed for `idle_s` more, so that the next session finds its tables as they should be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nacre.drafting.per_tenant import MOST_TENANTS
from nacre.drafting.rows import Row as TableRow
from nacre.drafting.rows import weight_byte
from nacre.errors import InvalidArgument
from nacre.runtime.lessons import Teach
from nacre.store import Cursor, Namespace, Reading, Row, Store
from nacre.store.rows import MAX_WEIGHT
from nacre.v1 import session_pb2 as pb

FOLLOW_S = 1.0
IDLE_S = 60.0

# The store keeps probabilities in steps of 1/255, tables their logarithms; 0 is nothing in both.
_TABLE_WEIGHTS = (0, *(weight_byte(weight / MAX_WEIGHT) for weight in range(1, MAX_WEIGHT + 1)))


@dataclass(slots=True, eq=False)
class Followed:
    """A tenant's rows as far as they have been read. `tag` is its name among this drafter's tables."""

    namespace: Namespace
    tag: int
    cursor: Cursor | None = None  # None while the seed is under way
    sessions: int = 0
    idle_since_s: float = 0.0


class StoreReader:
    """`teach` takes what was read. `run()` must be running for anything to be followed."""

    def __init__(
        self,
        store: Store,
        teach: Teach,
        *,
        most: int = MOST_TENANTS,
        follow_s: float = FOLLOW_S,
        idle_s: float = IDLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._teach = teach
        self._most = most
        self._follow_s = follow_s
        self._idle_s = idle_s
        self._clock = clock
        # One verifier's tag of a tenant is not another's: each has tables of its own.
        self._followed: dict[tuple[Namespace, int], Followed] = {}

    @property
    def followed(self) -> int:
        """Tenants followed now."""
        return len(self._followed)

    async def begin(self, namespace: Namespace, tag: int) -> Followed | None:
        """Before a session opens: what the store has goes to `teach`. Then call `end`, whatever comes in between.

        Waits no longer than the store does, and not at all for a tenant that is followed already. None: as many
        tenants as can be followed have sessions; this one is told what there is now, and no more.
        """
        key = (namespace, tag)
        followed = self._followed.get(key)
        if followed is not None:
            followed.sessions += 1
            return followed
        if not self._make_room():
            self._pass_on(tag, await self._store.seed(namespace))
            return None
        followed = self._followed[key] = Followed(namespace, tag, sessions=1)
        try:
            reading = await self._store.seed(namespace)
        except asyncio.CancelledError:
            self._followed.pop(key, None)  # whoever came meanwhile is not followed: speed only
            raise
        followed.cursor = reading.cursor
        self._pass_on(tag, reading)
        return followed

    def end(self, followed: Followed | None) -> None:
        """The session is over."""
        if followed is not None:
            followed.sessions -= 1
            followed.idle_since_s = self._clock()

    async def run(self) -> None:
        """Follows; cancelled to stop."""
        while True:
            await asyncio.sleep(self._follow_s)
            await self.follow()

    async def follow(self) -> None:
        """One round over all tenants."""
        for key, followed in list(self._followed.items()):
            if not followed.sessions and self._clock() - followed.idle_since_s > self._idle_s:
                self._followed.pop(key, None)
            elif followed.cursor is not None:
                reading = await self._store.follow(followed.namespace, followed.cursor)
                if reading.reseed:
                    reading = await self._store.seed(followed.namespace)
                followed.cursor = reading.cursor
                self._pass_on(followed.tag, reading)

    def _make_room(self) -> bool:
        """For one more; who has had no session for the longest time gives way."""
        if len(self._followed) < self._most:
            return True
        idle = [(followed.idle_since_s, key) for key, followed in self._followed.items() if not followed.sessions]
        if idle:
            del self._followed[min(idle, key=lambda item: item[0])[1]]
        return bool(idle)

    def _pass_on(self, tag: int, reading: Reading) -> None:
        rows = table_rows(reading.rows)
        if rows or reading.outputs:
            self._teach(tag, rows, reading.outputs)


def namespace_of(opened: pb.Opened) -> Namespace | None:
    """Whose rows a session's drafters may read; None where the verifier named nobody."""
    served = opened.handshake
    try:
        return Namespace(opened.tenant, served.model_id, served.model_revision, served.tokenizer_fingerprint)
    except InvalidArgument:
        return None


def table_rows(rows: Sequence[Row]) -> list[TableRow]:
    """N-grams as drafting tables know them; other kinds, and tokens without weight, are left out."""
    found = []
    for row in rows:
        if row.kind == "ngram":
            pairs = tuple([(token, _TABLE_WEIGHTS[weight]) for token, weight in row.entries if weight])
            if pairs:
                found.append((row.context, pairs))
    return found
