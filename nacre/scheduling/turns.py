"""Who goes first where a pass has no room for everybody, in mode throughput: guesses before bare tips.

Rule: a session without guesses lets others go first, but not for longer than `PATIENCE_S`: nobody waits for ever.
"""

from __future__ import annotations

#: A session in mode throughput lets others go first this long at most.
PATIENCE_S = 1.0


def gives_way(guesses: int, waited_s: float) -> bool:
    """Whether a session in mode throughput, with so many guesses and so long without a pass, lets others go first."""
    return guesses == 0 and waited_s < PATIENCE_S
