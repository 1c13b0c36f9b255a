"""What the simulated verifier and its drafters share with those that ship: who hears, who reads, who goes first."""

from __future__ import annotations

from typing import Any

import pytest

from nacre.drafting.proposer import DraftContext
from nacre.errors import NacreError
from nacre.sampling import Choice, SamplingParams
from nacre.scheduling.turns import PATIENCE_S
from nacre.session import Commit, Draft, DrafterLimits, DrafterSession, FinishReason, SpeculationMode
from nacre.sim.acceptance import DialledAcceptance, LineProposer, LineTarget
from nacre.sim.actors import DrafterSpec, OwnerActor, SessionSpec
from nacre.sim.capacity import predict
from nacre.sim.dials import Dials, with_dials
from nacre.sim.dice import Dice
from nacre.sim.drafters import DrafterActor, DraftWorker
from nacre.sim.hosted import PassTime, VerifierSpec
from nacre.sim.messages import Join, Open
from nacre.sim.network import LinkSpec, Stream
from nacre.sim.verifier import VerifierActor
from nacre.sim.world import World

TOKENS = 64
PASS_S = 0.01
FLAT = PassTime(((1, PASS_S),))
#: A draft step of n nodes takes n ms.
STEP = PassTime(((1, 0.001), (1001, 1.001)))
SILENT, PERFECT = DialledAcceptance(()), DialledAcceptance((1.0,))


class Listener(DrafterActor):
    """A drafter that notes how many tokens each commit tells it of."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.heard: list[int] = []

    def receive(self, stream: Stream, message: object) -> None:
        if isinstance(message, Commit):
            self.heard.append(len(message.tokens))
        super().receive(stream, message)


def owner_of(world: World, verifier: VerifierActor, number: int, tokens: int, unseen: int = 0) -> OwnerActor:
    spec = SessionSpec((0,), tokens, unseen=unseen)
    reference = (Choice(0),) * tokens
    return OwnerActor(world, f"o{number}", spec, [verifier], f"s{number}", reference, place=lambda: 0)


def drafted(acceptance: DialledAcceptance, *, rows: int, prompt: int = 1) -> tuple[OwnerActor, Listener]:
    """One session with one drafter next door, to its end."""
    world = World(1)
    verifier = VerifierActor(
        world, "v", VerifierSpec(row_budget=rows, pass_time=FLAT), LineTarget(), lambda name, session: None
    )
    owner = owner_of(world, verifier, 0, TOKENS, unseen=prompt - 1)
    worker = DraftWorker(world, LineProposer(acceptance, batch=1), STEP, batch=1, as_shipped=True)
    drafter = Listener(world, "d", DrafterSpec(), worker, checked=False, unseen=prompt - 1)
    owner.drafters.append(drafter)
    assert world.run(until_s=1e6, max_events=100_000)
    assert owner.finished is FinishReason.LENGTH
    return owner, drafter


def test_a_drafter_that_helps_hears_of_every_commit() -> None:
    owner, drafter = drafted(PERFECT, rows=4)
    assert drafter.heard == [count for _, count in owner.received]
    assert len(drafter.heard) < TOKENS


def test_a_silent_drafter_hears_of_four_commits_together_in_time() -> None:
    _, drafter = drafted(SILENT, rows=4)
    # Quiet for 32 commits it counts as one that does not help; the last token is told with the end.
    assert drafter.heard == [1] * 31 + [4] * 8 + [1]


def test_where_no_guesses_are_wanted_a_drafter_reads_nothing_and_hears_so_once() -> None:
    _, drafter = drafted(PERFECT, rows=1, prompt=301)
    assert drafter.heard == [1, TOKENS - 1]
    assert drafter.worker.totals.steps == 0
    assert drafter.worker.core.busy_s == 0.0


def test_a_drafter_whose_guesses_are_wanted_reads_the_prompt_once() -> None:
    _, drafter = drafted(PERFECT, rows=4, prompt=301)
    worker = drafter.worker
    assert worker.totals.steps > 1
    assert worker.step_s == pytest.approx(0.001 * (worker.totals.steps + 300))


def test_a_step_reads_the_texts_that_it_extends_and_no_others() -> None:
    world = World(1)
    worker = DraftWorker(world, LineProposer(PERFECT, batch=1), STEP, batch=1)
    for name, unread, row_budget in (("wanted", 100, 8), ("resting", 400, 1)):
        seat = DrafterActor(world, name, DrafterSpec(), worker, checked=False)
        worker.opened(seat.number, DraftContext((0,), 1, SamplingParams(), None), unread)
        seat.session = DrafterSession(
            (0,), end_position=8, limits=DrafterLimits(), window_nodes=8, row_budget=row_budget
        )
    worker.wake()
    assert worker.step_s == pytest.approx(0.101)


def test_drafters_of_sessions_that_fill_the_passes_rest() -> None:
    dials = with_dials(
        Dials(), {"requests": 4, "concurrency": 2, "output_tokens": 24, "pass_rows": 1, "drafter_pool": 1}
    )
    found = predict(dials)
    assert found.drafter_idle_share == 1.0
    assert found.drafts_per_token == 0


@pytest.mark.parametrize(
    ("mode", "tokens", "first"),
    [
        (SpeculationMode.LATENCY, 3, "s1"),
        (SpeculationMode.THROUGHPUT, 3, "s2"),
        (SpeculationMode.THROUGHPUT, round(2 * PATIENCE_S / PASS_S), "s1"),
    ],
)
def test_in_mode_throughput_bare_tips_let_guesses_go_first_for_a_while(
    mode: SpeculationMode, tokens: int, first: str
) -> None:
    world = World(1)
    spec = VerifierSpec(row_budget=1, pass_time=FLAT, mode=mode)
    verifier = VerifierActor(world, "v", spec, LineTarget(), lambda name, session: None)
    # The first of three sessions has the only row; of the others, the last to come has a guess.
    owners = [owner_of(world, verifier, number, tokens if number == 0 else 3) for number in range(3)]

    def guess() -> None:
        session = next(hosted.session for hosted in verifier.hosted.values() if hosted.name == "s2")
        session.draft(session.join(), Draft(1, (0,), anchor=len(session.tokens)))

    world.at(PASS_S / 2, guess)
    assert world.run(until_s=1e6, max_events=100_000)
    assert all(owner.finished is FinishReason.LENGTH for owner in owners)
    assert min(owners[1:], key=lambda owner: owner.received[0]).session == first


class Device:
    """An owner that drafts on its own stream."""

    name = "device"

    def receive(self, stream: Stream, message: object) -> None: ...

    def lost(self, stream: Stream, error: NacreError | None) -> None: ...


def test_an_owner_that_comes_back_drafts_once() -> None:
    world = World(1)
    verifier = VerifierActor(world, "v", VerifierSpec(pass_time=FLAT), LineTarget(), lambda name, session: None)
    old, new = (Stream(world, LinkSpec(), Device(), verifier, Dice(seed)) for seed in (1, 2))
    for stream in (old, new):
        verifier.accept(stream)
    verifier.receive(old, Open("s", (0,), (), TOKENS, frozenset(), False))
    (hosted,) = verifier.hosted.values()
    verifier.receive(old, Draft(1, (0,), anchor=1))
    # The old stream is dead, only nobody has told the verifier yet.
    verifier.receive(new, Join(hosted.ticket, owner=True, position=1))
    assert not hosted.drafters
    assert not hosted.session.streams
    verifier.receive(new, Draft(1, (0,), anchor=1))
    assert list(hosted.drafters) == [new]


def test_a_drafter_that_never_guesses_sends_nothing_and_costs_no_pass() -> None:
    dials = with_dials(Dials(), {"requests": 2, "output_tokens": 48, "prompt_tokens": 8})
    silent, plain = predict(dials, SILENT), predict(with_dials(dials, {"policy": "plain"}))
    assert silent.drafts_per_token == silent.payload_up_bytes_per_token == 0
    assert silent.rows_per_token == silent.acceptance_length == 1
    assert silent.session_tokens_per_s == pytest.approx(plain.session_tokens_per_s or 0)
