"""A verifier that lacks a part writes the same text, waits for nobody forever, and drops what the whole one keeps."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from functools import partial

import pytest

from nacre.bench.baselines import PARTS as KNOWN_PARTS
from nacre.bench.baselines import load_baselines
from nacre.engine import Engine, load_model
from nacre.runtime.verifier_host import HostLimits, VerifierHost
from nacre.runtime.verify_pass import EngineSession, VerifyPass
from nacre.sampling import Choice, History, SamplingParams
from nacre.session import Draft, VerifierSession, open_session
from tests.tiny_models import TinyPair
from verifier_service.ablated import PARTS, PATIENCE_S, has_guess

PROMPT = (3, 1, 4)


class Hosted:
    """As the host sees a session, as far as the rule looks."""

    def __init__(self, *, tokens: int = 10) -> None:
        self.machine = open_session(PROMPT, max_tokens=tokens, max_positions=100, vocab_size=50)
        self.totals = self
        self.passes = 0
        self.ready_since = 100.0


def step(machine: VerifierSession, token: int) -> None:
    plan = machine.plan(1)
    machine.resolve(plan, [Choice(token)])


def test_the_bench_knows_the_parts() -> None:
    assert PARTS == KNOWN_PARTS
    assert {baseline.without for baseline in load_baselines().values()} == {"", *PARTS}


def test_without_self_decode_a_joined_drafter_is_waited_for_but_not_forever() -> None:
    hosted = Hosted()
    ready = partial(has_guess, hosted, now=100.0)
    assert ready()  # the prompt is read at once
    hosted.passes = 1
    assert ready()  # nobody who could guess
    ordinal = hosted.machine.join()
    assert not ready()
    assert has_guess(hosted, now=100.0 + PATIENCE_S)
    hosted.machine.draft(ordinal, Draft(1, (7,), anchor=3))
    assert ready()
    hosted.machine.leave(ordinal)
    assert ready()


def test_without_self_decode_the_last_token_needs_no_guess() -> None:
    hosted = Hosted(tokens=2)
    hosted.passes = 1
    hosted.machine.join()
    assert not has_guess(hosted, now=100.0)
    step(hosted.machine, 1)
    assert has_guess(hosted, now=100.0)


def test_without_late_match_a_late_guess_is_dropped_and_a_timely_one_is_kept() -> None:
    machine = Hosted().machine
    machine.late_match = False
    ordinal = machine.join()
    step(machine, 1)
    received = machine.draft(ordinal, Draft(1, (1, 2, 3), anchor=3))
    assert (received.live, received.late, received.dead) == (0, 0, 3)
    received = machine.draft(ordinal, Draft(4, (2, 3), anchor=4))
    assert (received.live, received.late, received.dead) == (2, 0, 0)
    # What hangs below a guess that came true in time is not late.
    step(machine, 2)
    assert machine.draft(ordinal, Draft(6, (9,), parents=(2,))).live == 1


async def test_a_silent_drafter_does_not_block_a_verifier_without_self_decode(tiny_pair: TinyPair) -> None:
    now = 0.0
    engine = Engine(load_model(tiny_pair.target, dtype="float32", device="cpu", threads=1), kv_bytes=1 << 22)

    async def texts(*, hold: bool) -> list[int]:
        nonlocal now
        ready = (lambda session: has_guess(session, now=now)) if hold else None
        host = VerifierHost(VerifyPass(engine, 64), HostLimits(chunk_rows=64), ready=ready, clock=lambda: now)
        task = asyncio.create_task(host.run())
        machine = open_session([5, 6, 7], max_tokens=6, max_positions=1024, vocab_size=257)
        session = host.open(machine, EngineSession("local", SamplingParams(), 1, -1, History([5, 6, 7])), seed=1)
        machine.join()
        try:
            async with asyncio.timeout(60):
                while machine.finished is None:
                    now += PATIENCE_S
                    host.expire()  # as the service does once a second
                    await asyncio.sleep(0.001)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert session.totals.passes == 6
        return machine.tokens

    assert await texts(hold=True) == await texts(hold=False)


@pytest.mark.processes
def test_a_part_that_is_unknown_is_told_in_a_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "verifier_service.ablated", "--without", "luck"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("nacre verifier: without is 'luck'; it must be self-decode or late-match")
    assert done.stderr.count("\n") == 1
