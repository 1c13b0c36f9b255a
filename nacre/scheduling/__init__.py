"""Which sessions and nodes get rows in the next pass. Pure functions over draft trees."""

from nacre.scheduling.rows import RowBudget, share_rows

__all__ = ["RowBudget", "share_rows"]
