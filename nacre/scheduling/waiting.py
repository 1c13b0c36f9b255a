"""Whether a free engine should wait a moment for guesses that are on their way.

Starting at once wastes a pass on few rows; waiting wastes the engine. The rule (fractional programming, as for draft
length): wait for the next message while the tokens it is expected to add are worth more than what the engine earns in
the time until it comes, `gain > throughput x (wait + its rows)`. With a cheap drafter near by that is a few
milliseconds after a miss; with one far away, slow or silent it never happens.

Pauses are paid from what guesses have saved: whoever only seems to be worth waiting for, on purpose or not, costs a
session a hundredth of its time at most.

Pure: times are the caller's, in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from nacre.tree import DraftTree

#: Weight of a measurement that is shorter than expected, and of one that is longer (which counts as twice as long at
#: most): guesses often come late because there is nothing to say, and that says nothing about the way.
_FOLLOW_DOWN, _FOLLOW_UP = 0.2, 0.05
#: Share of a guess's worth that is lost if it comes after the pass has started (best of a sweep in simulation).
_LOST = 0.6
#: A message this many times later than expected is not waited for any longer.
_PATIENCE = 2.0
#: What a pass adds to the time that may be spent on pauses, as shares of it: in any case, and per guess that was right;
#: and how many passes' time can be saved up.
_ALLOWED, _EARNED, _MOST_PASSES = 0.01, 0.5, 4.0


@dataclass(slots=True)
class Arrivals:
    """How soon after a commit, and after one another, guesses of one session come.

    Only what comes while guesses are wanted counts: a drafter that is far ahead takes its time.
    """

    #: Time that may be spent on pauses.
    credit_s: float = 0.0
    _answer_s: float | None = None
    _gap_s: float | None = None
    _since: float = 0.0
    _hungry: bool = False
    _answered: bool = False

    def committed(self, now: float, *, hungry: bool, matched: int = 0, pass_s: float = 0.0) -> None:
        """The tip has moved, over `matched` right guesses; `hungry` if no guess is left below it."""
        earned_s = (_ALLOWED + _EARNED * matched) * pass_s
        self.credit_s = min(self.credit_s + earned_s, _MOST_PASSES * pass_s)
        self._since, self._hungry, self._answered = now, hungry, False

    def came(self, now: float, *, hungry: bool) -> None:
        """A message with live guesses; `hungry` if a pass would still take more."""
        if self._hungry:
            passed = now - self._since
            if self._answered:
                self._gap_s = _follow(self._gap_s, passed)
            else:
                self._answer_s = _follow(self._answer_s, passed)
        self._since, self._hungry, self._answered = now, hungry, True

    def due_s(self, now: float) -> float | None:
        """Seconds until the next message is expected; None if nothing is known, or it is overdue."""
        expected = self._gap_s if self._answered or not self._hungry else self._answer_s
        if expected is None:
            return None
        passed = now - self._since
        if passed > _PATIENCE * expected:
            return None
        # What should be here already may come any moment.
        return max(expected - passed, expected / 4)


def next_gain(tree: DraftTree, hit_rate: float) -> float:
    """Tokens that one more message is expected to add to a pass: a hit below the likeliest leaf.

    Not all of it is lost without a wait: what comes during the pass is matched against it, or used by the next.
    """
    if not tree.tip.children:
        return _LOST * hit_rate
    for node, survival in tree.best_first():
        if not node.children:
            return _LOST * survival * hit_rate
    return 0.0


def worth_waiting(gain: float, wait_s: float, row_s: float, throughput: float) -> bool:
    """`gain` tokens after `wait_s` and at the cost of `row_s` more pass time, where tokens come at `throughput` a
    second otherwise."""
    return gain > throughput * (wait_s + row_s)


def _follow(average: float | None, sample: float) -> float:
    if average is None:
        return sample
    if sample < average:
        return average + _FOLLOW_DOWN * (sample - average)
    return average + _FOLLOW_UP * (min(sample, 2 * average) - average)
