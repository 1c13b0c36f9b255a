"""Rows and texts from a store on their way into a proposer's tables, in pieces small enough for a draft step.

Rule: a step learns for a few milliseconds, whatever waits; the rest is for the next one. What is too much is dropped,
the oldest first: a lesson that is not learnt costs speed only. The event loop adds, the proposer's thread takes.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from nacre.drafting.rows import Row

log = logging.getLogger("nacre.drafter")

#: (tenant, rows, texts)
Teach = Callable[[int, Sequence[Row], Sequence[tuple[int, ...]]], None]

#: A piece takes a millisecond or so, with the slowest of tables.
PIECE_ROWS = 32
PIECE_TOKENS = 1024
MOST_PIECES = 256
STEP_S = 0.004


class Lessons:
    """What is still to be learnt, in order. A step takes about `step_s`, one piece at least; `clock` tells seconds."""

    def __init__(self, teach: Teach, *, step_s: float = STEP_S, clock: Callable[[], float] = time.perf_counter) -> None:
        self._teach = teach
        self._step_s = step_s
        self._clock = clock
        self._pieces: deque[tuple[int, Sequence[Row], Sequence[tuple[int, ...]]]] = deque(maxlen=MOST_PIECES)
        self._told = False

    def __len__(self) -> int:
        return len(self._pieces)

    def add(self, tenant: int, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]]) -> None:
        """Longer texts are cut: what follows across the cut is not learnt."""
        for output in outputs:
            for at in range(0, len(output), PIECE_TOKENS):
                self._pieces.append((tenant, (), (output[at : at + PIECE_TOKENS],)))
        for at in range(0, len(rows), PIECE_ROWS):
            self._pieces.append((tenant, rows[at : at + PIECE_ROWS], ()))

    def learn(self) -> None:
        """As many pieces as a step has time for, one at least. What a table cannot take is told once, and skipped."""
        until = self._clock() + self._step_s
        while self._pieces:
            tenant, rows, outputs = self._pieces.popleft()
            try:
                self._teach(tenant, rows, outputs)
            except Exception:  # a table that cannot be taught can still guess
                if not self._told:
                    log.warning("what came from the store could not be learnt", exc_info=True)
                self._told = True
            if self._clock() >= until:
                return
