"""Drafting methods side by side: exact texts, what is learnt and what is kept, and fair words about who is ahead."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nacre.bench.baselines import REFERENCE, Baseline, load_baselines
from nacre.bench.drafter_trace import DrafterTraces, Task
from nacre.bench.drafters import (
    Cell,
    baseline_of,
    cells_of,
    drafter_summary,
    from_the_first,
    measure,
    missing_cells,
    scenario_baselines,
    tenant_of,
)
from nacre.bench.given import DAMAGED_ONE_IN
from nacre.bench.jobs import Jobs, serve_jobs
from nacre.bench.results import Results, resumed
from nacre.bench.scenarios import Scenario, by_text, checked, load_scenario
from nacre.cli.bench_drafters import print_drafters, said_of
from nacre.drafting import METHODS, method_names
from nacre.errors import Internal, InvalidArgument, Unavailable
from tests.tiny_models import TinyPair

TOKENS = 24
PROMPTS = (tuple(range(40, 80)), tuple(b"def f(x):\n    return x\n\n\ndef g(x):\n"))
SMALL = Scenario(
    "small", kind="drafters", methods=("suffix", "recycling"), rows=(4, 8), temperature=(0.0, 1.0), seeds=2
)


def tasks(*prompts: tuple[int, ...], temperature: float = 0.7) -> list[Task]:
    return [Task(prompt, TOKENS, temperature, seed=11) for prompt in prompts]


@pytest.fixture(scope="module")
def traces(tiny_pair: TinyPair) -> DrafterTraces:
    return DrafterTraces(str(tiny_pair.target), str(tiny_pair.draft), dtype="float32", threads=1)


# -- along real generations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        *sorted(set(METHODS) - {"random", "rest", "silent"}),
        "suffix+recycling",
        "suffix+recycling-growth+stand",
        "model+suffix+recycling",
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_method_leaves_the_text_alone_and_is_counted(
    traces: DrafterTraces, method: str, temperature: float
) -> None:
    told = traces.measure(method, tasks(*PROMPTS, temperature=temperature), rows=8)
    assert told["tokens"] == TOKENS * len(PROMPTS)
    assert TOKENS * len(PROMPTS) / 8 <= told["passes"] <= TOKENS * len(PROMPTS)
    assert told["right"] == told["tokens"] - told["passes"]  # every pass commits one token more than it matched
    assert told["passes"] <= told["pass_rows"] <= 8 * told["passes"]
    assert told["proposals"] >= told["passes"]
    assert 0 <= told["empty"] <= told["proposals"]
    if "model" not in method:  # whose memory the system may have had at hand
        assert told["memory_bytes"] > 0
    for figure in ("open_us", "propose_us", "update_us"):
        assert 0 < told[figure]["median"] <= told[figure]["p95"]


def test_more_rows_are_filled_by_who_has_more_to_say(traces: DrafterTraces) -> None:
    few, many = (traces.measure("model", tasks(PROMPTS[0]), rows=rows) for rows in (2, 16))
    assert many["pass_rows"] / many["passes"] > few["pass_rows"] / few["passes"]
    assert many["passes"] <= few["passes"]


def test_a_prediction_is_right_but_for_the_damage(traces: DrafterTraces) -> None:
    told = traces.measure("prediction", tasks(PROMPTS[0]), rows=32)
    assert told["passes"] <= 2 * (TOKENS // DAMAGED_ONE_IN) + 3


def test_what_is_learnt_from_one_prompt_serves_the_next(traces: DrafterTraces) -> None:
    once = traces.measure("suffix", tasks(PROMPTS[0]), rows=16)["passes"]
    twice = traces.measure("suffix", tasks(PROMPTS[0], PROMPTS[0]), rows=16)["passes"]
    assert twice - once < once
    assert traces.measure("suffix", tasks(PROMPTS[0]), rows=16)["passes"] == once  # a cell begins with nothing


def test_another_text_than_the_targets_own_is_our_own_fault(traces: DrafterTraces) -> None:
    (task,) = tasks(PROMPTS[1], temperature=0.3)
    honest = traces._plain(task)
    traces._plain_texts[task] = (*honest[:-1], honest[-1] ^ 1)
    with pytest.raises(Internal, match="exactness is broken"):
        traces.measure("suffix", [task], rows=8)
    traces._plain_texts[task] = honest
    traces.measure("suffix", [task], rows=8)


@pytest.mark.parametrize("method", ["sufix", "suffix+", "suffix+suffix", "model+modell"])
def test_an_unknown_method_is_told_by_name(traces: DrafterTraces, method: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        traces.measure(method, tasks(PROMPTS[0]), rows=8)
    assert "method" in caught.value.message


async def connected(path: str) -> Jobs:
    for _ in range(500):
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return await Jobs.connect("child", path)
        await asyncio.sleep(0.01)
    raise AssertionError("nobody listens")


async def test_a_wrong_text_is_an_internal_error_for_who_asked(tmp_path: Path) -> None:
    async def work(job: dict[str, Any]) -> dict[str, Any]:
        raise {"text": Internal("exactness is broken"), "name": InvalidArgument("no such method")}[job["way"]]

    path = str(tmp_path / "s")
    serving = asyncio.create_task(serve_jobs(path, work, service="test"))
    try:
        jobs = await connected(path)
        with pytest.raises(Internal, match="child: exactness"):
            await jobs.do({"way": "text"})
        with pytest.raises(InvalidArgument, match="child: no such"):
            await jobs.do({"way": "name"})
        jobs.close()
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


# -- cells, kept and gone on with ------------------------------------------------------------------------------------


def figures(tokens: int, passes: int, **more: Any) -> dict[str, Any]:
    """What a cell is answered with."""
    times = {"median": 10.0, "p95": 20.0}
    counts = {"pass_rows": 4 * passes, "guesses": 3 * passes, "right": tokens - passes, "proposals": passes, "empty": 0}
    return {
        "tokens": tokens,
        "passes": passes,
        **counts,
        "open_us": times,
        "propose_us": times,
        "update_us": times,
        "memory_bytes": 100,
        **more,
    }


class Child:
    """Stands for the process that measures; ends after so many jobs."""

    def __init__(self, jobs: int) -> None:
        self.left = jobs
        self.done: list[dict[str, Any]] = []

    async def do(self, job: dict[str, Any]) -> dict[str, Any]:
        if not self.left:
            raise Unavailable("it has ended")
        self.left -= 1
        self.done.append(job)
        return figures(30, 20)


async def run(child: Child, results: Results, advance: Callable[[int], None] = lambda amount: None) -> None:
    cells = missing_cells(SMALL, results)
    await measure(cells, SMALL, "target", PROMPTS, lambda prompt, seed: 100 * seed + prompt, child, results, advance)


async def test_what_an_interrupted_run_has_measured_is_not_measured_again(tmp_path: Path) -> None:
    whole = cells_of(SMALL)
    assert len(whole) == 2 * 2 * (1 + 2)  # methods, rows, seeds: one at temperature 0
    identity = {"seed": 1}
    first = Child(5)
    results = Results(identity, tmp_path / "r.json")
    with pytest.raises(Unavailable):
        await run(first, results)
    results.save()
    again = resumed(tmp_path / "r.json", identity)
    assert [cell.kept_as for cell in missing_cells(SMALL, again)] == [cell.kept_as for cell in whole[5:]]
    second = Child(100)
    await run(second, again)
    asked = [(job["method"], job["temperature"], job["rows"], job["seeds"][1]) for job in (*first.done, *second.done)]
    assert asked == [(cell.method, cell.temperature, cell.rows, 100 * cell.seed + 1) for cell in whole]
    assert missing_cells(SMALL, again) == []


def test_end_to_end_all_prompts_of_an_interrupted_seed_are_done_again() -> None:
    ours, other = Baseline("nacre-suffix", ""), Baseline("ar", "")
    wanted = [(baseline, prompt, seed) for seed in (1, 2) for prompt in range(3) for baseline in (other, ours)]
    assert from_the_first(wanted, [(ours, 2, 1)]) == [(ours, 0, 1), (ours, 1, 1), (ours, 2, 1)]
    assert from_the_first(wanted, []) == []


def test_a_drafter_learns_from_prompt_to_prompt_and_never_for_another_cell() -> None:
    one, two = Baseline("nacre-suffix", ""), Baseline("nacre-stand", "")
    tenants = [
        tenant_of(scenario, baseline, rtt_ms, temperature, seed)
        for scenario in (SMALL, replace(SMALL, name="other"))
        for baseline in (one, two)
        for rtt_ms in (0.0, 50.0)
        for temperature in (0.0, 1.0)
        for seed in (1, 2)
    ]
    assert len(set(tenants)) == len(tenants)
    assert max(map(len, tenants)) <= 64  # what a verifier takes
    assert tenant_of(Scenario("rtt"), one, 0.0, 1.0, 1) == ""


def test_every_method_runs_end_to_end() -> None:
    scenario = replace(SMALL, methods=("suffix", "rest", "suffix+recycling", "prediction", "lookup"), baselines=("ar",))
    found = scenario_baselines(scenario, load_baselines())
    assert [baseline.name for baseline in found] == ["ar", *(f"nacre-{method}" for method in scenario.methods)]
    assert [dict(baseline.drafter or {}) for baseline in found[1:]] == [{"method": name} for name in scenario.methods]
    assert [baseline.name for baseline in found if baseline.predicts] == ["nacre-prediction"]
    assert [b.verifier for b in scenario_baselines(replace(SMALL, methods=("dense",)), load_baselines())[-1:]] == [
        {"local": "dense"}
    ]
    with pytest.raises(InvalidArgument, match="'sufix' is unknown"):
        scenario_baselines(replace(SMALL, methods=("rest", "sufix")), load_baselines())


@pytest.mark.parametrize("quick", [False, True])
def test_the_scenario_that_ships_names_methods_that_are_there(quick: bool) -> None:
    scenario = load_scenario("drafters", quick=quick)
    for method in scenario.methods:
        assert method_names(method)
    assert {"suffix", "recycling", "suffix+recycling"} <= set(scenario.methods)
    assert scenario.rows == (8, 16, 32)
    assert set(scenario.rtt_ms) == {0, 50}
    assert [part.name for part in by_text(scenario)] == ["drafters-code", "drafters-prose"]
    assert all(part == replace(scenario, name=part.name, text=part.text) for part in by_text(scenario))


def test_all_that_need_no_file_are_compared() -> None:
    assert set(METHODS) - {"random", "silent"} <= set(load_scenario("drafters").methods)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"methods": ()}, "methods is []"),
        ({"kind": "latency"}, "methods is ['suffix', 'recycling']"),
        ({"rows": (1,)}, "rows has 1"),
        ({"rows": (8.0,)}, "rows has 8.0"),
        ({"rows": (1000,)}, "rows has 1000"),
        ({"text": ("verse",)}, "text has 'verse'"),
        ({"text": ()}, "text has ''"),
    ],
)
def test_impossible_dials(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checked(replace(SMALL, **changes), "here")
    assert told in caught.value.message


# -- what the figures say --------------------------------------------------------------------------------------------


def kept(lengths: dict[tuple[str, int], float], rows: int = 8, temperature: float = 1.0) -> dict[str, Any]:
    """Cells with these tokens a pass, by method and seed."""
    found = {}
    for (method, seed), length in lengths.items():
        cell = Cell("drafters-code", method, temperature, seed, rows)
        about = {name: getattr(cell, name) for name in ("scenario", "method", "temperature", "rows", "seed")}
        found[cell.kept_as] = {**about, **figures(round(100 * length), 100)}
    return found


def served(speeds: dict[str, float], rtt_ms: float = 50.0) -> list[dict[str, Any]]:
    return [
        {
            "scenario": "drafters-code",
            "baseline": baseline_of(method) if method != REFERENCE else REFERENCE,
            "temperature": 1.0,
            "rtt_ms": rtt_ms,
            "tokens_per_s": speed,
            "speedup": {"value": speed / 10, "low": 1.0, "high": 2.0},
        }
        for method, speed in speeds.items()
    ]


def test_nothing_measured_nothing_said() -> None:
    assert drafter_summary({"tuned/x": {}}, []) == {}


def test_seeds_are_added_before_they_are_divided() -> None:
    found = drafter_summary(kept({("suffix", 1): 1.5, ("suffix", 2): 2.5}), [])
    (row,) = found["rows"]
    assert row["tokens_per_pass"] == pytest.approx(2.0)
    assert row["tokens_per_pass_by_seed"] == {"1": 1.5, "2": 2.5}
    assert (row["propose_us"], row["propose_p95_us"], row["memory_bytes"]) == (10.0, 20.0, 100)
    assert found["orderings"] == []


def test_a_fusion_is_judged_beside_the_best_of_its_sources() -> None:
    cells = kept({("suffix", 1): 1.5, ("recycling", 1): 1.8, ("suffix+recycling", 1): 2.0, ("suffix+stand", 1): 3.0})
    cells |= kept({("suffix", 1): 1.5, ("recycling", 1): 1.8, ("suffix+recycling", 1): 1.7}, rows=16)
    orderings = drafter_summary(cells, served({"ar": 10, "suffix": 12, "recycling": 11, "suffix+recycling": 14}))[
        "orderings"
    ]
    assert [(o["figure"], o.get("rows"), o.get("rtt_ms"), o["beside"], o["ok"]) for o in orderings] == [
        ("tokens_per_pass", 8, None, "recycling", True),
        ("tokens_per_pass", 16, None, "recycling", False),
        ("tokens_per_s", None, 50.0, "suffix", True),
    ]
    by_length, by_speed = said_of(orderings)
    assert "in 1 of 2 cells; not in drafters-code T 1 16 rows: 1.70 beside 1.80 of recycling" in by_length
    assert by_speed == "suffix+recycling ahead of each of its sources, tokens/s: in 1 of 1 cells"


def test_equal_is_not_ahead_and_seeds_are_counted_one_by_one() -> None:
    cells = kept(
        {
            **{("suffix", seed): 2.0 for seed in (1, 2, 3)},
            **{("recycling", seed): 1.0 for seed in (1, 2, 3)},
            ("suffix+recycling", 1): 2.5,
            ("suffix+recycling", 2): 2.0,
            ("suffix+recycling", 3): 1.5,
        }
    )
    (found,) = drafter_summary(cells, [])["orderings"]
    assert (found["value"], found["beside_value"], found["ok"]) == (2.0, 2.0, False)
    assert (found["seeds"], found["seeds_ok"]) == (3, 1)


def test_the_table_has_a_line_for_every_method_and_one_for_none() -> None:
    from rich.console import Console

    cells = kept({("suffix", 1): 1.5, ("recycling", 1): 1.8}) | kept({("suffix", 1): 1.25}, rows=16)
    console = Console(width=200, record=True, file=io.StringIO())
    links = served({"ar": 10, "suffix": 12.5})
    print_drafters(console, drafter_summary(cells, links), links)
    lines = console.export_text().splitlines()
    assert any(line.split() == ["(no", "drafter)", "10.0", "1.00x"] for line in lines)
    (suffix,) = (line.split() for line in lines if line.startswith("suffix "))
    assert suffix == ["suffix", "1.50", "1.25", "10", "10", "20", "20", "10", "0.00", "12.5", "1.25x"]
    (recycling,) = (line.split() for line in lines if line.startswith("recycling "))
    assert recycling[:3] == ["recycling", "1.80", "-"]
