"""The breaker: five failures open it, one probe a second, and one success closes it."""

from __future__ import annotations

from nacre.store.breaker import CircuitBreaker


def failing(breaker: CircuitBreaker, times: int, now_s: float = 0.0) -> None:
    for _ in range(times):
        assert breaker.allows(now_s)
        breaker.failed(now_s)


def test_a_few_failures_are_forgiven():
    breaker = CircuitBreaker(limit=5)
    failing(breaker, 4)
    breaker.succeeded()
    failing(breaker, 4)
    assert breaker.state == "closed"


def test_an_open_breaker_lets_one_probe_through_each_time():
    breaker = CircuitBreaker(limit=5, open_s=1.0)
    failing(breaker, 5)
    assert breaker.state == "open"
    assert not breaker.allows(0.99)
    assert breaker.allows(1.0)
    assert breaker.state == "half open"
    assert not breaker.allows(1.0)  # one at a time
    breaker.failed(1.1)
    assert not breaker.allows(2.0)
    assert breaker.allows(2.1)
    breaker.succeeded()
    assert breaker.state == "closed"


def test_a_probe_whose_caller_went_away_is_not_waited_for():
    breaker = CircuitBreaker(limit=1)
    failing(breaker, 1)
    assert breaker.allows(1.0)
    breaker.abandoned()
    assert breaker.allows(1.0)


def test_late_failures_of_earlier_calls_do_not_postpone_the_probe():
    breaker = CircuitBreaker(limit=2, open_s=1.0)
    failing(breaker, 2)
    breaker.failed(0.9)
    assert breaker.allows(1.0)
