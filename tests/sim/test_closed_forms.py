"""The simulator against the formulas, in the worlds that the formulas are about: one chain, independent acceptance."""

from __future__ import annotations

import pytest

from nacre.pacing.closed_forms import best_stop_and_wait, fastest_pipelined, pipelined, stop_and_wait
from nacre.sim.capacity import predict
from nacre.sim.dials import Dials, with_dials

PASS_MS = [[1, 38.0], [41, 50.0]]


def pass_s(rows: int) -> float:
    return (38.0 + 0.3 * (rows - 1)) / 1e3


def simulated(policy: str, a: float, g: int, d: float, rtt: float, **more: object) -> float:
    dials = with_dials(
        Dials(),
        {
            "policy": policy, "acceptance": [a], "gamma": g, "draft_ms": 1e3 * d, "rtt_ms": 1e3 * rtt,
            "pass_ms": PASS_MS, "pass_rows": 64, "session_rows": 64, "requests": 2, "prompt_tokens": 1,
            "output_tokens": 3000, "window_nodes": 1024, **more,
        },
    )  # fmt: skip
    return predict(dials).session_tokens_per_s or 0.0


@pytest.mark.parametrize("rtt", [0.0, 0.04, 0.1])
@pytest.mark.parametrize(("a", "g"), [(0.5, 2), (0.8, 4), (0.9, 8)])
def test_stop_and_wait(a: float, g: int, rtt: float) -> None:
    assert simulated("sync", a, g, 0.008, rtt) == pytest.approx(stop_and_wait(a, g, 0.008, rtt, pass_s), rel=0.03)


@pytest.mark.parametrize("rtt", [0.005, 0.1])
@pytest.mark.parametrize(("a", "g"), [(0.8, 5), (0.9, 8)])
def test_pipelined(a: float, g: int, rtt: float) -> None:
    assert simulated("pipelined", a, g, 0.008, rtt) == pytest.approx(pipelined(a, g, 0.008, rtt, pass_s), rel=0.05)


@pytest.mark.parametrize("window", [30, 60])
def test_pipelined_through_a_window(window: int) -> None:
    found = simulated("pipelined", 0.95, 5, 0.008, 0.2, window_nodes=window)
    assert found == pytest.approx(pipelined(0.95, 5, 0.008, 0.2, pass_s, window=window), rel=0.05)


@pytest.mark.parametrize("rtt", [0.005, 0.04, 0.1])
@pytest.mark.parametrize("a", [0.0, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("d", [0.001, 0.008, 0.04])
def test_few_chunk_lengths_are_enough_to_find_the_speed_of_the_best(a: float, d: float, rtt: float) -> None:
    best = max(pipelined(a, g, d, rtt, pass_s) for g in range(1, 65))
    assert 0.97 * best <= fastest_pipelined(a, d, rtt, pass_s) <= best


def test_the_best_length_grows_with_the_round_trip() -> None:
    lengths = [best_stop_and_wait(0.8, 0.008, rtt, pass_s) for rtt in (0.0, 0.04, 0.1)]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_the_best_of_the_simulator_is_the_best_of_the_formula() -> None:
    rtt, a, d = 0.04, 0.8, 0.008
    best = best_stop_and_wait(a, d, rtt, pass_s)
    speeds = {g: simulated("sync", a, g, d, rtt, output_tokens=1500) for g in (2, best, 12)}
    assert max(speeds, key=lambda g: speeds[g]) == best


def test_pearl_beats_stop_and_wait_where_it_should_and_the_product_both() -> None:
    sync, pearl, product = (
        simulated(policy, 0.8, 5, 0.008, 0.0, output_tokens=1000) for policy in ("sync", "pearl", "nacre")
    )
    assert sync < pearl < 1.02 * product
