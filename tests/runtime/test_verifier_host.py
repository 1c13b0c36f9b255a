"""The batch loop: sessions share passes, wait for room, and fail alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest

from nacre.engine import Engine, load_model
from nacre.errors import Internal, InvalidArgument, ResourceExhausted, Unauthenticated, Unavailable
from nacre.runtime import verify_pass
from nacre.runtime.hosted_session import HostedSession
from nacre.runtime.verifier_host import HostLimits, VerifierHost
from nacre.runtime.verify_pass import EngineSession, VerifyPass
from nacre.sampling import Choice, History, RowContext, SamplingParams, UnusableLogits, choose_rows
from nacre.scheduling import Pacer, RowBudget
from nacre.session import Draft, FinishReason, SpeculationMode, open_session
from tests.tiny_models import TinyPair


@pytest.fixture(scope="module")
def engine(tiny_pair: TinyPair) -> Engine:
    return Engine(load_model(tiny_pair.target, dtype="float32", device="cpu", threads=1), kv_bytes=1 << 22)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(
    host: VerifierHost, prompt: Sequence[int], *, key: int = 1, tokens: int = 12, **options: Any
) -> HostedSession:
    machine = open_session(list(prompt), max_tokens=tokens, max_positions=1024, vocab_size=257, **options)
    return host.open(machine, EngineSession("local", SamplingParams(), key, -1, History(prompt)), seed=key)


@contextlib.asynccontextmanager
async def running(engine: Engine, *, clock: Clock | None = None, **limits: Any) -> AsyncIterator[VerifierHost]:
    host = VerifierHost(VerifyPass(engine, 64), HostLimits(chunk_rows=64, **limits), clock=clock or Clock())
    task = asyncio.create_task(host.run())
    try:
        yield host
        assert not task.done(), "the batch loop has ended"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def end(session: HostedSession) -> list[int]:
    async with asyncio.timeout(60):
        await session.changed(10**9)
    return session.machine.tokens[session.machine.prompt_length :]


async def alone(engine: Engine, prompt: Sequence[int], **options: Any) -> list[int]:
    async with running(engine) as host:
        return await end(opened(host, prompt, **options))


async def test_sessions_together_write_what_each_writes_alone(engine: Engine) -> None:
    prompts = [[5, 6, 7], list(range(10, 150)), [9], [5, 6, 8]]
    expected = [await alone(engine, prompt, key=index) for index, prompt in enumerate(prompts)]
    async with running(engine) as host:
        sessions = [opened(host, prompt, key=index) for index, prompt in enumerate(prompts)]
        assert [await end(session) for session in sessions] == expected
        assert host.session_count == 0
        await host.empty()


async def test_whoever_waits_for_the_end_does_not_wait_for_owners_who_are_away(engine: Engine) -> None:
    async with running(engine) as host:
        away, here = opened(host, [5, 6, 7]), opened(host, [5, 6, 8])
        waiting = asyncio.create_task(host.empty())
        host.owner_left(away)
        await asyncio.sleep(0)
        assert not waiting.done()
        host.owner_left(here)
        async with asyncio.timeout(60):
            await waiting
        assert host.session_count == 2, "they may come back for as long as there is anyone"


async def test_what_a_prompt_costs_is_told_apart(engine: Engine) -> None:
    """A prompt of three chunks, again: all of it but an end of less than a step of the prefix cache is there. What the
    sessions wrote themselves is no prompt."""
    async with running(engine) as host:
        first = opened(host, range(100, 250), tokens=20)
        await end(first)
        again = opened(host, range(100, 250), tokens=20)
        await end(again)
        short = opened(host, [200, 7, 9])
        await end(short)
    assert (first.totals.cached_tokens, again.totals.cached_tokens, short.totals.cached_tokens) == (0, 144, 0)
    assert min(session.totals.prefill_ms for session in (first, again, short)) > 0
    assert min(session.totals.verify_ms for session in (first, again, short)) > 0


async def test_guesses_are_verified_and_change_nothing(engine: Engine) -> None:
    expected = await alone(engine, [5, 6, 7], tokens=24)
    async with running(engine) as host:
        session = opened(host, [5, 6, 7], tokens=24)
        ordinal = session.machine.join()
        draft = Draft(first_node=1, tokens=tuple(expected[:20]), anchor=3)
        host.draft(session, ordinal, draft, size_bytes=30)
        assert await end(session) == expected
        assert session.totals.accepted > 0
        assert session.totals.passes < len(expected)
        assert session.totals.draft_bytes == 30


async def test_sessions_without_room_for_all_take_turns(tiny_pair: TinyPair) -> None:
    """Five sessions of 150 tokens in a cache of some 330: nobody fails, nobody starves."""
    loaded = load_model(tiny_pair.target, dtype="float32", device="cpu", threads=1)
    per_token = Engine(loaded, kv_bytes=1 << 20)
    slot_bytes = per_token.info.kv_bytes // per_token.use().slots
    small = Engine(load_model(tiny_pair.target, dtype="float32", device="cpu", threads=1), kv_bytes=330 * slot_bytes)
    prompts = [[index, *range(20, 150)] for index in range(5)]
    expected = [await alone(small, prompt, key=index) for index, prompt in enumerate(prompts)]
    async with running(small) as host:
        sessions = [opened(host, prompt, key=index) for index, prompt in enumerate(prompts)]
        assert [await end(session) for session in sessions] == expected
        assert [session.failure for session in sessions] == [None] * 5


async def test_a_text_that_can_never_fit_fails_alone(tiny_pair: TinyPair) -> None:
    loaded = load_model(tiny_pair.target, dtype="float32", device="cpu", threads=1)
    small = Engine(loaded, kv_bytes=100 * 2 * 2 * 64 * 4)
    async with running(small) as host:
        expected = await end(opened(host, [5, 6, 7]))
        sessions = [opened(host, [5, 6, 7]), opened(host, [5] * 200)]
        assert await end(sessions[0]) == expected
        await end(sessions[1])
        assert isinstance(sessions[1].failure, ResourceExhausted | InvalidArgument)


async def test_rows_without_logits_harm_only_the_text_that_runs_through_them(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await alone(engine, [5, 6, 7])
    wrong = (expected[0] + 1) % 257

    def spoiled(logits: np.ndarray, rows: Sequence[RowContext]) -> list[Choice]:
        choices: list[Choice | None] = list(choose_rows(logits, rows))
        errors = {}
        for index, row in enumerate(rows):
            if row.key == 2 or row.ancestors[:1] == (wrong,):
                choices[index] = None
                errors[index] = Internal("the logits are NaN")
        if errors:
            raise UnusableLogits(choices, errors)
        return [choice for choice in choices if choice is not None]

    monkeypatch.setattr(verify_pass, "choose_rows", spoiled)
    async with running(engine) as host:
        sound, broken = opened(host, [5, 6, 7]), opened(host, [5, 6, 7], key=2)
        host.draft(sound, sound.machine.join(), Draft(first_node=1, tokens=(wrong,), anchor=3), size_bytes=0)
        assert await end(sound) == expected
        await end(broken)
        assert isinstance(broken.failure, Internal)


async def test_a_pass_that_raises_is_repeated_one_by_one(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = await alone(engine, [5, 6, 7])

    def raises(logits: np.ndarray, rows: Sequence[RowContext]) -> list[Choice]:
        if any(row.key == 2 for row in rows):
            raise RuntimeError("a bug")
        return choose_rows(logits, rows)

    monkeypatch.setattr(verify_pass, "choose_rows", raises)
    async with running(engine) as host:
        sound, broken = opened(host, [5, 6, 7]), opened(host, [5, 6, 7], key=2)
        assert await end(sound) == expected
        await end(broken)
        assert isinstance(broken.failure, Internal)
        assert "a bug" not in broken.failure.message


async def test_without_its_owner_a_session_rests_and_then_expires(engine: Engine) -> None:
    clock = Clock()
    async with running(engine, clock=clock, grace_s=30.0) as host:
        expected = await end(opened(host, [5, 6, 7]))
        session = opened(host, [5, 6, 7])
        host.owner_left(session)
        await asyncio.sleep(0.05)
        assert len(session.machine.tokens) <= 3 + 1, "at most the pass that had begun"
        clock.now = 29.0
        host.expire()
        found, as_owner = host.by_ticket(session.owner_ticket)
        assert found is session
        assert as_owner
        host.owner_joined(session)
        assert await end(session) == expected
        lost = opened(host, [5, 6, 7])
        host.owner_left(lost)
        clock.now += 31.0
        host.expire()
        assert lost.machine.finished is FinishReason.CANCELLED
        with pytest.raises(Unauthenticated):
            host.by_ticket(lost.drafter_ticket)


async def test_bounds_and_draining_are_refused_with_a_reason(engine: Engine) -> None:
    async with running(engine, max_sessions=1) as host:
        first = opened(host, [5, 6, 7], tokens=200)
        with pytest.raises(ResourceExhausted, match="takes 1"):
            opened(host, [5])
        host.cancel(first)
        host.draining = True
        with pytest.raises(Unavailable, match="draining"):
            opened(host, [5])


async def test_in_throughput_mode_tips_without_guesses_give_way(engine: Engine) -> None:
    host = VerifierHost(VerifyPass(engine, 64), HostLimits(budget=RowBudget(pass_rows=1)), clock=Clock())
    modest = opened(host, [5, 6, 7], mode=SpeculationMode.THROUGHPUT)
    other = opened(host, [5, 6, 8])
    (item,) = host._collect()
    assert item.session is other
    other.machine.abandon(item.plan)
    host.draft(modest, modest.machine.join(), Draft(first_node=1, tokens=(1,), anchor=3), size_bytes=0)
    (item,) = host._collect()
    assert item.session is modest


async def test_drafters_hear_nothing_while_no_guesses_are_wanted_and_then_all_at_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    offers = iter([4] * 20 + [1] * 100)
    monkeypatch.setattr(Pacer, "offer", lambda pacer, tips: next(offers, 4))
    async with running(engine) as host:
        session = opened(host, [5, 6, 7], tokens=200)
        ordinal = session.machine.join()
        heard: list[int] = []

        async def listen() -> None:
            cursor = 3
            while not session.ended:
                await session.changed(cursor, drafter=True)
                commit = session.commit_since(cursor, ordinal)
                if commit.tokens:
                    heard.append(len(commit.tokens))
                cursor = commit.end

        listening = asyncio.create_task(listen())
        text = await end(session)
        await listening
    assert sum(heard) == len(text)
    assert max(heard) > 50, "what was missed came in one"
    assert len(heard) < 150


# -- who hears of a commit ---------------------------------------------------------------------------------------------


async def heard(session: HostedSession, commits: int) -> int:
    """How many of so many announcements wake a drafter that listens all the time."""
    woken = 0
    for _ in range(commits):
        position = len(session.machine.tokens)
        listening = asyncio.create_task(session.changed(position, drafter=True))
        await asyncio.sleep(0)
        session.machine.tokens.append(1)
        for stream in session.machine.streams.values():
            stream.quiet += 1
        session.announce()
        await asyncio.sleep(0)
        woken += listening.done()
        listening.cancel()
    return woken


async def test_drafters_that_do_not_help_hear_of_several_commits_together(engine: Engine) -> None:
    host = VerifierHost(VerifyPass(engine, 64), HostLimits())
    session = opened(host, [1, 2, 3], tokens=500)
    ordinal = host.join(session, "silent")
    assert await heard(session, 31) == 31  # it may yet say something
    assert await heard(session, 40) == 10
    session.machine.draft(ordinal, Draft(1, (5,), anchor=len(session.machine.tokens)))
    assert await heard(session, 8) == 8
    reputation = session.machine.streams[ordinal].reputation
    assert reputation is not None
    reputation.usefulness = 0.0
    assert await heard(session, 8) == 2
    host.join(session, "another")
    assert await heard(session, 8) == 8  # who helps, or may, is not held back by who does not
