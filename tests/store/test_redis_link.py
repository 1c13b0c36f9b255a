"""How long a caller waits, on a clock that stands still while anybody has something to do and then jumps ahead.

The server is one that takes a known time for an answer, or for ever; what is measured is the link's own rules, exactly.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import AuthenticationError

from nacre.store import redis_link
from nacre.store.redis_link import MAX_ASKED, PATIENCE, RedisLink
from nacre.store.redis_store import TIMEOUT_S
from nacre.store.store import StoreCounters

FOR_EVER_S = 1e6


class Jumping(selectors.DefaultSelector):
    """Nothing here waits for a file: whoever would wait for a time has it at once."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list:
        if timeout is None:  # somebody waits for what nobody does
            raise RuntimeError("this test would hang")
        self.now_s += max(0.0, timeout)
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s

    def stall(self, seconds: float) -> None:
        """Time goes by and nobody here is run, as on a machine that is busy with other things."""
        self._jumping.now_s += seconds


class Server:
    """And a client of it. An answer takes `answer_s`, and whoever asks while it `hangs` never gets one."""

    def __init__(self, answer_s: float = 0.0) -> None:
        self.answer_s = answer_s
        self.hangs = False
        self.refuses = False
        self.asking = 0
        self.most_asking = 0

    async def info(self, section: str) -> dict[str, str]:
        await self.answer()
        return {"redis_version": "7.4.0"}

    async def answer(self) -> str:
        self.asking += 1
        self.most_asking = max(self.most_asking, self.asking)
        try:
            await asyncio.sleep(FOR_EVER_S if self.hangs else self.answer_s)
        finally:
            self.asking -= 1
        if self.refuses:
            raise AuthenticationError("WRONGPASS")
        return "answer"

    async def aclose(self) -> None:
        """Has nothing to close."""


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def counters() -> StoreCounters:
    return StoreCounters()


@pytest.fixture
def link(server: Server, counters: StoreCounters, monkeypatch: pytest.MonkeyPatch) -> RedisLink:
    monkeypatch.setattr(redis_link, "client_of", lambda *_: server)
    monkeypatch.setattr(redis_link, "time", SimpleNamespace(monotonic=now_s))
    return RedisLink("redis://127.0.0.1:6379", timeout_s=TIMEOUT_S, counters=counters)


def now_s() -> float:
    return asyncio.get_running_loop().time()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(scenario())


async def asked(link: RedisLink, *, background: bool = False) -> tuple[str | None, float]:
    """The answer, and how long that took, in seconds."""
    began = now_s()
    answer = await link.ask(lambda client: client.answer(), background=background)
    return answer, round(now_s() - began, 6)


@pytest.mark.parametrize("known", [False, True], ids=["at the first question", "later"])
def test_a_server_that_hangs_costs_five_timeouts_and_then_one_a_second(
    link: RedisLink, server: Server, counters: StoreCounters, known: bool
):
    async def scenario() -> None:
        if known:
            assert await asked(link) == ("answer", 0.0)
        server.hangs = True
        assert [await asked(link) for _ in range(7)] == [(None, TIMEOUT_S)] * 5 + [(None, 0.0)] * 2
        assert link.state == "open"
        await asyncio.sleep(1.0 + TIMEOUT_S)
        assert [await asked(link) for _ in range(2)] == [(None, TIMEOUT_S), (None, 0.0)]
        server.hangs = False
        await asyncio.sleep(1.0 + TIMEOUT_S)
        assert await asked(link) == ("answer", 0.0)
        assert link.state == "closed"
        assert (counters.failures, counters.skipped, counters.episodes) == (6, 3, 1)

    run(scenario)


def test_in_the_background_the_whole_may_take_longer(link: RedisLink, server: Server):
    async def scenario() -> None:
        server.answer_s = 3 * TIMEOUT_S  # the question whether it is a Redis, and then ours
        assert await asked(link, background=True) == ("answer", 0.3)
        server.hangs = True
        assert await asked(link, background=True) == (None, PATIENCE * TIMEOUT_S)

    run(scenario)


@pytest.mark.parametrize(
    ("answer_s", "rounds"),
    [(0.012, (0.012, 0.024, 0.036)), (0.03, (0.03,))],
    ids=["a server with time for three rounds", "a server with time for one"],
)
def test_who_has_no_turn_in_half_the_timeout_goes_on_and_is_no_failure_of_the_server(
    link: RedisLink, server: Server, counters: StoreCounters, answer_s: float, rounds: tuple[float, ...]
):
    async def scenario() -> None:
        await asked(link)
        server.answer_s = answer_s
        crowd = await asyncio.gather(*(asked(link) for _ in range(100)))
        answered = [waited for answer, waited in crowd if answer]
        assert answered == [end_s for end_s in rounds for _ in range(MAX_ASKED)]
        others = 100 - len(answered)
        assert [waited for answer, waited in crowd if not answer] == [TIMEOUT_S / 2] * others
        assert server.most_asking == MAX_ASKED
        assert (counters.failures, counters.skipped, counters.episodes) == (0, others, 0)
        assert link.healthy

    run(scenario)


def test_a_server_that_hangs_under_a_crowd_opens_the_breaker_all_the_same(
    link: RedisLink, server: Server, counters: StoreCounters
):
    async def scenario() -> None:
        await asked(link)
        server.answer_s = 0.012
        askers = []
        for millisecond in range(400):  # more than it can answer, so that nobody has the whole timeout for an answer
            if millisecond == 200:
                assert counters.failures == 0 < counters.skipped
                server.hangs = True
            askers.append(asyncio.create_task(asked(link)))
            await asyncio.sleep(0.001)
        assert link.state == "open"
        waits = [waited for _, waited in await asyncio.gather(*askers)]
        assert max(waits) == TIMEOUT_S
        # The last answer came 12 ms after it hung; who began to wait after that and had none in time is its failure.
        assert set(waits[320:]) == {0.0}
        server.hangs, server.answer_s = False, 0.0
        await asyncio.sleep(1.0)
        assert await asked(link) == ("answer", 0.0)
        assert link.state == "closed"

    run(scenario)


def test_who_had_no_turn_before_we_ourselves_stalled_is_no_failure_either(
    link: RedisLink, server: Server, counters: StoreCounters
):
    async def scenario() -> None:
        await asked(link)
        server.hangs = True
        askers = [asyncio.create_task(asked(link)) for _ in range(MAX_ASKED + 3)]
        await asyncio.sleep(0.001)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, JumpingLoop)
        loop.stall(2 * TIMEOUT_S)  # both deadlines of who waits for a turn are over at once
        assert {answer for answer, _ in await asyncio.gather(*askers)} == {None}
        assert (counters.failures, counters.skipped) == (MAX_ASKED, 3)

    run(scenario)


def test_callers_that_go_away_leave_their_turns_to_others(link: RedisLink, server: Server, counters: StoreCounters):
    async def scenario() -> None:
        await asked(link)
        server.hangs = True
        askers = [asyncio.create_task(asked(link)) for _ in range(3 * MAX_ASKED)]
        await asyncio.sleep(0.01)
        for asker in askers:
            asker.cancel()
        gone = await asyncio.gather(*askers, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in gone)
        server.hangs, server.answer_s = False, 0.04  # there is no time for two rounds
        answers = await asyncio.gather(*(asked(link) for _ in range(MAX_ASKED)))
        assert answers == [("answer", 0.04)] * MAX_ASKED
        assert (counters.failures, link.state) == (0, "closed")

    run(scenario)


@pytest.mark.parametrize("answered_between", [False, True])
def test_the_warning_gives_what_the_server_said_whatever_came_late(
    link: RedisLink, server: Server, caplog: pytest.LogCaptureFixture, answered_between: bool
) -> None:
    async def scenario() -> None:
        server.refuses = True
        await asked(link)
        server.refuses = False
        if answered_between:
            await asked(link)
        server.hangs = True
        for _ in range(5):
            await asked(link)

    run(scenario)
    warned = [record.message for record in caplog.records]
    assert len(warned) == 1
    assert ("gives no answer" if answered_between else "refuses our password") in warned[0]


def test_what_the_server_says_only_later_is_one_more_warning(
    link: RedisLink, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        server.hangs = True
        for _ in range(5):
            await asked(link)
        server.hangs, server.refuses = False, True
        for _ in range(5):
            await asyncio.sleep(2)  # until it may be asked again
            await asked(link)

    run(scenario)
    warned = [record.message for record in caplog.records]
    assert len(warned) == 2
    assert "gives no answer" in warned[0]
    assert "refuses our password" in warned[1]
