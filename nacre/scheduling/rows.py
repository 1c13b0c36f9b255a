"""Which sessions and guesses get rows in the next forward pass.

Every session with work gets its tip's row. Of the guesses, over all sessions, the pass takes the best prefix in order
of survival that makes it commit the most tokens per second: a row is worth its time or it is left out. That one rule is
draft length, tree width and load shedding at once: hopeless guesses get no rows, and none get any where tips alone fill
the machine.

Pure: trees and costs in, row counts out.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from nacre.scheduling.costs import PassCosts
from nacre.tree import DraftTree

#: Rows beyond this share of the best speed are not asked for.
_NEARLY = 0.98


@dataclass(frozen=True, slots=True)
class RowBudget:
    """Bounds of one pass. `pass_rows` over all sessions, `session_rows` for one; tips are always admitted."""

    pass_rows: int = 32
    session_rows: int = 16
    least_survival: float = 0.005


@dataclass(frozen=True, slots=True)
class Shares:
    """Rows for each tree, its tip's included; what the pass is expected to commit, and how long it should take."""

    rows: list[int]
    tokens: float
    seconds: float


def share_rows(trees: Sequence[DraftTree], costs: PassCosts, budget: RowBudget, doubt: float = 0.0) -> Shares:
    """The rows that make the pass commit the most tokens per second: at least 1 each, at most `session_rows`.

    With `doubt`, if passes take what `PassCosts.seconds` says of it.
    """
    tips = len(trees)
    rows = [1] * tips
    streams = [tree.best_first() for tree in trees]
    heap: list[tuple[float, int]] = []

    def offer(index: int) -> None:
        best = next(streams[index], None)
        if best is not None and best[1] >= budget.least_survival:
            heapq.heappush(heap, (-best[1], index))

    for index in range(tips):
        offer(index)
    taken: list[int] = []
    tokens = best_tokens = float(tips)
    seconds = best_seconds = costs.seconds(tips, doubt)
    best_count = 0
    while heap and tips + len(taken) < budget.pass_rows:
        negative, index = heapq.heappop(heap)
        if rows[index] == budget.session_rows:
            continue
        rows[index] += 1
        taken.append(index)
        tokens -= negative
        seconds = costs.seconds(tips + len(taken), doubt)
        # Times grow in steps, so a later row may pay where the next one does not: look at every count.
        if tokens * best_seconds > best_tokens * seconds:
            best_tokens, best_seconds, best_count = tokens, seconds, len(taken)
        offer(index)
    for index in taken[best_count:]:
        rows[index] -= 1
    return Shares(rows, best_tokens, best_seconds)


def row_offer(tips: int, costs: PassCosts, budget: RowBudget) -> int:
    """Rows that each of `tips` sessions could use if all its guesses were sure: what drafters are told to aim at."""
    most = max(1, min(budget.session_rows, budget.pass_rows // max(1, tips)))
    speeds = [tips * rows / costs.seconds(tips * rows) for rows in range(1, most + 1)]
    enough = _NEARLY * max(speeds)
    return next(rows for rows, speed in enumerate(speeds, start=1) if speed >= enough)
