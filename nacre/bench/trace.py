"""The acceptance trace of a run: what the draft model guesses along the very texts that were measured.

Kept in the results, a list of places for each text; `nacre.sim` replays it, so that what the simulator says and what
was measured differ in nothing but time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nacre.bench.samples import Sample
from nacre.sim.acceptance import RecordedAcceptance

#: Texts of this temperature are followed.
TEMPERATURE = 1.0


def kept_as(sample: Sample) -> str:
    """The name in the results."""
    return _name(sample.scenario, sample.seed, sample.prompt)


def _name(scenario: str, seed: int, prompt: int) -> str:
    return f"trace/{scenario}/{seed}/{prompt}"


def pass_times_kept_as(scenario: str) -> str:
    """The name in the results of what the verifier itself knows of V: (rows, ms)."""
    return f"pass_times/{scenario}"


def run_trace(kept: Mapping[str, Any], scenario: str) -> RecordedAcceptance | None:
    """The texts in the order of their names; None if the run has recorded none."""
    return _recorded([places for name, places in sorted(kept.items()) if name.startswith(f"trace/{scenario}/")])


def load_trace(kept: Mapping[str, Any], scenario: str, repeat: int, sessions: int) -> RecordedAcceptance | None:
    """What is guessed along the texts of a load: those of the scenario's prompts, whose seeds are the same.

    A load of more sessions than the scenario has prompts begins with the first ones again.
    """
    texts: list[Any] = []
    while _name(scenario, repeat, len(texts)) in kept and len(texts) < sessions:
        texts.append(kept[_name(scenario, repeat, len(texts))])
    return _recorded(texts)


def _recorded(texts: Sequence[Any]) -> RecordedAcceptance | None:
    if not texts:
        return None
    return RecordedAcceptance(
        tuple(tuple((tuple(survivals), rank) for survivals, rank in places) for places in texts), {}
    )
