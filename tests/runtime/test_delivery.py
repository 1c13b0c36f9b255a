"""Urgent guesses are on the wire before drafting goes on, and a link that takes none holds up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from nacre.drafting import DraftContext, Expansion, Guess, ProposerTraits
from nacre.runtime import draft_worker
from nacre.runtime.draft_worker import DraftWorker
from nacre.runtime.drafter_stream import Outgoing
from nacre.sampling import SamplingParams
from nacre.session import Commit, Draft, DrafterLimits, drafter

CONTEXT = DraftContext((900, 1), 2, SamplingParams(temperature=0.0), None)


class Counting:
    """Guesses one more for ever, and tells when it was asked."""

    traits = ProposerTraits(name="counting", shape="chain", batch=1, reach=1)

    def __init__(self, log: list[str], asked: Callable[[], None] = lambda: None) -> None:
        self.log = log
        self.asked = asked

    def open(self, session: int, context: DraftContext) -> None: ...

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None: ...

    def observed(self, session: int, observations: object) -> None: ...

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        self.log.append("asked")
        self.asked()
        return [[Guess(len(expansion.path_tokens), 0.99)] for expansion in wanted]

    def close(self, session: int) -> None: ...


async def logged(delivered: Callable[[list[str]], Awaitable[None]], guesses: int) -> list[str]:
    """What happens until so many guesses were sent, each of them urgent."""
    log: list[str] = []
    enough = asyncio.Event()

    def send(draft: Draft) -> None:
        log.append("sent")
        if log.count("sent") == guesses:
            enough.set()

    worker = DraftWorker(Counting(log), DrafterLimits(), batch_nodes=1)
    running = asyncio.create_task(worker.run())
    worker.open(
        CONTEXT,
        end_position=64,
        window_nodes=64,
        send=send,
        failed=lambda error: None,
        delivered=lambda: delivered(log),
        row_budget=16,
    )
    try:
        async with asyncio.timeout(60):
            await enough.wait()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return log


async def test_drafting_rests_until_urgent_guesses_are_on_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draft_worker, "DELIVERY_S", 60)

    async def delivered(log: list[str]) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
        log.append("delivered")

    log = await logged(delivered, guesses=4)
    assert log[: log.index("delivered") + 1] == ["asked", "sent", "delivered"]
    assert log[3:6] == ["asked", "sent", "delivered"]


async def test_a_link_that_takes_nothing_holds_drafting_up_for_a_moment_only() -> None:
    async def never(log: list[str]) -> None:
        await asyncio.Event().wait()

    assert (await logged(never, guesses=4)).count("asked") >= 4


class Gathering:
    """A session with a worker whose steps are taken for short ones; its guesses have hours to gather."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, end_position: int, row_budget: int) -> None:
        monkeypatch.setattr(draft_worker, "INLINE_S", 0.0)
        monkeypatch.setattr(drafter, "_GATHER_S", 3600.0)
        self.log: list[str] = []
        self.sent: list[tuple[int, ...]] = []
        self.something_sent, self.three_asked = asyncio.Event(), asyncio.Event()
        self.worker = DraftWorker(Counting(self.log, self._asked), DrafterLimits(), batch_nodes=1)
        self.number = self.worker.open(
            CONTEXT,
            end_position=end_position,
            window_nodes=64,
            send=self._send,
            failed=lambda error: None,
            row_budget=row_budget,
        )

    def _asked(self) -> None:
        if len(self.log) == 3:
            self.three_asked.set()

    def _send(self, draft: Draft) -> None:
        self.sent.append(draft.tokens)
        self.something_sent.set()

    async def until(self, happened: asyncio.Event, then: Callable[[], None] = lambda: None) -> None:
        """Drafts until it has happened; `then` is what the verifier says."""
        running = asyncio.create_task(self.worker.run())
        try:
            async with asyncio.timeout(60):
                await happened.wait()
            then()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    ("end_position", "row_budget", "first"),
    [(64, 5, 4), (8, 32, 6)],
    ids=["all that the next pass takes", "all that there is to guess"],
)
async def test_urgent_guesses_of_short_steps_go_in_one_message(
    monkeypatch: pytest.MonkeyPatch, end_position: int, row_budget: int, first: int
) -> None:
    session = Gathering(monkeypatch, end_position=end_position, row_budget=row_budget)
    await session.until(session.something_sent)
    assert session.sent[0] == tuple(range(first))


async def test_at_a_commit_what_has_gathered_goes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Gathering(monkeypatch, end_position=4096, row_budget=1024)
    commit = Commit(2, (0,))
    await session.until(session.three_asked, lambda: session.worker.committed(session.number, commit))
    assert len(session.sent) == 1
    assert session.sent[0][0] == 1


async def test_what_was_sent_is_delivered_once_the_writer_asks_for_more() -> None:
    outgoing = Outgoing()
    outgoing.send(Draft(first_node=1, tokens=(1,)))
    waiting = asyncio.create_task(outgoing.delivered())
    assert (await outgoing.next()).tokens == (1,)
    await asyncio.sleep(0)
    assert not waiting.done()  # it is being written
    writing = asyncio.create_task(outgoing.next())
    async with asyncio.timeout(60):
        await waiting
    writing.cancel()
