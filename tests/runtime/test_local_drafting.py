"""Guesses made in the verifier: fewer passes, the same text, and no harm from a source that fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from nacre.client import AsyncClient
from nacre.drafting.hopeless import SilentProposer
from nacre.drafting.proposer import DraftContext, Expansion, Guess, Observation, Proposer, ProposerTraits
from nacre.engine import Engine, load_model
from nacre.errors import InvalidArgument
from nacre.models import held_out_prompts
from nacre.runtime import local_drafting
from nacre.runtime.hosted_session import HostedSession
from nacre.runtime.local_drafting import LocalDrafting
from nacre.runtime.proposers import build_local_proposer, build_proposer
from nacre.runtime.settings import DrafterSettings, VerifierSettings
from nacre.runtime.verifier_host import HostLimits, VerifierHost
from nacre.runtime.verify_pass import EngineSession, VerifyPass
from nacre.sampling import Choice, History, SamplingParams
from nacre.session import Draft, SpeculationMode, open_session
from nacre.session.messages import confidence_byte
from tests.services import services
from tests.store.fleet import metric
from tests.store.redis_server import free_port
from tests.tiny_models import TinyPair

PROMPT = [7, 8, 9, 10, 11, 12]
GREEDY = SamplingParams(temperature=0.0)


@pytest.fixture(scope="module")
def engine(tiny_pair: TinyPair) -> Engine:
    return Engine(load_model(tiny_pair.target, dtype="float32", device="cpu", threads=1), kv_bytes=1 << 22)


@contextlib.asynccontextmanager
async def running(engine: Engine, proposer: Proposer | None) -> AsyncIterator[VerifierHost]:
    local = LocalDrafting(proposer) if proposer is not None else None
    host = VerifierHost(VerifyPass(engine, 64), HostLimits(chunk_rows=64), local=local)
    task = asyncio.create_task(host.run())
    try:
        yield host
        assert not task.done(), "the batch loop has ended"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def generated(
    host: VerifierHost,
    *,
    prompt: Sequence[int] = PROMPT,
    tokens: int = 40,
    tenant: str = "a",
    mode: SpeculationMode = SpeculationMode.LATENCY,
    params: SamplingParams = GREEDY,
) -> HostedSession:
    machine = open_session(list(prompt), max_tokens=tokens, max_positions=1024, vocab_size=257, mode=mode)
    session = host.open(machine, EngineSession(tenant, params, 5, -1, History(tuple(prompt))), seed=5)
    async with asyncio.timeout(60):
        await session.changed(10**9)
    assert session.failure is None
    return session


def local_proposer(method: str) -> Proposer:
    return build_local_proposer(VerifierSettings(local=method)).proposer


def text(session: HostedSession) -> list[int]:
    return session.machine.tokens[session.machine.prompt_length :]


async def plain(engine: Engine, **options: object) -> HostedSession:
    async with running(engine, None) as host:
        return await generated(host, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["suffix", "recycling-growth", "stand", "suffix+recycling-growth+stand"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
async def test_the_text_is_the_same_and_known_text_takes_fewer_passes(
    engine: Engine, method: str, temperature: float
) -> None:
    params = SamplingParams(temperature=temperature)
    alone = await plain(engine, params=params)
    async with running(engine, local_proposer(method)) as host:
        first = await generated(host, params=params)
        again = await generated(host, params=params)
    assert text(first) == text(again) == text(alone)
    assert again.totals.passes < alone.totals.passes
    assert again.totals.accepted > 0
    assert sum(1 for ordinal in again.machine.guessed_by if ordinal) == again.totals.accepted


async def test_what_one_tenant_wrote_helps_no_other(engine: Engine) -> None:
    async with running(engine, local_proposer("suffix")) as host:
        first = await generated(host, tenant="a")
        other = await generated(host, tenant="b")
        again = await generated(host, tenant="a")
    assert other.totals.passes == first.totals.passes
    assert again.totals.passes < first.totals.passes


async def test_sessions_without_speculation_get_no_guesses(engine: Engine) -> None:
    async with running(engine, local_proposer("suffix")) as host:
        await generated(host)
        session = await generated(host, mode=SpeculationMode.OFF)
    assert session.totals.verified == 0
    assert not session.machine.streams


class Heard(SilentProposer):
    """Keeps what it is told."""

    traits = ProposerTraits("heard", "chain", 1, 1, learns=True)

    def __init__(self) -> None:
        self.seen: list[Observation] = []

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        self.seen.extend(observations)


async def test_prompts_and_passes_are_observed_whole(engine: Engine) -> None:
    heard = Heard()
    prompt = [(7 * i) % 251 for i in range(150)]  # three chunks
    async with running(engine, heard) as host:
        session = await generated(host, prompt=prompt, tokens=6)
    whole = session.machine.tokens
    expected = [tuple(whole[max(0, end - 4) : end]) for end in range(1, len(whole))]
    assert [seen.context for seen in heard.seen] == expected
    assert all(len(seen.tokens) == 8 and seen.walked for seen in heard.seen)
    # Greedy: the best token after the last tokens is what was chosen.
    assert [seen.tokens[0] for seen in heard.seen[-6:]] == text(session)


@pytest.mark.parametrize("method", ["dense", "nest", "suffix+dense"])
async def test_sources_that_want_hidden_states_get_them(tiny_pair: TinyPair, method: str) -> None:
    engine = Engine(load_model(tiny_pair.target, dtype="float32", device="cpu", threads=1), kv_bytes=1 << 22)
    alone = await plain(engine, tokens=100)
    engine.keep_hidden()
    async with running(engine, local_proposer(method)) as host:
        first = await generated(host, tokens=100)
        again = await generated(host, tokens=100)
    assert text(first) == text(again) == text(alone)
    assert again.totals.passes < alone.totals.passes


class Counting(SilentProposer):
    """One guess that is hardly ever right, each time it is asked, and two that are never reached."""

    asked = 0

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        self.asked += len(wanted)
        return [[Guess(1, 0.3), Guess(2, 0.1, 0), Guess(3, 0.01)] for _ in wanted]


@contextlib.asynccontextmanager
async def guided(engine: Engine, proposer: Proposer) -> AsyncIterator[tuple[LocalDrafting, HostedSession]]:
    """A session that no pass is run for, and local guesses for it."""
    machine = open_session(PROMPT, max_tokens=40, max_positions=1024, vocab_size=257)
    async with running(engine, None) as host:
        session = host.open(machine, EngineSession("a", GREEDY, 5, -1, History(tuple(PROMPT))), seed=5)
        local = LocalDrafting(proposer)
        local.open(session, machine.join())
        yield local, session
        local.close(session)


@pytest.mark.parametrize(
    ("survivals", "row_worth", "asked"),
    [
        ((0.9,), 0.0, 0),
        ((0.5, 0.3), 0.0, 1),
        ((), 0.0, 1),
        ((0.7,), 0.4, 0),
        ((0.7,), 0.2, 1),
        ((0.4,), 9.0, 1),
    ],
)
async def test_guesses_come_where_drafters_leave_doubt_and_last_for_one_pass(
    engine: Engine, survivals: Sequence[float], row_worth: float, asked: int
) -> None:
    proposer = Counting()
    async with guided(engine, proposer) as (local, session):
        machine = session.machine
        drafter = machine.join()
        if survivals:
            tokens = tuple(range(100, 100 + len(survivals)))
            confidence = bytes(confidence_byte(survival) for survival in survivals)
            machine.draft(drafter, Draft(1, tokens, len(machine.tokens), (0,) * len(tokens), confidence))
        for _ in range(2):  # once for a pass, however often the loop comes by
            local.guess(session, rows=8, row_worth=row_worth)
        assert proposer.asked == local.hanging(session) == asked
        assert len(machine.tree) == len(survivals) + asked
        local.settled(session)
        assert {node.source for node in machine.tree.nodes()} <= {drafter}
        assert len(machine.tree) == len(survivals)
        assert local.hanging(session) == 0


async def test_what_was_thought_of_while_waiting_hangs_when_the_pass_is_planned(engine: Engine) -> None:
    proposer = Counting()
    async with guided(engine, proposer) as (local, session):
        for _ in range(2):  # however often the loop comes by
            local.think(session)
        assert proposer.asked == 1
        assert len(session.machine.tree) == 0
        local.guess(session, rows=8)
        assert proposer.asked == 1
        assert [node.token for node in session.machine.tree.nodes()] == [1]
        plan = session.machine.plan(1)
        session.machine.resolve(plan, [Choice(9)])
        local.settled(session)
        local.guess(session, rows=8)
        assert proposer.asked == 2, "below another tip it thinks anew"


class Reading:
    """Keeps what it is told, and when it is asked."""

    traits = ProposerTraits("reading", "chain", 1, 1)

    def __init__(self) -> None:
        self.first: DraftContext | None = None
        self.told: list[int] = []
        self.asked_after: list[int] = []

    def open(self, session: int, context: DraftContext) -> None:
        self.first, self.told = context, list(context.tokens)

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        self.told.extend(tokens)

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        pass

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        self.asked_after.append(len(self.told))
        return [[]]

    def close(self, session: int) -> None:
        pass


async def test_a_long_prompt_is_read_piece_by_piece_and_nothing_guessed_before(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_drafting, "_PIECE_TOKENS", 32)
    monkeypatch.setattr(local_drafting, "_TELL_S", 0.0)
    prompt, reader = [1 + place % 200 for place in range(300)], Reading()
    async with running(engine, reader) as host:
        session = await generated(host, prompt=prompt)
    assert text(session) == text(await plain(engine, prompt=prompt))
    assert reader.first is not None
    assert (len(reader.first.tokens), reader.first.prompt_length) == (32, 300)
    assert reader.told == session.machine.tokens[: len(reader.told)]
    assert len(reader.told) > 300
    assert reader.asked_after
    assert min(reader.asked_after) >= 300


class Failing(SilentProposer):
    """Raises for every second session, in turns."""

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        if wanted[0].session % 2:
            raise RuntimeError("a fault of its own")
        return [[Guess(300, 1.0), Guess(1, 0.5, 0), Guess(2, 0.5)]]  # no token of the model's, and below it one


async def test_a_source_that_fails_or_raves_harms_nobody(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    alone = await plain(engine)
    async with running(engine, Failing()) as host:
        sessions = await asyncio.gather(*(generated(host) for _ in range(4)))
    assert all(text(session) == text(alone) for session in sessions)
    assert len([record for record in caplog.records if "local guesses" in record.message]) == 2


def test_methods_that_belong_elsewhere_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="only a verifier has"):
        build_proposer(DrafterSettings(method="dense"))
    with pytest.raises(InvalidArgument, match="needs a model"):
        local_proposer("suffix+model")
    with pytest.raises(InvalidArgument, match="method rest needs a datastore"):
        local_proposer("suffix+rest")


@pytest.mark.processes
@pytest.mark.timeout(300)
async def test_a_verifier_guesses_for_itself_beside_drafters_and_without() -> None:
    async def once(api_key: str = "") -> tuple[list[int], int]:
        async with AsyncClient(up.address, api_key=api_key) as client:
            vocabulary = await client.vocabulary()
            prompt = tuple(vocabulary.encode(held_out_prompts(1)[0], add_special_tokens=True)[:64])
            generation = await (await client.start(prompt, max_tokens=48, seed=3)).run()
        assert generation.statistics is not None
        return list(generation.tokens), generation.statistics.passes

    async with services(drafters=0, verifier_flags=("--local", "suffix+recycling-growth")) as up:
        first, before = await once()
        again, after = await once()
        assert again == first
        assert after < before <= 48
        await up.start_drafter(method="suffix+recycling-growth")
        await up.start_gateway("--api-keys", "another")  # another tenant: nothing is known of its text
        assert (await once("another"))[0] == first


@pytest.mark.processes
@pytest.mark.timeout(300)
async def test_a_verifier_that_guesses_for_itself_knows_after_a_restart_what_its_snapshot_kept(tmp_path: Path) -> None:
    config, port = tmp_path / "nacre.toml", free_port()
    config.write_text(f'[store]\nsnapshot = "{tmp_path / "rows"}"\nlog_tenants = ["*"]\n')
    flags = ("--local", "suffix", "--config", str(config), "--metrics-port", str(port))
    texts, passes = [], []
    for turn in range(2):
        async with services(drafters=0, verifier_flags=flags) as up:
            async with AsyncClient(up.address, api_key="") as client:
                vocabulary = await client.vocabulary()
                prompt = tuple(vocabulary.encode(held_out_prompts(1)[0], add_special_tokens=True)[:64])
                # The file is read beside the first session, and learnt bit by bit: this one is of something else.
                await (await client.start((5, 6, 7), max_tokens=2, seed=1)).run()
                while turn and not await metric(port, "rows_read_total"):  # noqa: ASYNC110  there is no event
                    await asyncio.sleep(0.01)
                for _ in range(20):
                    await (await client.start((5, 6, 7), max_tokens=2, seed=1)).run()
                generation = await (await client.start(prompt, max_tokens=48, seed=3)).run()
                assert generation.statistics is not None
                texts.append(tuple(generation.tokens))
                passes.append(generation.statistics.passes)
            (verifier,) = up.verifiers
            await up.processes.end(verifier)  # it writes the file when it stops
    assert texts[0] == texts[1]
    assert passes[1] < passes[0]
