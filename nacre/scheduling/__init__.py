"""Which sessions and nodes get rows in the next pass, and when it starts. Pure: trees, costs and times in."""

from nacre.scheduling.costs import PassCosts
from nacre.scheduling.pacer import Pacer, Waiting
from nacre.scheduling.rows import RowBudget, Shares, share_rows
from nacre.scheduling.waiting import AnswerTimes, Arrivals

__all__ = ["AnswerTimes", "Arrivals", "Pacer", "PassCosts", "RowBudget", "Shares", "Waiting", "share_rows"]
