"""Which verifier gets a session, and which drafters are asked to join it: pure choices over what is known now.

Rule: least load first; among equals the one chosen longest ago, so that equals take turns. A peer that has just failed
to answer comes after those that did not. Nothing here knows a channel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A peer that could take one more session. `capacity` 0 means unknown: no bound. `last_chosen` counts choices."""

    address: str
    load: int
    capacity: int
    doubtful: bool = False
    last_chosen: int = 0

    @property
    def full(self) -> bool:
        return 0 < self.capacity <= self.load


def by_preference(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Candidates with room, best first."""
    return sorted(
        (candidate for candidate in candidates if not candidate.full),
        key=lambda c: (c.doubtful, c.load, c.last_chosen, c.address),
    )


def load_of(own: int, reported: int, own_when_reported: int) -> int:
    """Sessions at a peer: ours are known exactly; those of others as of its last report."""
    return own + max(0, reported - own_when_reported)
