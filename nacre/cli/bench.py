"""`nacre bench`: scenarios run against every baseline, in one run, on pinned processes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nacre.cli import options as flags
from nacre.errors import InvalidArgument

if TYPE_CHECKING:
    from nacre.bench.run import Plan
    from nacre.bench.scenarios import Scenario


def bench(
    scenarios: Annotated[list[str] | None, typer.Argument(metavar="SCENARIO…", help="Names or .toml files.")] = None,
    list_all: Annotated[bool, typer.Option("--list", help="Show scenarios and baselines.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer prompts: minutes instead of hours.")] = False,
    baselines: Annotated[
        str | None, flags.word("--baselines", "Only these, comma separated; ar is always run.", "NAMES")
    ] = None,
    methods: Annotated[
        str | None, flags.word("--methods", "Only these drafting methods (drafters), comma separated.", "NAMES")
    ] = None,
    prompts: Annotated[int | None, flags.whole("--prompts", "Prompts of each cell.", 1, 1000)] = None,
    tokens: Annotated[int | None, flags.whole("--tokens", "New tokens for each.", 2, 100_000)] = None,
    seeds: Annotated[int | None, flags.whole("--seeds", "Seeds for each prompt.", 1, 64)] = None,
    rtt: Annotated[str | None, flags.word("--rtt", "Round-trip times in ms, comma separated.", "MS")] = None,
    temperature: Annotated[str | None, flags.word("--temperature", "Temperatures, comma separated.", "T")] = None,
    request_rate: Annotated[
        float, flags.number("--request-rate", "Requests per second, at random; 0: all at once.", 0, 1e6)
    ] = 0.0,
    requests: Annotated[int | None, flags.whole("--requests", "Requests of a load at a rate.", 1, 100_000)] = None,
    max_concurrency: Annotated[
        int | None, flags.whole("--max-concurrency", "Most requests at a time, at a rate.", 1, 100_000)
    ] = None,
    burstiness: Annotated[
        float, flags.number("--burstiness", "1: Poisson; less: in bursts; more: evenly.", 0.01, 1000)
    ] = 1.0,
    goodput_ttft: Annotated[
        float, flags.number("--goodput-ttft", "A request counts as good up to this TTFT, ms.", 0, 1e9)
    ] = 0.0,
    goodput_tpot: Annotated[
        float, flags.number("--goodput-tpot", "A request counts as good up to this TPOT, ms.", 0, 1e9)
    ] = 0.0,
    seed: flags.Seed = None,
    target: flags.Target = None,
    draft: flags.Draft = None,
    parameters: Annotated[
        str | None,
        flags.word("--parameters", "Inflate the target to so many, 0: not; default: by this machine's memory.", "N"),
    ] = None,
    dtype: flags.Dtype = None,
    threads: flags.Threads = None,
    pin: Annotated[bool, typer.Option("--pin/--no-pin", help="Give each side a core of its own.")] = True,
    out: Annotated[
        str | None, flags.word("--out", "Where results go; default: a file named after the time.", "FILE")
    ] = None,
    resume: Annotated[str | None, flags.word("--resume", "Go on with an interrupted run's file.", "FILE")] = None,
    plot_file: Annotated[
        str | None, flags.word("--plot", "Draw speed-ups and one generation's lanes (.png, .svg, .pdf).", "FILE")
    ] = None,
    spec_bench: Annotated[
        str | None, flags.word("--spec-bench", "Write the samples as Spec-Bench's answers, too.", "FILE.jsonl")
    ] = None,
    as_json: flags.Json = False,
) -> None:
    """Measure: every baseline of a scenario in one run, prompt by prompt in turns; ratios within a run are the result.

    \b
    nacre bench --list
    nacre bench first                                  # with speculation and without, no network
    nacre bench rtt --quick --rtt 0,100 --baselines nacre,sync
    nacre bench drafters --quick --methods suffix,recycling,suffix+recycling
    nacre bench rtt --resume bench-rtt-20260101-120000.json
    """
    from nacre.bench.estimate import estimated_s
    from nacre.bench.headline import headline_scenarios, rows_of
    from nacre.bench.libraries import check_libraries
    from nacre.bench.load import LoadOptions
    from nacre.bench.plots import check_plot, plot
    from nacre.bench.results import Results, check_place, resumed
    from nacre.bench.rig import Rig, RigOptions
    from nacre.bench.run import Bench, Plan
    from nacre.bench.runners import Runners
    from nacre.bench.spec_bench import write_spec_bench
    from nacre.bench.timeline import telling
    from nacre.cli.bench_report import print_list, print_report
    from nacre.cli.model_files import draft_model, inflated_target, resolve
    from nacre.cli.output import ChildLog, Steps, note, print_json
    from nacre.runtime.processes import run_until_signalled

    if list_all:
        print_list(as_json)
        return
    if not scenarios:
        raise InvalidArgument("name a scenario; `nacre bench --list` shows them")
    changes = {
        "prompts": prompts,
        "tokens": tokens,
        "seeds": seeds,
        "rtt_ms": _numbers("--rtt", rtt),
        "temperature": _numbers("--temperature", temperature),
        "baselines": _names(baselines),
        "methods": _names(methods),
    }
    if plot_file is not None:
        check_plot(Path(plot_file))
    if spec_bench is not None:
        check_place(Path(spec_bench), "--spec-bench")
    rows, headline = rows_of(scenarios), "headline" in scenarios
    if headline:
        scenarios = [name for given in scenarios for name in (headline_scenarios() if given == "headline" else [given])]
    chosen = _scenarios(scenarios, quick, {key: value for key, value in changes.items() if value is not None})
    compared = _baselines(chosen)
    check_libraries(baseline for found in compared.values() for baseline in found)
    plan = Plan(
        scenarios=tuple(chosen),
        baselines=compared,
        rig=RigOptions(
            target=inflated_target(target, parameters or _stand_in(target, resume)),
            draft=draft_model(draft, target),
            base=resolve(target or "demo-target"),
            dtype=dtype or "bfloat16",
            threads=threads or 1,
            pin=pin,
        ),
        seed=1 if seed is None else seed,
        load=LoadOptions(
            request_rate=request_rate,
            max_concurrency=max_concurrency or 0,
            burstiness=burstiness,
            requests=requests or 0,
            goodput_ttft_ms=goodput_ttft,
            goodput_tpot_ms=goodput_tpot,
        ),
        rows=rows,
        timelines=plot_file is not None,
    )
    _check_load(plan)
    if resume is not None:
        results = resumed(Path(resume), plan.identity())
    else:
        stem = "headline" if headline else "-".join(Path(item).stem for item in scenarios)
        results = Results(plan.identity(), _new_file(out or f"bench-{stem}-{time.strftime('%Y%m%d-%H%M%S')}.json"))
        if (target, draft, parameters, threads) == (None, None, None, None):
            minutes = estimated_s(plan.scenarios, plan.baselines) / 60
            note(f"this takes about {max(1, round(minutes))} min on two cores of a 2.5 GHz server")

    async def main() -> None:
        log = ChildLog()
        async with Rig(plan.rig, on_line=log) as rig, Runners(rig) as runners:
            try:
                await Bench(plan, runners, results, Steps()).run()
            finally:
                log.hush()

    try:
        run_until_signalled(main())
    except KeyboardInterrupt:
        if results.saved:
            note(f"interrupted; go on with the same command and --resume {results.path}")
        raise
    if spec_bench is not None:
        write_spec_bench(Path(spec_bench), list(results.samples.values()))
    if plot_file is not None:
        plot(Path(plot_file), results.summary, telling(results.with_prefix("timeline/")))
    if as_json:
        print_json(results.as_dict())
    else:
        print_report(results)
        note(f"all samples: {results.path}")


def _stand_in(target: str | None, resume: str | None) -> str | None:
    """What a bundled target is inflated to if nobody says: as before, or as this machine asks for."""
    from nacre.bench.stand_in import parameters_for, parameters_of
    from nacre.models import BUNDLED

    if target is not None and target not in BUNDLED:
        return None
    if resume is not None:
        return parameters_of(Path(resume)) or "0"
    from nacre.engine.reading import reading_bytes_per_s

    return parameters_for(reading_bytes_per_s())


def _check_load(plan: Plan) -> None:
    """Refuses flags of a load that nothing in the plan would heed."""
    load, heard = plan.load, [scenario for scenario in plan.scenarios if scenario.kind == "throughput"]
    paced = {
        "--requests": load.requests,
        "--max-concurrency": load.max_concurrency,
        "--burstiness": load.burstiness != 1.0,
    }
    asked = {
        "--request-rate": load.request_rate,
        "--goodput-ttft": load.goodput_ttft_ms,
        "--goodput-tpot": load.goodput_tpot_ms,
    }
    for flag, given in (paced | asked).items():
        if given and flag in paced and not load.request_rate:
            raise InvalidArgument(f"{flag} is given, but all requests come at once; add --request-rate")
        if given and not heard:
            raise InvalidArgument(f"{flag} is given, but no scenario here has many sessions; try throughput")
    at_once = [b.name for scenario in heard for b in plan.baselines[scenario.name] if b.way == "batching"]
    if load.request_rate and at_once:
        raise InvalidArgument(f"{at_once[0]} takes all requests at once; leave it out, or --request-rate")


def _new_file(name: str) -> Path:
    """A place for results, known to be free and writable before anything is measured."""
    from nacre.bench.results import check_place

    path = Path(name)
    if path.exists():
        raise InvalidArgument(f"{path} exists; go on with it by --resume {path}, or name another --out")
    check_place(path, "--out")
    return path


def _scenarios(names: list[str], quick: bool, changes: dict[str, Any]) -> list[Scenario]:
    from nacre.bench.scenarios import by_text, checked, load_scenario

    found: list[Scenario] = []
    for name in dict.fromkeys(names):
        scenario = load_scenario(name, quick=quick)
        found += by_text(checked(replace(scenario, **changes), name))
    names = [scenario.name for scenario in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InvalidArgument(f"two scenarios are called {twice[0]!r}, and figures go by that name; rename one's file")
    return found


def _baselines(scenarios: list[Scenario]) -> dict[str, Any]:
    from nacre.bench.baselines import check_kinds, load_baselines
    from nacre.bench.drafters import scenario_baselines

    known = load_baselines()
    found: dict[str, Any] = {}
    for scenario in scenarios:
        found[scenario.name] = scenario_baselines(scenario, known)
        check_kinds(scenario.name, scenario.kind, found[scenario.name], known)
    return found


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InvalidArgument(f"{flag} is {text!r}; it must be numbers separated by commas") from None


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())
