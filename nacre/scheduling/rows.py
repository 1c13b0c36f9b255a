"""Which sessions and guesses get rows in the next forward pass.

Every session with work gets its tip's row; what is left of the pass goes to the guesses most likely to survive, over
all sessions. A row that survives less often than it costs is not worth computing: `least_survival` is that price.

Pure: trees in, row counts out.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from nacre.tree import DraftTree


@dataclass(frozen=True, slots=True)
class RowBudget:
    """Bounds of one pass. `pass_rows` over all sessions, `session_rows` for one; tips are always admitted."""

    pass_rows: int = 32
    session_rows: int = 8
    least_survival: float = 0.02


def share_rows(trees: Sequence[DraftTree], budget: RowBudget) -> list[int]:
    """Rows for each tree, its tip's row included: at least 1 each, at most `session_rows`.

    Beyond the tips, guesses are admitted in order of path survival until the pass is full.
    """
    rows = [1] * len(trees)
    left = budget.pass_rows - len(trees)
    streams = [tree.best_first() for tree in trees]
    heap: list[tuple[float, int]] = []

    def offer(index: int) -> None:
        best = next(streams[index], None)
        if best is not None and best[1] >= budget.least_survival:
            heapq.heappush(heap, (-best[1], index))

    for index in range(len(trees)):
        offer(index)
    while heap and left > 0:
        _, index = heapq.heappop(heap)
        if rows[index] < budget.session_rows:
            rows[index] += 1
            left -= 1
            offer(index)
    return rows
