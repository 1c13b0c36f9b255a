"""Which drafter a session should get: a bandit that knows what its text is like and how far each drafter is.

Source: choosing among drafters as a bandit is MetaSD's idea (Kim, Jung and Yun 2026); the rule is Thompson sampling
(Thompson 1933) on Beta counts that fade (Raj and Kalyani 2017). What differs from MetaSD:

- It chooses anew for every block and plays UCB; a remote drafter that takes over must read the whole text first, so
  here a choice is for a session.
- Its reward is how much the distributions of drafter and target have in common. On a wire that carries tokens there is
  no such number: guesses that came true are counted.
- Its drafters cost the same. Here each has its draft step and its distance, so arms are not ranked by acceptance but by
  the tokens per second that the pipeline formula predicts with it (`closed_forms`).
- Its record of an arm is one; here there is one per context, because a drafter made for code is of little use in
  letters. A context that is new starts from what the arm has been worth everywhere, at little weight.

Rule: draw an acceptance for every arm from what is known of it in this context, predict, take the fastest.

Whatever is chosen, the text is the same. Invariants: at most `MOST_CONTEXTS` contexts and `MOST_ARMS` arms in each are
remembered, the longest unused go first; one seed, one sequence of choices.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from nacre.pacing.closed_forms import PassSeconds, fastest_pipelined
from nacre.pacing.dials import real
from nacre.pacing.draws import Draws

#: What the text is like, in a few words that take few values.
Context: TypeAlias = tuple[str, ...]

MOST_CONTEXTS = 256
MOST_ARMS = 64
#: Round trips that are told apart, in seconds: a far drafter of a kind is known apart from a near one.
DISTANCES_S = (0.005, 0.02, 0.06, 0.15)
#: What an arm of which nothing is known weighs: one right and one wrong guess, so that any acceptance is as likely.
_UNKNOWN = 2.0
#: The formula has no speed for a drafter that is never wrong.
_MOST_ACCEPTANCE = 0.99

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Offer:
    """An arm as it could be had now: seconds of a draft step for one session, and of the round trip; 0 if unknown."""

    arm: str
    step_s: float = 0.0
    rtt_s: float = 0.0

    @property
    def distance(self) -> int:
        """Number of the bucket in `DISTANCES_S`."""
        return bisect_right(DISTANCES_S, self.rtt_s)


@dataclass(slots=True)
class _Record:
    right: float = 0.0
    wrong: float = 0.0

    def fade(self, factor: float) -> None:
        self.right *= factor
        self.wrong *= factor


_Arms: TypeAlias = OrderedDict[tuple[str, int], _Record]


class DrafterBandit:
    """Learns which arm is fastest in which context. Not thread-safe; a choice costs two draws and a formula an arm.

    `keep` is what one guess leaves of the record before it; in arms that were passed over, what one session leaves.
    `prior_weight` is what an arm's record elsewhere weighs in a new context, in guesses. A session counts as
    `session_weight` guesses at most: those of one text are not independent.
    """

    def __init__(
        self, *, keep: float = 0.995, prior_weight: float = 4.0, session_weight: float = 32.0, seed: int = 0
    ) -> None:
        self._keep = real("keep", keep, 0.5, 1.0)
        self._prior_weight = real("prior_weight", prior_weight, 0.1, 1e6)
        self._session_weight = real("session_weight", session_weight, 1.0, 1e6)
        self._draws = Draws(seed)
        self._contexts: OrderedDict[Context, _Arms] = OrderedDict()
        self._everywhere: OrderedDict[str, _Record] = OrderedDict()

    @property
    def size(self) -> int:
        """Records kept, over all contexts."""
        return sum(len(arms) for arms in self._contexts.values()) + len(self._everywhere)

    def choose(self, context: Context, offers: Sequence[Offer], pass_s: PassSeconds) -> Offer:
        """The offer to take: the fastest with acceptances drawn by belief. At least one offer; the first wins a tie."""
        drawn = [self._speed(self._draws.beta(*self._belief(context, offer)), offer, pass_s) for offer in offers]
        return offers[drawn.index(max(drawn))]

    def best(self, context: Context, offers: Sequence[Offer], pass_s: PassSeconds) -> Offer:
        """The offer that is fastest by what is known; never tries anything."""
        return max(offers, key=lambda offer: self.predicted(context, offer, pass_s))

    def acceptance(self, context: Context, offer: Offer) -> float:
        """The chance that a guess of this arm comes true in this context, given that the one before it did."""
        right, wrong = self._belief(context, offer)
        return right / (right + wrong)

    def predicted(self, context: Context, offer: Offer, pass_s: PassSeconds) -> float:
        """Tokens per second with this offer, one session alone."""
        return self._speed(self.acceptance(context, offer), offer, pass_s)

    def learned(self, context: Context, offer: Offer, accepted: int, judged: int) -> None:
        """A session has ended: of `judged` guesses that could have been right `accepted` were."""
        assert 0 <= accepted <= judged, "more guesses right than judged"
        if judged == 0:
            return
        weight = min(1.0, self._session_weight / judged)
        played = (offer.arm, offer.distance)
        arms = _recent(self._contexts, context, OrderedDict, MOST_CONTEXTS)
        for key, record in arms.items():
            if key != played:  # it may have changed meanwhile
                record.fade(self._keep)
        everywhere = _recent(self._everywhere, offer.arm, _Record, MOST_ARMS)
        for record in (_recent(arms, played, _Record, MOST_ARMS), everywhere):
            record.fade(self._keep ** (weight * judged))
            record.right += weight * accepted
            record.wrong += weight * (judged - accepted)

    def _speed(self, acceptance: float, offer: Offer, pass_s: PassSeconds) -> float:
        return fastest_pipelined(min(acceptance, _MOST_ACCEPTANCE), offer.step_s, offer.rtt_s, pass_s)

    def _belief(self, context: Context, offer: Offer) -> tuple[float, float]:
        """Parameters of the Beta: what was seen in this context, on top of a little of what was seen everywhere."""
        everywhere = self._everywhere.get(offer.arm) or _Record()
        evidence = everywhere.right + everywhere.wrong
        mean = (everywhere.right + _UNKNOWN / 2) / (evidence + _UNKNOWN)
        weight = min(self._prior_weight, evidence + _UNKNOWN)
        arms = self._contexts.get(context)
        here = (arms.get((offer.arm, offer.distance)) if arms else None) or _Record()
        return here.right + weight * mean, here.wrong + weight * (1.0 - mean)


def _recent(kept: OrderedDict[_Key, _Value], key: _Key, new: Callable[[], _Value], most: int) -> _Value:
    """What is kept under `key`, made if it is not there; beyond `most`, what was not asked for longest goes."""
    value = kept.get(key)
    if value is None:
        value = kept[key] = new()
        if len(kept) > most:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return value
