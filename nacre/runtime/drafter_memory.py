"""What a verifier remembers of drafters that have left: how right they were, how fast, and whether they learn.

Bound: `MOST` entries of each kind; the longest unseen go first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

from nacre.pacing import Reputation
from nacre.scheduling import AnswerTimes

MOST = 256

K = TypeVar("K")
V = TypeVar("V")


class DrafterMemory:
    """Tenants are kept apart: nobody's drafters are judged by another's. How soon a method answers is for all: that is
    believed until a session has had its own first answer.
    """

    def __init__(self) -> None:
        self._reputations: OrderedDict[tuple[str, str], Reputation] = OrderedDict()
        self._answers: OrderedDict[str, AnswerTimes] = OrderedDict()
        self._learners: OrderedDict[str, int] = OrderedDict()

    def reputation(self, tenant: str, method: str) -> Reputation:
        """What a new drafter of that method starts with: a copy."""
        known = self._reputations.get((tenant, method))
        return known.copy() if known is not None else Reputation()

    def answers(self, method: str) -> AnswerTimes | None:
        """How soon drafters of that method have answered lately; None if nobody knows."""
        return self._answers.get(method)

    def left(self, tenant: str, method: str, reputation: Reputation, answers: AnswerTimes | None) -> None:
        """A drafter has left; what it was worth, and how soon it answered, is what the next of its kind starts with.

        None: it was never waited for.
        """
        _put(self._reputations, (tenant, method), reputation)
        if answers is not None:
            _put(self._answers, method, answers)

    def ended(self, tenant: str, wanted: int) -> None:
        """A session that speculates is over; `wanted` best tokens of each row is what its drafters learnt from."""
        _put(self._learners, tenant, wanted)

    def learnt(self, tenant: str) -> int:
        """What drafters of the tenant's last session wanted: the next will want it of rows before they come, too."""
        return self._learners.get(tenant, 0)


def _put(known: OrderedDict[K, V], key: K, value: V) -> None:
    known[key] = value
    known.move_to_end(key)
    while len(known) > MOST:
        known.popitem(last=False)
