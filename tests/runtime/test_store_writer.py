"""What a verifier writes to the store: what the target thought at every row of a pass, and finished outputs."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

import pytest

from nacre.engine import Engine, load_model
from nacre.errors import InvalidArgument
from nacre.runtime.hosted_session import HostedSession
from nacre.runtime.store_writer import KEPT_BEST, MOST_SAVED_S, SEARCH_SHARE, StoreWriter
from nacre.runtime.verifier_host import HostLimits, VerifierHost
from nacre.runtime.verify_pass import EngineSession, VerifyPass
from nacre.sampling import History, SamplingParams
from nacre.session import Draft, open_session
from nacre.session.observed import Observed, ObservedRow
from nacre.store import PUBLIC, LocalStore, Namespace, Row
from nacre.store.rows import check
from tests.tiny_models import TinyPair

NAMES = ("target", "r1", "f" * 32)
SPACE = Namespace("acme", *NAMES)

Best = tuple[tuple[int, float], ...]


def best(*chances: float, first: int = 100) -> Best:
    return tuple((first + place, math.log(chance)) for place, chance in enumerate(chances))


class Kept(LocalStore):
    """A store that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(log_tenants=("*",))
        self.told: list[tuple[Namespace, list[Row]]] = []
        self.logged: list[tuple[Namespace, tuple[int, ...]]] = []

    def write(self, namespace, rows) -> None:
        self.told.append((namespace, list(rows)))
        super().write(namespace, rows)

    def log(self, namespace, tokens) -> None:
        self.logged.append((namespace, tuple(tokens)))
        super().log(namespace, tokens)


def test_every_row_of_a_pass_becomes_ngrams_of_one_to_three_tokens() -> None:
    store = Kept()
    observed = Observed(
        4,
        (
            ObservedRow(-1, 4, best(0.8, 0.2)),  # the tip
            ObservedRow(0, 5, best(1.0)),
            ObservedRow(0, 6, best(0.5)),  # contradicted, and heard all the same
            ObservedRow(2, 7, ()),  # without usable logits
            ObservedRow(3, 8, best(0.25, 0.001)),
        ),
    )
    StoreWriter(store, *NAMES).settled("acme", [1, 2, 3, 4, 5, 9], observed)
    ((space, rows),) = store.told
    assert space == SPACE
    assert all(check(row) and row.kind == "ngram" and row.count == 1 for row in rows)
    assert {row.context: row.entries for row in rows} == {
        context[-length:]: entries
        for context, entries in (
            ((2, 3, 4), ((100, 204), (101, 51))),
            ((3, 4, 5), ((100, 255),)),
            ((3, 4, 6), ((100, 128),)),
            ((6, 7, 8), ((100, 64),)),  # the second weighs nothing
        )
        for length in (1, 2, 3)
    }


@pytest.mark.parametrize("odd", [math.nan, -math.inf, -80.0])
def test_a_row_without_a_likely_token_is_left_out(odd: float) -> None:
    store = Kept()
    writer = StoreWriter(store, *NAMES)
    writer.settled("acme", [1, 2, 3], Observed(3, (ObservedRow(-1, 3, ((7, odd),)),)))
    assert store.told[0][1] == []
    writer.settled("acme", [1, 2], Observed(2, (ObservedRow(-1, 2, best(1.0)),)))
    assert len(store.told) == 1  # two tokens are no context of three


def test_at_most_eight_tokens_of_a_row_are_kept() -> None:
    store = Kept()
    row = ObservedRow(-1, 3, best(*[0.05] * 16))
    StoreWriter(store, *NAMES).settled("acme", [1, 2, 3], Observed(3, (row,)))
    assert {len(row.entries) for row in store.told[0][1]} == {KEPT_BEST}


def test_the_public_tier_and_tenants_that_cannot_be_named_are_left_out() -> None:
    store = Kept()
    writer = StoreWriter(store, *NAMES)
    assert writer.keeps("acme")
    for tenant in (PUBLIC, "", "x" * 300, "a\0b"):
        assert not writer.keeps(tenant)
        writer.settled(tenant, [1, 2, 3], Observed(3, (ObservedRow(-1, 3, best(1.0)),)))
        writer.ended(tenant, [1])
    assert (store.told, store.logged) == ([], [])
    with pytest.raises(InvalidArgument, match="target"):
        StoreWriter(store, "", "", "f")


def test_rows_are_made_by_the_stores_own_task_and_not_by_the_pass() -> None:
    """No time is asserted; docs/log.md has figures of this very loop."""
    store = LocalStore()
    writer = StoreWriter(store, *NAMES)
    row = ObservedRow(0, 5, best(*[0.1] * KEPT_BEST))
    observed = Observed(100, (ObservedRow(-1, 4, row.best), *[row] * 7))
    tokens = list(range(200))
    passes = 200
    started = time.perf_counter()
    for _ in range(passes):
        writer.settled("acme", tokens, observed)
    settled_us = (time.perf_counter() - started) / passes * 1e6
    started = time.perf_counter()
    asyncio.run(store.flush())
    kept_us = (time.perf_counter() - started) / passes * 1e6
    print(f"a pass of 8 rows: {settled_us:.1f} us when it settles, {kept_us:.0f} us in the store's own time")
    assert store.counters.rows_offered == passes * 24
    assert store.counters.rows_written > 0


# -- in a verifier -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(tiny_pair: TinyPair) -> Engine:
    return Engine(load_model(tiny_pair.target, dtype="float32", device="cpu", threads=1), kv_bytes=1 << 22)


async def generate(
    engine: Engine, store: LocalStore | None, *, tenant: str = "acme", act: Callable | None = None
) -> tuple[list[int], HostedSession]:
    writer = StoreWriter(store, *NAMES) if store is not None else None
    host = VerifierHost(VerifyPass(engine, 64), HostLimits(chunk_rows=64), writer=writer)
    task = asyncio.create_task(host.run())
    machine = open_session([5, 6, 7], max_tokens=24, max_positions=1024, vocab_size=257)
    session = host.open(machine, EngineSession(tenant, SamplingParams(), 1, -1, History([5, 6, 7])), seed=1)
    try:
        if act is not None:
            act(host, session)
        async with asyncio.timeout(60):
            await session.changed(10**9)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return session.machine.tokens[3:], session


def guesses(*tokens: int) -> Callable[[VerifierHost, HostedSession], None]:
    def send(host: VerifierHost, session: HostedSession) -> None:
        host.draft(session, session.machine.join(), Draft(first_node=1, tokens=tokens, anchor=3), size_bytes=0)

    return send


async def test_a_verifier_writes_what_it_saw_and_the_text_is_the_same(engine: Engine) -> None:
    expected, plain = await generate(engine, None)
    assert plain.observe(keep=True) == 0
    store = Kept()
    wrong = (expected[0] + 1) % 257
    text, session = await generate(engine, store, act=guesses(wrong, 9, 9))
    assert text == expected
    assert store.logged == [(SPACE, tuple(expected))]
    contexts = {row.context for _, rows in store.told for row in rows}
    assert {(5, 6, 7), (6, 7, expected[0]), tuple(expected[5:8])} <= contexts
    assert (6, 7, wrong) in contexts  # what was guessed wrongly teaches, too
    assert session.observe(keep=True) == KEPT_BEST
    await store.flush()
    # From the second sighting on.
    before = store.counters.rows_written
    await generate(engine, store)
    await store.flush()
    rows = {row.context: row for row in (await store.seed(SPACE)).rows}
    assert store.counters.rows_written > before
    assert rows[tuple(expected[5:8])].entries
    assert (await store.outputs(SPACE)) == (tuple(expected),) * 2


async def test_a_tenant_that_may_not_be_stored_costs_nothing(engine: Engine) -> None:
    store = Kept()
    _, session = await generate(engine, store, tenant=PUBLIC)
    assert (session.observe(keep=True), store.told, store.logged) == (0, [], [])


def test_looking_for_best_tokens_keeps_to_its_share_of_the_time() -> None:
    writer = StoreWriter(LocalStore(), *NAMES)
    looked = 0
    for _ in range(20_000):
        looked += writer.wants
        writer.passed(0.01, 0.001 if writer.wants else 0.0)
    assert looked * 0.001 == pytest.approx(SEARCH_SHARE * 20_000 * 0.01 + MOST_SAVED_S, rel=0.01)


async def test_a_pass_that_is_not_looked_at_is_not_kept(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoreWriter, "wants", False)
    store = Kept()
    text, _ = await generate(engine, store)
    assert store.told == []
    assert store.logged == [(SPACE, tuple(text))]


async def test_a_cancelled_session_is_logged_as_far_as_it_came_and_a_failed_one_is_not(engine: Engine) -> None:
    store = Kept()
    await generate(engine, store, act=lambda host, session: host.cancel(session))
    assert store.logged == []  # nothing was written yet
    await generate(engine, store, act=lambda host, session: host.fail(session, InvalidArgument("no")))
    assert store.logged == []


def test_a_listener_is_told_no_more_than_it_asked_for() -> None:
    observed = Observed(3, tuple(ObservedRow(-1, 3, best(*[0.1] * count)) for count in (8, 2)))
    assert [len(row.best) for row in observed.of_best(4).rows] == [4, 2]
    assert observed.of_best(8) is observed
