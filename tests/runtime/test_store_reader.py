"""What a drafter reads: once at a session's start, then what is new, for tenants in use; and how it is learnt."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence

import pytest

from nacre.drafting import DraftContext, Expansion, Guess, Proposer
from nacre.drafting.per_tenant import PerTenant
from nacre.drafting.recycling import RecyclingGrowthProposer
from nacre.drafting.rows import chance_of
from nacre.runtime.draft_worker import DraftWorker
from nacre.runtime.lessons import MOST_PIECES, PIECE_ROWS, PIECE_TOKENS, STEP_S, Lessons
from nacre.runtime.store_reader import StoreReader, namespace_of, table_rows
from nacre.sampling import SamplingParams
from nacre.session import Draft, DrafterLimits
from nacre.store import LocalStore, Namespace, Row
from nacre.store.store import NOTHING, SEED_ROWS, Reading
from nacre.v1 import session_pb2 as pb
from nacre.wire import messages

SPACE = Namespace("acme", "target", "r1", "f" * 32)
OTHER = Namespace("other", "target", "r1", "f" * 32)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Taught:
    """Who was told what, and from where in the store it came."""

    def __init__(self) -> None:
        self.contexts: dict[int, list[tuple[int, ...]]] = {}
        self.outputs: dict[int, list[tuple[int, ...]]] = {}

    def __call__(self, tag: int, rows: Sequence, outputs: Sequence[tuple[int, ...]]) -> None:
        self.contexts.setdefault(tag, []).extend(context for context, _ in rows)
        self.outputs.setdefault(tag, []).extend(outputs)


def ngram(*context: int, token: int = 9, weight: int = 255) -> Row:
    return Row("ngram", context, ((token, weight),), 2)


# -- reading -----------------------------------------------------------------------------------------------------------


async def test_a_session_is_told_what_there_is_before_it_opens_and_later_what_is_new() -> None:
    store, taught = LocalStore(log_tenants=("*",)), Taught()
    reader = StoreReader(store, taught)
    await store.put(SPACE, [ngram(1)], [(1, 2, 3)])
    followed = await reader.begin(SPACE, 7)
    assert taught.contexts == {7: [(1,)]}
    assert taught.outputs == {7: [(1, 2, 3)]}
    await reader.follow()
    assert taught.contexts == {7: [(1,)]}
    await store.put(SPACE, [ngram(2)], [(4, 5)])
    await store.put(OTHER, [ngram(3)])
    await reader.follow()
    assert taught.contexts == {7: [(1,), (2,)]}
    assert taught.outputs == {7: [(1, 2, 3), (4, 5)]}
    reader.end(followed)


async def test_what_was_there_before_arrives_in_pages() -> None:
    store, taught = LocalStore(), Taught()
    reader = StoreReader(store, taught)
    await store.put(SPACE, [ngram(number) for number in range(4 * SEED_ROWS)])
    await reader.begin(SPACE, 7)
    assert len(taught.contexts[7]) == SEED_ROWS
    for _ in range(8):
        await reader.follow()
    assert len(set(taught.contexts[7])) == 4 * SEED_ROWS


async def test_what_was_there_before_is_read_at_a_faster_pace_than_what_is_new() -> None:
    store, taught = LocalStore(), Taught()
    reader = StoreReader(store, taught, follow_s=3600.0, backfill_s=0.001)
    await store.put(SPACE, [ngram(number) for number in range(4 * SEED_ROWS)])
    assert not reader.behind
    await reader.begin(SPACE, 7)
    assert reader.behind
    following = asyncio.create_task(reader.run())
    while reader.behind:  # noqa: ASYNC110  what is waited for has no event
        await asyncio.sleep(0.001)
    following.cancel()
    assert len(set(taught.contexts[7])) == 4 * SEED_ROWS


async def test_a_tenant_is_read_once_however_many_sessions_it_has_and_anew_when_it_was_away() -> None:
    store, taught, clock = LocalStore(), Taught(), Clock()
    reader = StoreReader(store, taught, idle_s=60.0, clock=clock)
    await store.put(SPACE, [ngram(1)])
    sessions = [await reader.begin(SPACE, 7) for _ in range(3)]
    assert taught.contexts == {7: [(1,)]}
    for session in sessions:
        reader.end(session)
    clock.now = 59.0
    await reader.follow()
    assert reader.followed == 1
    clock.now = 61.0
    await reader.follow()
    assert reader.followed == 0
    await reader.begin(SPACE, 7)
    assert taught.contexts == {7: [(1,)] * 2}


async def test_one_tenant_of_two_verifiers_has_two_names_and_both_are_told() -> None:
    store, taught = LocalStore(), Taught()
    reader = StoreReader(store, taught)
    await store.put(SPACE, [ngram(1)])
    await reader.begin(SPACE, 7)
    await reader.begin(SPACE, 8)
    await store.put(SPACE, [ngram(2)])
    await reader.follow()
    assert taught.contexts == {7: [(1,), (2,)], 8: [(1,), (2,)]}


async def test_no_more_tenants_are_followed_than_there_is_room_for() -> None:
    store, taught, clock = LocalStore(), Taught(), Clock()
    reader = StoreReader(store, taught, most=2, clock=clock)
    first = await reader.begin(SPACE, 1)
    second = await reader.begin(SPACE, 2)
    await store.put(SPACE, [ngram(1)])
    assert await reader.begin(SPACE, 3) is None  # it is told once
    assert taught.contexts == {3: [(1,)]}
    clock.now = 1.0
    reader.end(second)
    clock.now = 2.0
    reader.end(first)
    assert await reader.begin(SPACE, 3) is not None
    await reader.follow()
    assert reader.followed == 2
    assert set(taught.contexts) == {1, 3}  # the second had been idle longest


async def test_a_store_that_answers_nothing_teaches_nothing_and_is_read_anew_when_it_is_back() -> None:
    class Gone(LocalStore):
        gone = True

        async def seed(self, namespace):
            return NOTHING if self.gone else await super().seed(namespace)

        async def follow(self, namespace, since):
            if not since.delta:
                return Reading((), (), since, reseed=not self.gone)
            return await super().follow(namespace, since)

    store, taught = Gone(), Taught()
    await store.put(SPACE, [ngram(1)])
    reader = StoreReader(store, taught)
    await reader.begin(SPACE, 7)
    await reader.follow()
    assert taught.contexts == {}
    store.gone = False
    await reader.follow()
    assert taught.contexts == {7: [(1,)]}


async def test_a_session_that_is_cancelled_while_it_reads_leaves_nothing() -> None:
    class Slow(LocalStore):
        async def seed(self, namespace):
            await asyncio.sleep(3600)

    reader = StoreReader(Slow(), Taught())
    task = asyncio.create_task(reader.begin(SPACE, 7))
    await asyncio.sleep(0)
    await reader.follow()  # nothing to go on from yet
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert reader.followed == 0


def test_rows_are_in_the_words_of_tables() -> None:
    kept = Row("ngram", (1, 2), ((5, 255), (6, 128), (7, 0)), 3)
    nothing = Row("ngram", (3,), ((5, 0),), 3)
    ((context, pairs),) = table_rows([kept, nothing])
    assert context == (1, 2)
    assert [token for token, _ in pairs] == [5, 6]
    assert [chance_of(byte) for _, byte in pairs] == pytest.approx([1.0, 128 / 255], rel=0.04)


def test_nobody_is_read_for_where_the_verifier_names_nobody() -> None:
    opened = pb.Opened(handshake=messages.handshake("target", "r1", "f" * 32), tenant="acme")
    assert namespace_of(opened) == SPACE
    opened.tenant = ""
    assert namespace_of(opened) is None
    opened.tenant = "x" * 1000
    assert namespace_of(opened) is None


# -- learning ----------------------------------------------------------------------------------------------------------

ROWS = [((number,), ((number + 1, 255),)) for number in range(1000)]


def test_a_step_learns_for_a_few_milliseconds_and_the_rest_waits() -> None:
    clock, taught = Clock(), Taught()

    def teach(*lesson) -> None:
        clock.now += 0.001
        taught(*lesson)

    lessons = Lessons(teach, clock=clock)
    lessons.add(7, ROWS, [])
    steps = 0
    while lessons:
        before = clock.now
        lessons.learn()
        assert clock.now - before < STEP_S + 0.0015
        steps += 1
    assert steps == pytest.approx(1000 / PIECE_ROWS / 4, abs=1)
    assert taught.contexts[7] == [(number,) for number in range(1000)]


def test_long_texts_come_in_pieces_and_too_much_pushes_out_the_oldest() -> None:
    taught = Taught()
    lessons = Lessons(taught, clock=Clock())
    lessons.add(7, (), [tuple(range(2 * PIECE_TOKENS + 5))])
    lessons.learn()
    assert [len(output) for output in taught.outputs[7]] == [PIECE_TOKENS, PIECE_TOKENS, 5]
    lessons.add(7, [((number,), ()) for number in range((MOST_PIECES + 1) * PIECE_ROWS)], ())
    assert len(lessons) == MOST_PIECES
    lessons.learn()
    assert taught.contexts[7][0] == (PIECE_ROWS,)


def test_a_lesson_that_cannot_be_learnt_is_told_once_and_skipped(caplog: pytest.LogCaptureFixture) -> None:
    def teach(*_) -> None:
        raise ValueError("a bug")

    lessons = Lessons(teach)
    lessons.add(7, ROWS, [(1, 2)])
    with caplog.at_level(logging.WARNING, "nacre.drafter"):
        while lessons:
            lessons.learn()
    assert len(caplog.records) == 1


async def drafted(proposer: Proposer, act: Callable[[DraftWorker], None]) -> list[Draft]:
    """What a worker sends for one session after `act`."""
    worker = DraftWorker(proposer, DrafterLimits(), batch_nodes=1)
    running = asyncio.create_task(worker.run())
    sent: list[Draft] = []
    came = asyncio.Event()

    def send(draft: Draft) -> None:
        sent.append(draft)
        came.set()

    try:
        act(worker)
        context = DraftContext((900, 1), 2, SamplingParams(temperature=0.0), None, tenant=7)
        worker.open(context, end_position=64, window_nodes=64, send=send, failed=lambda error: None)
        try:
            async with asyncio.timeout(5):
                await came.wait()
        except TimeoutError:
            pass
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return sent


async def test_a_worker_guesses_from_what_it_was_taught() -> None:
    sent = await drafted(PerTenant(RecyclingGrowthProposer), lambda worker: worker.teach(7, ROWS, ()))
    assert sent[0].tokens[0] == 2


async def test_what_another_tenant_taught_is_not_guessed_from() -> None:
    class Asked(RecyclingGrowthProposer):
        asked = threading.Event()

        def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
            found = super().propose(wanted)
            assert found == [[]] * len(wanted)
            self.asked.set()
            return found

    proposer = PerTenant(Asked)
    worker = DraftWorker(proposer, DrafterLimits(), batch_nodes=1)
    running = asyncio.create_task(worker.run())
    sent: list[Draft] = []
    worker.teach(8, ROWS, ())
    context = DraftContext((900, 1), 2, SamplingParams(), None, tenant=7)
    worker.open(context, end_position=64, window_nodes=64, send=sent.append, failed=lambda error: None)
    assert await asyncio.to_thread(Asked.asked.wait, 10)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert sent == []


async def test_tables_that_tenants_would_share_are_never_taught() -> None:
    worker = DraftWorker(RecyclingGrowthProposer(), DrafterLimits())
    assert not worker.teachable
    worker.teach(7, ROWS, ())
    assert not worker._wake.is_set()
    assert DraftWorker(PerTenant(RecyclingGrowthProposer), DrafterLimits()).teachable
