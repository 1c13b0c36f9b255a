"""Figures of many sessions, by hand on small cases."""

from __future__ import annotations

import pytest

from nacre.bench.baselines import load_baselines
from nacre.bench.load import LoadOptions, check_texts, first_repeats, load_figures, load_ratio, run_load
from nacre.bench.one_session import Told
from nacre.errors import Internal


def told(first_s: float, gap_s: float, messages: int, started_s: float = 0.0) -> Told:
    arrivals = [first_s + gap_s * i for i in range(messages)]
    return Told(started_s=started_s, arrivals_s=arrivals, arrival_tokens=[1] * messages)


def test_counted_is_the_time_in_which_all_decode() -> None:
    # From 2.0 (the last first token) to 4.0 (the first last token): 20 and 20 tokens.
    found = load_figures([told(1.0, 0.1, 31), told(2.0, 0.1, 31)], LoadOptions())
    assert found["tokens_per_s"] == pytest.approx(40 / 2.0)
    assert found["whole_tokens_per_s"] == pytest.approx(62 / 5.0)


def test_too_short_a_time_together_tells_nothing_and_the_whole_counts() -> None:
    found = load_figures([told(1.0, 0.1, 11), told(5.0, 0.1, 11)], LoadOptions())
    assert found["tokens_per_s"] == found["whole_tokens_per_s"]


def test_goodput_counts_requests_that_kept_their_bounds() -> None:
    runs = [told(0.1, 0.01, 11), told(0.5, 0.01, 11), told(0.1, 0.09, 11)]
    found = load_figures(runs, LoadOptions(request_rate=1.0, goodput_ttft_ms=200, goodput_tpot_ms=50))
    assert found["goodput_per_s"] == pytest.approx(1 / 1.0)
    assert load_figures(runs, LoadOptions())["goodput_per_s"] is None


def load(baseline: str, tokens_per_s: float, repeat: int = 1, digest: str = "d") -> dict:
    return {
        "scenario": "t",
        "baseline": baseline,
        "rtt_ms": 10.0,
        "temperature": 1.0,
        "sessions": 8,
        "repeat": repeat,
        "tokens_per_s": tokens_per_s,
        "digest": digest,
    }


def test_a_ratio_of_loads_is_of_the_repeats_both_have() -> None:
    loads = [load("ar", 100), load("ar", 200, 2), load("nacre", 150), load("nacre", 400, 2), load("nacre", 999, 3)]
    found = load_ratio(loads, loads[2])
    assert found == {"value": 1.75, "low": 1.5, "high": 2.0, "repeats": 2}
    assert load_ratio(loads[2:], loads[2]) is None


def test_one_entry_per_cell_with_the_mean_of_its_repeats() -> None:
    found = first_repeats([load("ar", 100), load("ar", 200, 2)])
    assert len(found) == 1
    assert (found[0]["tokens_per_s"], found[0]["repeats"]) == (150, 2)


def test_other_texts_are_an_alarm() -> None:
    check_texts([load("ar", 1), load("nacre", 1), load("hf-batching", 1, digest="")], "ar")
    with pytest.raises(Internal, match="other texts"):
        check_texts([load("ar", 1), load("nacre", 1, digest="e")], "ar")


@pytest.mark.parametrize("name", ["sync", "pearl", "hf-ar"])
async def test_what_has_no_sessions_at_a_time_is_not_measured_as_something_else(name: str) -> None:
    settings = {"tokens": 2, "temperature": 1.0, "rtt_ms": 0.0, "sessions": 1, "repeat": 1}
    with pytest.raises(AssertionError, match="as something else"):
        await run_load(None, load_baselines()[name], [], [], options=LoadOptions(), **settings)  # type: ignore[arg-type]
