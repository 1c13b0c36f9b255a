"""The acceptance trace of a run: what the draft model guesses along the very texts that were measured.

Kept in the results, a list of places for each text; `nacre.sim` replays it, so that what the simulator says and what
was measured differ in nothing but time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nacre.bench.samples import Sample
from nacre.sim.acceptance import RecordedAcceptance

#: Texts of this temperature are followed.
TEMPERATURE = 1.0


def kept_as(sample: Sample) -> str:
    """The name in the results."""
    return f"trace/{sample.scenario}/{sample.seed}/{sample.prompt}"


def pass_times_kept_as(scenario: str) -> str:
    """The name in the results of what the verifier itself knows of V: (rows, ms)."""
    return f"pass_times/{scenario}"


def run_trace(kept: Mapping[str, Any], scenario: str) -> RecordedAcceptance | None:
    """The texts in the order of their names; None if the run has recorded none."""
    texts = [places for name, places in sorted(kept.items()) if name.startswith(f"trace/{scenario}/")]
    if not texts:
        return None
    return RecordedAcceptance(
        tuple(tuple((tuple(survivals), rank) for survivals, rank in places) for places in texts), {}
    )
