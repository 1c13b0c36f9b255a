"""Which commits the drafters of a session hear of: a message costs the core that passes run on.

    guesses are wanted, and somebody helps   every commit
    nobody helps                             every fourth, with all that was committed since the last
    no guesses are wanted                    one that says so, then nothing until some are
    the session has ended                    all that is left

Rule: who has not heard is behind, never wrong. What is told next begins where the last ended.

Pure: asked once for every commit, in order.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Commits that drafters hear of together while none of them helps.
HEARD_TOGETHER = 4


@dataclass(slots=True)
class Hearing:
    """The drafters of one session, all alike: what one of them needs to hear, all do."""

    _resting: bool = False  # they have been told that no guesses are wanted
    _unheard: int = 0  # commits that drafters who do not help have not been told of

    def joined(self) -> None:
        """Whether guesses are wanted, a new one has yet to hear."""
        self._resting = False

    def tells(self, *, wanted: bool, helped: bool, ended: bool) -> bool:
        """Whether drafters are told now what has been committed. `helped`: whether any of them helps."""
        self._unheard = 0 if helped or ended else (self._unheard + 1) % HEARD_TOGETHER
        unwanted = not wanted and not ended
        told = self._unheard == 0 and not (unwanted and self._resting)
        self._resting = unwanted and (told or self._resting)
        return told
