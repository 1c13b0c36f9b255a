"""Whether guesses pay at all under the present load, found out by trying.

The row rule knows what rows cost. It cannot know what guesses cost beside them: messages that take time of the engine's
core, a drafter that shares its memory, a clock that falls when all cores compute. With few sessions guesses gain far
more than that; with many they may not. There both ways are tried in turns, with guesses and without, and the faster one
is kept until the next trial.

Rule: where at least `FEWEST_TIPS` sessions are in a pass and the row rule expects guesses to gain less than `_SURE`,
the way that is not in use gets a few passes now and then; guesses are kept if they were at least `_WORTH` times as
fast. While they are not, drafters are told that none are wanted, and rest. A result that is confirmed is doubted half
as often, up to every `_LONGEST` passes. The first passes of such a load are without guesses: that is safe.

Pure: passes are told with their times.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: With fewer sessions a trial without guesses costs more than it can find out: they gain more, and a few passes on a
#: machine that others use, too, may say anything.
FEWEST_TIPS = 12
#: An expected gain that no hidden cost eats up.
_SURE = 1.5
#: Guesses that do not make passes this many times as fast are not worth a drafter's time.
_WORTH = 1.02
#: Passes after a change that tell nothing yet (what is under way belongs to the other way), and then those of a trial.
_SETTLE, _STRETCH = 2, 8
#: A trial is over after so many passes if it is so slow.
_ENOUGH, _BADLY = 3, 0.85
#: Passes from one trial to the next: at first, and at most.
_FIRST, _LONGEST = 64, 1024
#: A pass weighs so much in the rate of the way in use, and in the expected gain.
_FOLLOW = 0.1


@dataclass(slots=True)
class Rate:
    """Tokens per second, faded from pass to pass."""

    tokens: float = 0.0
    seconds: float = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        self.tokens += _FOLLOW * (tokens - self.tokens)
        self.seconds += _FOLLOW * (seconds - self.seconds)

    @property
    def per_s(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


@dataclass(slots=True)
class Trial:
    """Of loads of about one size. `guesses`: whether the next pass gives rows to guesses."""

    guesses: bool = False
    _kept: Rate = field(default_factory=Rate)
    _tried: Rate | None = None  # a trial of the other way is under way
    _gain: float = 0.0
    _settling: int = _SETTLE
    _left: int = _STRETCH
    _interval: int = _FIRST

    def expect(self, gain: float) -> None:
        """The row rule expects this pass to be so many times as fast as without guesses."""
        self._gain = self._gain + _FOLLOW * (gain - self._gain) if self._gain else gain

    def passed(self, tokens: int, seconds: float) -> None:
        """A pass, counted from the end of the one before it."""
        if self._settling:
            self._settling -= 1
            return
        self._left -= 1
        tried = self._tried
        if tried is None:
            self._kept.add(tokens, seconds)
            if self._left <= 0:
                self._begin()
            return
        tried.add(tokens, seconds)
        badly = _STRETCH - self._left >= _ENOUGH and tried.per_s < _BADLY * self._kept.per_s
        if self._left <= 0 or badly:
            self._decide(tried)

    def _begin(self) -> None:
        if self.guesses and self._gain >= _SURE:
            self._left = self._interval
            return
        self._tried = Rate()
        self._change(_STRETCH)

    def _decide(self, tried: Rate) -> None:
        with_guesses, without = (tried, self._kept) if self.guesses else (self._kept, tried)
        pays = with_guesses.per_s >= _WORTH * without.per_s
        self._tried = None
        if pays == self.guesses:  # the way that was tried is the better one
            self._kept, self._interval = tried, _FIRST
            self._left = self._interval
        else:
            self._interval = min(2 * self._interval, _LONGEST)
            self._change(self._interval)

    def _change(self, passes: int) -> None:
        self.guesses = not self.guesses
        self._settling, self._left = _SETTLE, passes
