"""A circuit breaker: after a few failures in a row nobody is asked for a while, then one caller tries.

    closed     all may pass; `limit` failures in a row open it
    open       nobody passes for `open_s`
    half open  exactly one passes; its success closes the breaker, its failure opens it again

Pure: time is an argument. Rule: a peer that is gone costs `limit` timeouts, then at most one every `open_s`.
"""

from __future__ import annotations


class CircuitBreaker:
    """Ask `allows`, then report `succeeded` or `failed`, always one of the two for each leave given."""

    def __init__(self, limit: int = 5, open_s: float = 1.0) -> None:
        self._limit = limit
        self._open_s = open_s
        self._failures = 0
        self._opened_s: float | None = None
        self._probing = False

    @property
    def state(self) -> str:
        if self._opened_s is None:
            return "closed"
        return "half open" if self._probing else "open"

    def allows(self, now_s: float) -> bool:
        if self._opened_s is None:
            return True
        if self._probing or now_s < self._opened_s + self._open_s:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        self._failures = 0
        self._opened_s = None
        self._probing = False

    def failed(self, now_s: float) -> None:
        self._failures += 1
        if self._probing or (self._opened_s is None and self._failures >= self._limit):
            self._opened_s = now_s
        self._probing = False

    def abandoned(self) -> None:
        """Leave was given and nothing was learnt: a caller went away, or had no turn."""
        self._probing = False
