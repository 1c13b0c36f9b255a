"""What a drafter reads from the store: the newest when a session of a tenant opens, then what is new, once a second,
and faster what is older, until all of that is known.

Beside a tenant's own rows it is taught the public tier of the same model, which is read once for all tenants here.

Rule: a session waits for one `seed` of each, both at once, which the store bounds, and only the first of its tenant
here; everything else happens beside it, and never for a token. Invariants: at most `most` tenants are followed; a
tenant without sessions is followed for `idle_s` more, so that the next session finds its tables as they should be; no
public row takes the place of one that the tenant's own readings have brought.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from nacre.drafting.per_tenant import MOST_TENANTS
from nacre.drafting.rows import Row as TableRow
from nacre.drafting.rows import weight_byte
from nacre.errors import InvalidArgument
from nacre.runtime.lessons import Teach
from nacre.runtime.stores import warn_if_of_others
from nacre.store import PUBLIC, Cursor, Namespace, Reading, Row, Store
from nacre.store.packing import key_in, pack, unpack
from nacre.store.rows import MAX_WEIGHT
from nacre.store.store import NOTHING, SEED_TOKENS
from nacre.v1 import session_pb2 as pb

FOLLOW_S = 1.0
#: A page takes some 12 ms of reading, and 32 of learning by the slowest tables: a sixth of a core until all is read.
BACKFILL_S = 0.25
IDLE_S = 60.0
#: Public rows of a model that are kept, packed, for tenants who come later: a fifth of a kilobyte each.
MOST_PUBLIC_ROWS = 1 << 15
#: Models whose public tiers are remembered; the one first met gives way.
MOST_PUBLIC_TIERS = 4
#: Public rows that a tenant is taught at a time: some 16 ms of learning.
PUBLIC_PAGE_ROWS = 512
#: Contexts of its own that public rows are kept from; a tenant who has more is taught no more public rows.
MOST_OWN_CONTEXTS = 1 << 13

# The store keeps probabilities in steps of 1/255, tables their logarithms; 0 is nothing in both.
_TABLE_WEIGHTS = (0, *(weight_byte(weight / MAX_WEIGHT) for weight in range(1, MAX_WEIGHT + 1)))


@dataclass(slots=True, eq=False)
class PublicTier:
    """The public tier of one model as far as it has been read."""

    namespace: Namespace
    cursor: Cursor | None = None  # None: never read
    rows: dict[bytes, bytes] = field(default_factory=dict)  # packed, by `key_in`
    outputs: deque[tuple[int, ...]] = field(default_factory=deque)

    def take(self, rows: Sequence[bytes], outputs: Sequence[tuple[int, ...]]) -> None:
        """Keeps what was read: of rows the first `MOST_PUBLIC_ROWS`, of outputs the last `SEED_TOKENS` tokens."""
        for row in rows:
            key = key_in(row)
            if key in self.rows or len(self.rows) < MOST_PUBLIC_ROWS:
                self.rows[key] = row
        self.outputs.extend(outputs)
        while sum(map(len, self.outputs)) > SEED_TOKENS:
            self.outputs.popleft()


@dataclass(slots=True, eq=False)
class Followed:
    """A tenant's rows as far as they have been read. `tag` is its name among this drafter's tables."""

    namespace: Namespace
    tag: int
    public: PublicTier
    cursor: Cursor | None = None  # None while the seed is under way
    sessions: int = 0
    idle_since_s: float = 0.0
    own: set[int] = field(default_factory=set)  # hashes of contexts: two of one hash cost a public row
    public_rows: deque[bytes] = field(default_factory=lambda: deque(maxlen=MOST_PUBLIC_ROWS))  # not taught yet
    public_outputs: list[tuple[int, ...]] = field(default_factory=list)

    def hear(self, rows: Sequence[bytes], outputs: Sequence[tuple[int, ...]]) -> None:
        """There is more in the public tier."""
        self.public_rows.extend(rows)
        self.public_outputs.extend(outputs)

    def next_public(self) -> tuple[list[TableRow], list[tuple[int, ...]]]:
        """What to teach of the public tier now: outputs, and a page of rows but those the tenant has itself."""
        page = [self.public_rows.popleft() for _ in range(min(PUBLIC_PAGE_ROWS, len(self.public_rows)))]
        outputs, self.public_outputs = self.public_outputs, []
        if len(self.own) >= MOST_OWN_CONTEXTS:
            page = []
        return [row for row in table_rows(map(unpack, page)) if hash(row[0]) not in self.own], outputs


class StoreReader:
    """`teach` takes what was read. `run()` must be running for anything to be followed."""

    def __init__(
        self,
        store: Store,
        teach: Teach,
        *,
        most: int = MOST_TENANTS,
        follow_s: float = FOLLOW_S,
        backfill_s: float = BACKFILL_S,
        idle_s: float = IDLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._teach = teach
        self._most = most
        self._follow_s = follow_s
        self._backfill_s = min(backfill_s, follow_s)
        self._idle_s = idle_s
        self._clock = clock
        # One verifier's tag of a tenant is not another's: each has tables of its own.
        self._followed: dict[tuple[Namespace, int], Followed] = {}
        self._public: dict[Namespace, PublicTier] = {}
        self._met_model = False

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
        known = self._followed.get(key)
        if known is not None:
            known.sessions += 1
            return known
        followed = Followed(namespace, tag, self._public_tier(namespace), sessions=1)
        fits = self._make_room()
        if fits:
            self._followed[key] = followed
        try:
            reading = await self._first_reading(followed)
        except asyncio.CancelledError:
            if fits:
                self._followed.pop(key, None)  # whoever came meanwhile is not followed: speed only
            raise
        followed.cursor = reading.cursor
        followed.hear(list(followed.public.rows.values()), followed.public.outputs)
        self._pass_on(followed, reading)
        return followed if fits else None

    def end(self, followed: Followed | None) -> None:
        """The session is over."""
        if followed is not None:
            followed.sessions -= 1
            followed.idle_since_s = self._clock()

    async def run(self) -> None:
        """Follows; cancelled to stop."""
        while True:
            await asyncio.sleep(self._backfill_s if self.behind else self._follow_s)
            await self.follow()

    @property
    def behind(self) -> bool:
        """Whether something that was stored before the seeds is still to be read, or to be taught."""
        return any(
            followed.public_rows or _incomplete(followed.cursor) or _incomplete(followed.public.cursor)
            for followed in self._followed.values()
        )

    async def follow(self) -> None:
        """One round over all tenants, after one over the public tiers of their models."""
        for key, followed in list(self._followed.items()):
            if not followed.sessions and self._clock() - followed.idle_since_s > self._idle_s:
                del self._followed[key]
        for public in dict.fromkeys(followed.public for followed in self._followed.values()):
            if public.cursor is not None:
                await self._read_on(public)
        for followed in list(self._followed.values()):
            if followed.cursor is not None:
                reading = await self._after(followed.namespace, followed.cursor)
                followed.cursor = reading.cursor
                self._pass_on(followed, reading)

    async def _first_reading(self, followed: Followed) -> Reading:
        """A tenant's first, and that of its model's public tier unless it is known: both at once."""
        if not self._met_model:
            self._met_model = True
            await warn_if_of_others(self._store, followed.namespace)
        if followed.public.cursor is not None:
            return await self._store.seed(followed.namespace)
        reading, _ = await asyncio.gather(self._store.seed(followed.namespace), self._read_on(followed.public))
        return reading

    async def _read_on(self, public: PublicTier) -> None:
        """One reading more of a public tier, for those who follow it now and for those who come later."""
        since = public.cursor
        reading = await self._after(public.namespace, since)
        if public.cursor is not since:  # another session's first reading was faster
            return
        public.cursor = reading.cursor
        rows = [pack(row) for row in reading.rows]
        public.take(rows, reading.outputs)
        for followed in self._followed.values():
            if followed.public is public and followed.cursor is not None:  # else it will hear all that is kept
                followed.hear(rows, reading.outputs)

    async def _after(self, namespace: Namespace, since: Cursor | None) -> Reading:
        if since is not None:
            reading = await self._store.follow(namespace, since)
            if not reading.reseed:
                return reading
        return await self._store.seed(namespace)

    def _public_tier(self, namespace: Namespace) -> PublicTier:
        """That of a tenant's model."""
        wanted = replace(namespace, tenant=PUBLIC)
        if wanted not in self._public:
            self._public[wanted] = PublicTier(wanted)
            if len(self._public) > MOST_PUBLIC_TIERS:
                del self._public[next(iter(self._public))]
        return self._public[wanted]

    def _make_room(self) -> bool:
        """For one more; who has had no session for the longest time gives way."""
        if len(self._followed) < self._most:
            return True
        idle = [(followed.idle_since_s, key) for key, followed in self._followed.items() if not followed.sessions]
        if idle:
            del self._followed[min(idle, key=lambda item: item[0])[1]]
        return bool(idle)

    def _pass_on(self, followed: Followed, reading: Reading) -> None:
        """A tenant's own first: nothing of the public tier may keep it waiting, or take its place."""
        rows = table_rows(reading.rows)
        if len(followed.own) < MOST_OWN_CONTEXTS:
            followed.own.update(hash(context) for context, _ in rows)
        if rows or reading.outputs:
            self._teach(followed.tag, rows, reading.outputs)
        public_rows, public_outputs = followed.next_public()
        if public_rows or public_outputs:
            self._teach(followed.tag, public_rows, public_outputs)


def _incomplete(cursor: Cursor | None) -> bool:
    """Whether there is a seed and more behind it: a store that does not answer is not asked more often."""
    return cursor is not None and cursor != NOTHING.cursor and not cursor.complete


def namespace_of(opened: pb.Opened) -> Namespace | None:
    """Whose rows a session's drafters may read; None where the verifier named nobody."""
    served = opened.handshake
    try:
        return Namespace(opened.tenant, served.model_id, served.model_revision, served.tokenizer_fingerprint)
    except InvalidArgument:
        return None


def table_rows(rows: Iterable[Row]) -> list[TableRow]:
    """Rows as drafting tables know them; tokens without weight, and rows of nothing else, are left out."""
    found = []
    for row in rows:
        pairs = tuple([(token, _TABLE_WEIGHTS[weight]) for token, weight in row.entries if weight])
        if pairs:
            found.append((row.context, pairs))
    return found
