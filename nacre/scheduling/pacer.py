"""When a pass starts and which rows it computes: the scheduling rules with what they have measured.

One object per engine. Times are the caller's, in seconds; the verifier service and the simulator drive the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nacre.scheduling.costs import PassCosts
from nacre.scheduling.rows import RowBudget, Shares, row_offer, share_rows
from nacre.scheduling.trial import FEWEST_TIPS, Trial
from nacre.scheduling.waiting import Arrivals, next_gain, worth_waiting
from nacre.tree import DraftTree

#: Weight of a pass in the measured throughput.
_FOLLOW = 0.1
#: A pause never takes more than this share of a pass.
_LONGEST_PAUSE = 0.5
#: In every so many passes rows are chosen at one end of what is doubted about their times, or at the other.
_DOUBTED_EVERY, _DOUBT = 8, 2.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A session that could be in the next pass. `hit_rate`: how often one of its drafters' guesses is right."""

    tree: DraftTree
    arrivals: Arrivals
    hit_rate: float


@dataclass(slots=True)
class Pacer:
    """`costs` are followed while running; `budget` bounds every pass. `pauses` False starts every pass at once,
    `trials` False computes guesses whatever they have been worth where many sessions share passes.
    """

    costs: PassCosts
    budget: RowBudget
    pauses: bool = True
    trials: bool = True
    _tokens: float = 0.0  # per pass, and
    _seconds: float = 0.0  # from pass to pass, faded alike
    _ended: float = field(default=-1e9)
    _pause: tuple[Arrivals, float, float] | None = None  # whose it is, since when, how long at most
    _trials: dict[int, Trial] = field(default_factory=dict)  # by the magnitude of the load: one per power of two
    _tips: int = 0  # of the last pass
    _shared: int = 0  # passes

    def share(self, trees: Sequence[DraftTree]) -> Shares:
        """Rows for each tree in the next pass; tips alone where guesses do not pay.

        Now and then rows are chosen as if large passes took more time than is thought, or less: that tells.
        """
        self._tips = tips = len(trees)
        trial = self._trial(tips)
        if trial is None:
            return share_rows(trees, self.costs, self.budget, self._doubt() if trees else 0.0)
        # A trial finds out by itself what passes without guesses take.
        shares = share_rows(trees, self.costs, self.budget)
        plain = Shares([1] * tips, float(tips), self.costs.seconds(tips))
        if not trial.guesses:
            return plain
        trial.expect(shares.tokens / shares.seconds * plain.seconds / plain.tokens)
        return shares

    def offer(self, tips: int) -> int:
        """Rows that each session could use: what drafters are told; 1 where no guesses are wanted."""
        trial = self._trial(tips)
        return 1 if trial is not None and not trial.guesses else row_offer(tips, self.costs, self.budget)

    def _doubt(self) -> float:
        """Of the next pass, in standard deviations."""
        self._shared += 1
        turn, rest = divmod(self._shared, _DOUBTED_EVERY)
        return 0.0 if rest else _DOUBT if turn % 2 else -_DOUBT

    def _trial(self, tips: int) -> Trial | None:
        if not self.trials or tips < FEWEST_TIPS:
            return None
        return self._trials.setdefault(tips.bit_length(), Trial())

    @property
    def throughput(self) -> float:
        """Tokens per second lately; 0 before the first pass."""
        return self._tokens / self._seconds if self._seconds > 0 else 0.0

    @property
    def row_s(self) -> float:
        """What one more row takes in a pass of few."""
        return self.costs.seconds(2) - self.costs.seconds(1)

    @property
    def row_worth(self) -> float:
        """Tokens that one more row must be expected to bring: what the engine earns in its time."""
        return self.throughput * self.row_s

    def pause_s(self, now: float, waiting: Sequence[Waiting]) -> float:
        """How long the engine should wait for guesses before it starts with what is there; 0 to start now."""
        self._charge(now)
        throughput = self.throughput
        # Nobody waits for the drafter of somebody else.
        if not self.pauses or len(waiting) != 1 or throughput == 0.0:
            return 0.0
        (session,) = waiting
        left = min(self._ended + _LONGEST_PAUSE * self.costs.seconds(1) - now, session.arrivals.credit_s)
        due_s = session.arrivals.due_s(now)
        if due_s is None or due_s > left:
            return 0.0
        if not worth_waiting(next_gain(session.tree, session.hit_rate), due_s, self.row_s, throughput):
            return 0.0
        # A message that is a little late is still worth it; one that is much later is not.
        pause_s = min(2 * due_s, left)
        self._pause = (session.arrivals, now, pause_s)
        return pause_s

    def _charge(self, now: float) -> None:
        """The pause that was granted last is over: its session has paid for it."""
        if self._pause is not None:
            arrivals, since, most_s = self._pause
            arrivals.credit_s -= min(now - since, most_s)
            self._pause = None

    def passed(self, now: float, *, rows: int, seconds: float, tokens: int, prompt_rows: int) -> None:
        """A pass of `rows` rows has ended `now` after `seconds` and committed `tokens`."""
        self._charge(now)
        if prompt_rows == 0 and rows > 0:
            self.costs.observe(rows, seconds)
            # From end to end while the engine is kept busy: what a pause costs belongs to it.
            elapsed = now - self._ended
            elapsed = elapsed if elapsed < 2 * seconds else seconds
            keep = 1 - _FOLLOW if self._seconds > 0 else 0.0
            self._tokens = keep * self._tokens + (1 - keep) * tokens
            self._seconds = keep * self._seconds + (1 - keep) * elapsed
            trial = self._trial(self._tips)
            if trial is not None:
                trial.passed(tokens, elapsed)
        self._ended = now
