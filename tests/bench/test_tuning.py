"""Rivals are tuned: the search finds the best of a smooth hill, and keeps within bounds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nacre.bench.baselines import load_baselines
from nacre.bench.tuning import HF_DEFAULT, MOST_LENGTH, Settings, best_settings, first_settings, neighbours


@pytest.mark.parametrize("peak", [1, 3, 5, 8, 13, 17])
async def test_the_search_comes_near_the_peak(peak: int) -> None:
    async def speeds(settings: Sequence[Settings]) -> list[float]:
        return [100.0 - abs(each["gamma"] - peak) for each in settings]

    best, tried = await best_settings(first_settings(load_baselines()["sync"]), speeds)
    assert abs(best["gamma"] - peak) <= 2
    assert max(tried, key=lambda each: each["tokens_per_s"])["gamma"] == best["gamma"]


async def test_the_least_length_is_only_measured_where_the_next_one_is_best() -> None:
    asked: list[int] = []

    async def speeds(settings: Sequence[Settings], peak: int = 8) -> list[float]:
        asked.extend(each["gamma"] for each in settings)
        return [100.0 - abs(each["gamma"] - peak) for each in settings]

    await best_settings(first_settings(load_baselines()["sync"]), speeds)
    assert min(asked) == 4


def test_pearl_is_also_tried_at_the_length_its_authors_choose() -> None:
    pearl = load_baselines()["pearl"]
    assert {"gamma": 11} in first_settings(pearl, ratio=11.2)
    assert {"gamma": MOST_LENGTH} in first_settings(pearl, ratio=1000.0)


def test_neighbours_are_new_and_possible() -> None:
    assert neighbours({"gamma": 1}, []) == [{"gamma": 2}]
    assert neighbours({"gamma": 8}, [{"gamma": 6}]) == [{"gamma": 10}]
    assert neighbours({"threshold": 0.3}, []) == []


def test_what_has_no_dials_has_no_settings() -> None:
    baselines = load_baselines()
    assert first_settings(baselines["nacre"]) == []
    assert first_settings(baselines["hf-ar"]) == []


def test_assisted_generation_is_also_tried_as_it_comes() -> None:
    grid = first_settings(load_baselines()["hf-assisted"])
    assert HF_DEFAULT in grid
    assert len(grid) >= 4
