"""`nacre simulate`: what a deployment would achieve, in virtual time."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nacre.cli import options as flags
from nacre.errors import InvalidArgument

if TYPE_CHECKING:
    from nacre.sim.capacity import Comparison
    from nacre.sim.dials import Dials

#: Where scenarios lie that are named without a path.
_FOLDER = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "simulations"
_MOST_POINTS = 64


def simulate(
    scenario: Annotated[
        str | None, typer.Argument(metavar="[SCENARIO]", help="A .toml file, or a name in benchmarks/simulations.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Turn a dial; again for more.", metavar="DIAL=VALUE")
    ] = None,
    sweep: Annotated[
        str | None, flags.word("--sweep", "Turn one dial through values, comma separated.", "DIAL=VALUES")
    ] = None,
    sample: Annotated[
        int, flags.whole("--sample", "Simulate so many of the verifiers and scale up; 0: all.", 0, 100_000)
    ] = 0,
    seed: flags.Seed = None,
    dials: Annotated[bool, typer.Option("--dials", help="Show all dials and their values, run nothing.")] = False,
    plot: Annotated[str | None, flags.word("--plot", "Draw a sweep into a .png, .svg or .pdf.", "FILE")] = None,
    record_trace: Annotated[
        str | None, flags.word("--record-trace", "Record how a draft model guesses, instead of simulating.", "FILE")
    ] = None,
    prompts: Annotated[int, flags.whole("--prompts", "For --record-trace: prompts.", 1, 10_000)] = 24,
    tokens: Annotated[int, flags.whole("--tokens", "For --record-trace: new tokens for each.", 1, 100_000)] = 96,
    temperature: flags.Temperature = 1.0,
    target: flags.Target = None,
    draft: flags.Draft = None,
    dtype: flags.Dtype = None,
    as_json: flags.Json = False,
) -> None:
    """Simulate a deployment: the rules that ship, on machines, links and drafters given as dials.

    \b
    nacre simulate rtt                                             # one session over longer and longer links
    nacre simulate rtt --set acceptance=[0.9] --sweep rtt=0,20,40
    nacre simulate fleet --sample 10                               # 10 of 100 verifiers stand for all
    nacre simulate fleet --sample 20 --sweep verifiers=60,100      # how many are enough?
    nacre simulate --record-trace trace.json                       # how the bundled draft model guesses
    nacre simulate rtt --set trace=trace.json --plot rtt.png

    docs/capacity.md says how to measure your dials.
    """
    from nacre.cli.output import Steps, note, print_json
    from nacre.cli.simulate_report import as_json_value, check_plot, draw, print_report
    from nacre.sim.capacity import acceptance_of, compare, requests_of, swept

    if record_trace is not None:
        _record(
            Path(record_trace), prompts, tokens, temperature, 1 if seed is None else seed, target, draft, dtype, as_json
        )
        return
    chosen, about, name, values = _chosen(scenario, settings or [], sweep, seed)
    if dials:
        _show(chosen, as_json)
        return
    points = swept(chosen, name, values) if name else [chosen]
    if len(points) > _MOST_POINTS:
        raise InvalidArgument(f"--sweep has {len(points)} values; at most {_MOST_POINTS}")
    if plot is not None:
        if not name:
            raise InvalidArgument("--plot draws a sweep; say which: --sweep rtt=0,50,100")
        check_plot(Path(plot))
    # What cannot be simulated is refused before any of it is.
    totals = [requests_of(point, sample) * (1 + (point.policy != "plain")) for point in points]
    guesses = [acceptance_of(point) for point in points]
    results: list[Comparison] = []
    steps = Steps()
    for index, point in enumerate(points):
        title = f"{name} {values[index]}" if name else "simulating"
        with steps.step(title, total=totals[index]) as advance:
            results.append(compare(point, guesses[index], sample=sample, advance=advance))
    if as_json:
        print_json(as_json_value(about, name, values, results, sample))
    else:
        print_report(about, name, values, results, sample)
    if plot is not None:
        draw(Path(plot), name, values, results)
        note(f"drawn: {plot}")


def _chosen(
    scenario: str | None, settings: list[str], sweep: str | None, seed: int | None
) -> tuple[Dials, str, str, list[Any]]:
    """Dials, the scenario's about line, and the dial to sweep (or an empty name) with its values."""
    from nacre.sim.dials import Dials, load_dials, with_dials

    dials, about = Dials(), ""
    sweeps: dict[str, Any] = {}
    if scenario is not None:
        path = Path(scenario) if scenario.endswith(".toml") else _FOLDER / f"{scenario}.toml"
        if not path.is_file():
            known = ", ".join(sorted(item.stem for item in _FOLDER.glob("*.toml"))) or "none"
            raise InvalidArgument(f"there is no scenario {scenario!r}; known ones: {known}; or give a .toml file")
        dials, about, sweeps = load_dials(path)
    changes: dict[str, Any] = {}
    for item in settings:
        name, equals, text = item.partition("=")
        if not equals or not name.strip():
            raise InvalidArgument(f"--set is {item!r}; it must be DIAL=VALUE")
        changes[name.strip()] = _read(text)
    if seed is not None:
        changes["seed"] = seed
    dials = with_dials(dials, changes)
    if sweep is not None:
        name, equals, text = sweep.partition("=")
        if not equals or not name.strip():
            raise InvalidArgument(f"--sweep is {sweep!r}; it must be DIAL=VALUE,VALUE,…")
        return dials, about, name.strip(), _read_list(text)
    if len(sweeps) > 1:
        raise InvalidArgument(f"{scenario} sweeps {', '.join(sweeps)}; one dial can be swept at a time")
    for name, values in sweeps.items():
        if not isinstance(values, list):
            raise InvalidArgument(f"{scenario}: sweep.{name} must be a list of values")
        return dials, about, name, values
    return dials, about, "", []


def _read(text: str) -> Any:
    """A value as TOML would read it; what TOML does not know, or is a number of thousands of digits, is text."""
    try:
        return tomllib.loads(f"value = {text.strip()}")["value"]
    except ValueError:
        return text.strip()


def _read_list(text: str) -> list[Any]:
    try:
        return list(tomllib.loads(f"value = [{text}]")["value"])
    except ValueError:
        return [item.strip() for item in text.split(",") if item.strip()]


def _show(dials: Dials, as_json: bool) -> None:
    import dataclasses

    from nacre.cli.output import print_json

    values = dataclasses.asdict(dials)
    if as_json:
        print_json(values)
        return
    for name in values:
        print(f"{name:<26} {getattr(dials, name)}")


def _record(
    path: Path,
    prompts: int,
    tokens: int,
    temperature: float,
    seed: int,
    target: str | None,
    draft: str | None,
    dtype: str | None,
    as_json: bool,
) -> None:
    from nacre.cli.model_files import resolve
    from nacre.cli.output import Steps, print_json
    from nacre.cli.simulate_report import write_whole
    from nacre.cli.trace_recorder import Recorder, Recording

    if not path.parent.is_dir():
        raise InvalidArgument(f"--record-trace is {path}; there is no folder {path.parent}")
    steps = Steps()
    with steps.step("loading"):
        recorder = Recorder(
            Recording(
                target=resolve(target or "demo-target"),
                draft=resolve(draft or "demo-draft"),
                dtype=dtype or "bfloat16",
                prompts=prompts,
                tokens=tokens,
                temperature=temperature,
                seed=seed,
            )
        )
    with steps.step("recording", total=prompts) as advance:
        trace = recorder.record(advance)
    write_whole(path, trace.to_json().encode())
    shares = [round(trace.reached(count), 4) for count in range(1, trace.children + 1)]
    steps_ms = trace.about["draft_ms"]
    if as_json:
        print_json({"file": str(path), "places": trace.places, "acceptance": shares, "draft_ms": steps_ms})
        return
    print(f"{path}: {trace.places} places")
    print(f"right token among the best 1, 2, …: {', '.join(map(str, shares))}")
    print(f"a draft step took, in ms: {', '.join(f'{ms:g} for {nodes}' for nodes, ms in steps_ms)}")
