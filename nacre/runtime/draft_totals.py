"""What a draft worker has done so far, for metrics and for whoever draws its timeline."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class DraftTotals:
    """What one worker has done: nodes it guessed, nodes sent, nodes that turned out right, nodes that died.

    `busy_s` is the time of its steps with all that comes with them, `propose_s` what the proposer took of it; reading
    prompts and what a store taught apart.
    """

    steps: int = 0
    busy_s: float = 0.0
    propose_s: float = 0.0
    guessed: int = 0
    sent: int = 0
    right: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class TakenStep:
    """When a step that was to guess was, in seconds of a monotonic clock, and how many nodes it guessed."""

    began_s: float
    ended_s: float
    guesses: int
