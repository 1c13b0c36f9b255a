"""Which kind of drafter is asked first to join a session: learnt from what became of guesses in sessions before it.

Rule: nothing here can change a text or refuse a session; it only puts drafters in order. Where all drafters are of one
kind there is nothing to choose, and nothing is computed.

What a text is like, its owner says or the gateway tells from its last tokens; how good a kind of drafter is in such a
text, from the commits of sessions it has joined (`Share`). Distances are measured from here and stand for those from
the verifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.metrics import GatewayMetrics
from gateway.settings import GatewaySettings
from gateway.upstreams import DrafterUpstream, UpstreamPool
from nacre.drafting import KNOWN_METHODS
from nacre.pacing import PassTime
from nacre.pacing.closed_forms import PassSeconds
from nacre.pacing.drafter_bandit import DrafterBandit, Offer
from nacre.v1 import session_pb2 as pb

#: What a drafter extends in one step, over all its sessions, as far as one can tell from here.
_NODES_PER_STEP = 4
#: What a pass takes if the verifier has not said it.
_USUAL_PASS_S = 0.04
#: Measured passes outside of this are nonsense.
_MOST_ROWS, _LONGEST_PASS_MS = 1 << 16, 3.6e6


@dataclass(frozen=True, slots=True)
class Wish:
    """What a session needs a drafter for: its text, and how long passes take at its verifier."""

    domain: str
    pass_s: PassSeconds


@dataclass(slots=True)
class Share:
    """One drafter's part in a session as its commits show it: `right` guesses, and `wrong` where it had no right one.

    A pass ends where nobody's guess was right and in time: that counts against every drafter of the session. What a
    faster one had right first says nothing about the others. Passes without any guess count too, or a drafter that
    speaks up once in a hundred tokens would look perfect; but not those that go by while the news of the last miss
    travels, because the distance has a place of its own in the prediction.
    """

    offer: Offer
    ordinal: int
    right: int = 0
    wrong: int = 0
    _under_way: int = 0

    def passed(self, right: Sequence[int], rows: int, pass_s: float) -> None:
        """A pass over `rows` has found guesses of these ordinals right."""
        self.right += right.count(self.ordinal)
        if rows == 1 and self._under_way:
            self._under_way -= 1
        elif rows == 1 or rows > len(right) + 1:  # else all were right and there were no more
            self.wrong += 1
            self._under_way = int((self.offer.rtt_s + self.offer.step_s) / pass_s) if pass_s > 0 else 0


def right_in_last_pass(commit: pb.Commit) -> list[int]:
    """Ordinals of those whose guesses were right; a commit may tell of several passes, but of the last one's rows only.

    The last token of every pass is the verifier's own.
    """
    right: list[int] = []
    for ordinal in reversed(commit.guessed_by[:-1]):
        if not ordinal:
            break
        right.append(ordinal)
    return right


def offered(drafter: DrafterUpstream) -> Offer:
    """What one more session would get. A drafter that many share takes longer to come round to each of them."""
    crowd = max(1.0, (drafter.sessions + 1) / _NODES_PER_STEP)
    return Offer(drafter.kind, drafter.step_s * crowd, drafter.rtt_s)


class DrafterChoice:
    """One for the gateway; what it knows lasts as long as the process."""

    def __init__(self, settings: GatewaySettings, pool: UpstreamPool, metrics: GatewayMetrics) -> None:
        self._on = settings.drafter_choice
        self._pool = pool
        self._metrics = metrics
        self._bandit = DrafterBandit()

    @property
    def needed(self) -> bool:
        """Whether drafters of more than one kind are up."""
        return self._on and len({drafter.kind for drafter in self._pool.drafters.values() if drafter.up}) > 1

    def wish(self, verifier: str, domain: str) -> Wish:
        """For a session at `verifier` whose text is of that kind."""
        return Wish(domain, self._pass_s(verifier))

    def first(self, wish: Wish, drafters: Sequence[DrafterUpstream]) -> DrafterUpstream:
        """The drafter to ask; those given are healthy and in order of preference, which decides within a kind."""
        best_of: dict[tuple[str, int], tuple[Offer, DrafterUpstream]] = {}
        for drafter in drafters:
            offer = offered(drafter)
            best_of.setdefault((offer.arm, offer.distance), (offer, drafter))
        offers = dict(best_of.values())
        chosen = drafters[0]
        if len(offers) > 1:
            chosen = offers[self._bandit.choose((wish.domain,), tuple(offers), wish.pass_s)]
        self._metrics.drafter_chosen(_label(chosen.drafter.method), wish.domain)
        return chosen

    def learned(self, wish: Wish, share: Share) -> None:
        """A drafter's part in a session is over."""
        self._bandit.learned((wish.domain,), share.offer, share.right, share.right + share.wrong)

    def _pass_s(self, verifier: str) -> PassSeconds:
        """As the verifier has measured it; more rows that seem to take less time are taken to take the same."""
        usable: dict[int, float] = {}
        slowest_ms = 0.0
        for point in sorted(self._pool.verifiers[verifier].model.pass_times, key=lambda point: point.rows):
            if 0 < point.rows < _MOST_ROWS and 1e-3 < point.ms < _LONGEST_PASS_MS:
                slowest_ms = max(slowest_ms, point.ms)
                usable[point.rows] = slowest_ms / 1e3
        return PassTime(usable) if usable else _usual_pass


def _usual_pass(rows: int) -> float:
    return _USUAL_PASS_S


def _label(method: str) -> str:
    """What a method counts as: whatever drafters call themselves, there are so many labels and no more."""
    if method in KNOWN_METHODS:
        return method
    return "fusion" if "+" in method and KNOWN_METHODS.issuperset(method.split("+")) else "other"
