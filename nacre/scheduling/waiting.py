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
#: A message this many times later than expected is not waited for any longer.
_PATIENCE = 2.0
#: What a pass adds to the time that may be spent on pauses, as shares of it: in any case, and per guess that was right;
#: and how many passes' time can be saved up.
_ALLOWED, _EARNED, _MOST_PASSES = 0.01, 0.5, 4.0


@dataclass(frozen=True, slots=True)
class AnswerTimes:
    """Seconds from a miss to the first guess after it, and from one message to the next; None: not known."""

    answer_s: float | None = None
    gap_s: float | None = None


@dataclass(slots=True)
class Arrivals:
    """How soon after a commit, and after one another, guesses of one session come.

    Only what comes while guesses are wanted counts: a drafter that is far ahead takes its time. What comes during a
    pass may come in a clump, when the pass lets go of the core; so a gap is the time since the first answer, shared
    among all messages since. Until a session has had its first answer, it takes `like` for its own: what others have
    had from drafters of the kind.
    """

    #: Time that may be spent on pauses.
    credit_s: float = 0.0
    like: AnswerTimes = AnswerTimes()
    _answer_s: float | None = None
    _gap_s: float | None = None
    _since: float = 0.0
    _hungry: bool = False
    _quiet: bool = False  # nothing was coming when the tip moved: the next guess answers that
    _came_at: float = float("-inf")
    _answers: int = 0  # since the tip moved
    _answered_at: float = 0.0

    def committed(self, now: float, *, hungry: bool, matched: int = 0, pass_s: float = 0.0) -> None:
        """The tip has moved, over `matched` right guesses; `hungry` if no guess is left below it."""
        earned_s = (_ALLOWED + _EARNED * matched) * pass_s
        self.credit_s = min(self.credit_s + earned_s, _MOST_PASSES * pass_s)
        self._since, self._hungry, self._answers = now, hungry, 0
        gap_s = self.times.gap_s
        self._quiet = hungry or gap_s is None or now - self._came_at > _PATIENCE * gap_s

    def came(self, now: float, *, hungry: bool) -> None:
        """A message with live guesses; `hungry` if a pass would still take more."""
        if self._hungry:
            if self._answers:
                self._gap_s = _follow(self._gap_s, (now - self._answered_at) / self._answers)
            else:
                self._answer_s = _follow(self._answer_s, now - self._since)
        if not self._answers:
            self._answered_at = now
        self._since, self._hungry, self._answers = now, hungry, self._answers + 1
        self._came_at = now

    @property
    def times(self) -> AnswerTimes:
        """As far as they are known, here or of others."""
        return AnswerTimes(
            self.like.answer_s if self._answer_s is None else self._answer_s,
            self.like.gap_s if self._gap_s is None else self._gap_s,
        )

    def due_s(self, now: float) -> float | None:
        """Seconds until the next message is expected; None if nothing is known, or it is overdue."""
        times = self.times
        expected = times.answer_s if self._quiet and not self._answers else times.gap_s
        if expected is None:
            return None
        passed = now - self._since
        if passed > _PATIENCE * expected:
            return None
        # What should be here already may come any moment.
        return max(expected - passed, expected / 4)


def next_gain(tree: DraftTree, hit_rate: float) -> float:
    """Tokens that one more message is expected to add to a pass: a hit below the likeliest leaf.

    Without a wait not all of it is lost (what comes during the pass is matched against it, or used by the next), and a
    message brings more than that one guess: in simulation 0.7 to 1.2 times this is best, wherever a drafter is near.
    """
    if not tree.tip.children:
        return hit_rate
    for node, survival in tree.best_first():
        if not node.children:
            return survival * hit_rate
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
