"""Random worlds by seed: every invariant, in every world, whatever the drafters, the network and the machines do.

`NACRE_CHAOS_SEEDS=5000:9000` runs other seeds. A failure names its seed first; `random_scenario(seed)` is that world.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from nacre.sim import run_scenario
from nacre.sim.chaos import random_scenario

FIRST, LAST = (int(bound) for bound in os.environ.get("NACRE_CHAOS_SEEDS", "0:520").split(":"))
BLOCKS = 8


def blocks() -> list[range]:
    size = -(-(LAST - FIRST) // BLOCKS)
    return [range(start, min(start + size, LAST)) for start in range(FIRST, LAST, size)]


@pytest.mark.parametrize("seeds", blocks(), ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_every_session_of_every_world_is_exact_bounded_and_ends(seeds: range) -> None:
    for seed in seeds:
        try:
            run_scenario(random_scenario(seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error


def test_a_normal_run_covers_a_thousand_sessions() -> None:
    assert sum(len(random_scenario(seed).sessions) for seed in range(520)) >= 1000


def test_a_seed_replays_its_world_event_by_event() -> None:
    for seed in range(12):
        first: list[str] = []
        again: list[str] = []
        outcome = run_scenario(random_scenario(seed), record=first)
        assert run_scenario(random_scenario(seed), record=again) == outcome
        assert first == again
        assert run_scenario(random_scenario(seed), checked=False) == outcome


#: What a transcript says when something happened, and how often it must in the worlds below at the least.
EVENTS = {
    "stream cut": 50,
    "crashes": 10,
    " resume ": 10,
    "Join as owner": 10,
    "Reanchor at": 10,
    "close InvalidArgument": 50,
    "close ResourceExhausted": 50,
    "close NotFound": 5,
    "Finished length": 50,
    "Finished stop": 10,
    "Finished cancelled": 5,
    "parents": 100,
}


def test_the_worlds_contain_everything_they_are_meant_to_survive() -> None:
    seen: Counter[str] = Counter()
    for seed in range(150):
        record: list[str] = []
        outcome = run_scenario(random_scenario(seed), record=record)
        for what in EVENTS:
            seen[what] += sum(what in line for line in record)
        for session in outcome.sessions:
            for tally in session.tallies:
                seen["late"] += tally.late_guesses
                seen["dead"] += tally.dead_guesses
                seen["live"] += tally.live_guesses
                seen["accepted"] += tally.accepted_guesses
                seen["rejected"] += tally.verified_guesses - tally.accepted_guesses
    missing = {what: (seen[what], least) for what, least in EVENTS.items() if seen[what] < least}
    assert not missing
    assert all(seen[what] > 300 for what in ("late", "dead", "live", "accepted", "rejected")), seen
