"""The acceptance trace of a run: what the draft model guesses along the very texts that were measured.

Kept in the results, a list of places for each text; `nacre.sim` replays it, so that what the simulator says and what
was measured differ in nothing but time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nacre.sim.acceptance import RecordedAcceptance

#: Texts of this temperature are followed.
TEMPERATURE = 1.0


def kept_as(scenario: str, seed: int, prompt: int) -> str:
    """The name in the results. Of a load: its repeat, and which of its requests."""
    return f"trace/{scenario}/{seed}/{prompt}"


def pass_times_kept_as(scenario: str) -> str:
    """The name in the results of what the verifier itself knows of V: (rows, ms)."""
    return f"pass_times/{scenario}"


def run_trace(kept: Mapping[str, Any], scenario: str) -> RecordedAcceptance | None:
    """The texts in the order of their names; None if the run has recorded none."""
    return _recorded([places for name, places in sorted(kept.items()) if name.startswith(f"trace/{scenario}/")])


def load_trace(kept: Mapping[str, Any], load: Mapping[str, Any]) -> RecordedAcceptance | None:
    """What is guessed along the texts of a load; None if they were not followed."""
    names = [kept_as(load["scenario"], load["repeat"], request) for request in range(load["sessions"])]
    return _recorded([kept[name] for name in names]) if all(name in kept for name in names) else None


def _recorded(texts: Sequence[Any]) -> RecordedAcceptance | None:
    if not texts:
        return None
    return RecordedAcceptance(
        tuple(tuple((tuple(survivals), rank) for survivals, rank in places) for places in texts), {}
    )
