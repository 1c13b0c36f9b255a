"""The headline: rows of `benchmarks/headline.toml`, each a figure of the run beside the bound it is to keep.

A table of bounds gives one row per key: `at_least = { 0 = 2.2 }` is a row at RTT 0. `text` and `temperature`, where a
scenario has several, give one row for each. What a run has not measured is
neither reached nor missed: `ok` is None, and `why` says so. A scenario's own file may have rows, too: they are judged
where that scenario is asked for by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from nacre.bench.baselines import folder, read_toml
from nacre.bench.load import load_ratio
from nacre.bench.predicted_loads import farthest, many_sessions, useless_drafters
from nacre.bench.prediction import predictor
from nacre.bench.results import Results
from nacre.bench.samples import Ratio, Sample, figures, ratio, tokens_per_s, ttft_ratio
from nacre.bench.scenarios import named_for, scenario_file
from nacre.bench.trace import pass_times_kept_as, run_trace
from nacre.errors import InvalidArgument

KINDS = ("ratio", "ttft", "load", "figure", "micro", "simulator")
#: Kinds of rows that compare baselines.
_COMPARED = ("ratio", "ttft", "load")
_KEYS = {
    "name",
    "kind",
    "scenario",
    "text",
    "temperature",
    "of",
    "against",
    "figure",
    "micro",
    "at_least",
    "at_most",
    "reported",
}
NOT_MEASURED = "not measured in this run"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure and its bound. `at` is the cell: an RTT, sessions, or rows, by `kind`. No bound: reported only.

    `temperature` None is that of the scenario, which has one.
    """

    name: str
    kind: str
    at: float
    bound: float | None
    most: bool = False  # the bound is an upper one
    scenario: str = ""
    temperature: float | None = None
    of: str = "nacre"
    against: tuple[str, ...] = ()
    figure: str = ""
    micro: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    value: float | None
    interval: tuple[float, float] | None = None
    why: str = ""
    beside: str = ""  # the baseline it is counted from


def headline_scenarios() -> tuple[str, ...]:
    """The scenarios whose samples the rows need, in the order they are run."""
    return tuple(read_toml(folder() / "headline.toml")["scenarios"])


def rows_of(names: Sequence[str]) -> tuple[Row, ...]:
    """The rows of what is asked for by these names: of the headline, or of a scenario. Raises InvalidArgument."""
    files = [None if name == "headline" else scenario_file(name) for name in dict.fromkeys(names)]
    return tuple(row for file in files for row in load_rows(file))


def load_rows(path: Path | None = None) -> list[Row]:
    """The rows in a file; without one, those of the headline. Raises InvalidArgument naming row and key."""
    path = path or folder() / "headline.toml"
    rows: list[Row] = []
    tables = read_toml(path).get("row", [])
    for raw in tables if isinstance(tables, list) else [tables]:
        _check_row(path, raw)
        try:
            for one in _each(raw):
                for bounds, most in ((raw.get("at_least", {}), False), (raw.get("at_most", {}), True)):
                    rows += [_row(one, float(at), float(bound), most) for at, bound in bounds.items()]
                rows += [_row(one, float(at), None, False) for at in raw.get("reported", ())]
        except (AttributeError, TypeError, ValueError):
            raise InvalidArgument(
                f"{path}: bounds of row {raw['name']!r} are no numbers; write at_least = {{ 0 = 2.2 }}, reported = [50]"
            ) from None
    return rows


def judged(rows: Sequence[Row], results: Results) -> list[dict[str, Any]]:
    """Each row with `name`, `value`, `bound`, `most`, `ok`, `interval`, `beside` and `why`."""
    told = []
    for row in rows:
        found = _KIND[row.kind](row, results)
        ok = None
        if found.value is not None and row.bound is not None:
            ok = found.value <= row.bound if row.most else found.value >= row.bound
        told.append(
            {
                "name": row.name,
                "value": found.value,
                "bound": row.bound,
                "most": row.most,
                "ok": ok,
                "interval": list(found.interval) if found.interval else None,
                "beside": found.beside,
                "why": found.why if found.value is None else "",
            }
        )
    return told


def _ratio(row: Row, results: Results) -> Found:
    mine, rivals = _of_cell(row, results)
    if not mine or not rivals:
        return Found(None, why=NOT_MEASURED)
    best = max(rivals, key=lambda name: tokens_per_s(rivals[name]))
    return _told(ratio(mine, rivals[best]), best)


def _ttft(row: Row, results: Results) -> Found:
    mine, rivals = _of_cell(row, results)
    if not mine or not rivals:
        return Found(None, why=NOT_MEASURED)
    best = min(rivals, key=lambda name: median(sample.ttft_ms for sample in rivals[name]))
    return _told(ttft_ratio(mine, rivals[best]), best)


def _of_cell(row: Row, results: Results) -> tuple[list[Sample], dict[str, list[Sample]]]:
    """The samples of the row's cell: its own, and those of each rival that was measured."""
    here = _samples(row, results)
    rivals = {name: [s for s in here if s.baseline == name] for name in row.against}
    return [s for s in here if s.baseline == row.of], {name: found for name, found in rivals.items() if found}


def _samples(row: Row, results: Results) -> list[Sample]:
    return [
        sample
        for sample in results.samples.values()
        if (sample.scenario, sample.rtt_ms) == (row.scenario, row.at)
        and (row.temperature is None or sample.temperature == row.temperature)
    ]


def _told(found: Ratio | None, beside: str) -> Found:
    if found is None:
        return Found(None, why=NOT_MEASURED)
    return Found(found.value, (found.low, found.high), beside=beside)


def _load(row: Row, results: Results) -> Found:
    loads: list[Mapping[str, Any]] = results.with_prefix(f"load/{row.scenario}/")
    mine = [load for load in loads if load["baseline"] == row.of and load["sessions"] == row.at]
    if not mine:
        return Found(None, why=NOT_MEASURED)
    found = load_ratio(loads, mine[0], reference=row.against[0])
    if found is None:
        return Found(None, why=NOT_MEASURED)
    return Found(found["value"], (found["low"], found["high"]), beside=row.against[0])


def _figure(row: Row, results: Results) -> Found:
    here = [sample for sample in _samples(row, results) if sample.baseline == row.of]
    value = figures(here).get(row.figure) if here else None
    return Found(value, why="" if value is not None else NOT_MEASURED)


def _micro(row: Row, results: Results) -> Found:
    found = results.kept.get(f"micro/{row.micro}/{row.at:g}")
    if found is None:
        return Found(None, why=NOT_MEASURED)
    return Found(found["ratio"], (found["low"], found["high"]), beside="transformers")


def _simulator(row: Row, results: Results) -> Found:
    found = predictor(
        results.samples.values(),
        row.scenario,
        run_trace(results.kept, row.scenario),
        results.kept.get(pass_times_kept_as(row.scenario), ()),
    )
    if found is None:
        return Found(None, why=NOT_MEASURED)
    if row.figure == "efficiency":
        value = found.efficiency(row.at)
    elif row.figure == "useless":
        value = farthest(useless_drafters(results.samples.values(), row.of))
    elif row.figure == "sessions":
        value = farthest(many_sessions(results.with_prefix(f"load/{row.of}/"), found, results.kept))
    else:
        value = found.farthest()
    return Found(value, why="" if value is not None else NOT_MEASURED, beside="nacre simulate")


_KIND = {"ratio": _ratio, "ttft": _ttft, "load": _load, "figure": _figure, "micro": _micro, "simulator": _simulator}


def _check_row(path: Path, raw: Any) -> None:
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        raise InvalidArgument(f"{path}: a row has no name; write a [[row]] table with name, kind and bounds")
    unknown = set(raw) - _KEYS
    if unknown or raw.get("kind") not in KINDS:
        raise InvalidArgument(f"{path}: row {raw['name']!r} has {min(unknown, default='no known kind')!r}")
    for key in ("text", "temperature"):
        if not isinstance(raw.get(key, []), list):
            raise InvalidArgument(f"{path}: {key} of row {raw['name']!r} is {raw[key]!r}; write a list")
    against = raw.get("against", [])
    if not isinstance(against, list) or (raw["kind"] in _COMPARED and not against):
        raise InvalidArgument(
            f'{path}: against of row {raw["name"]!r} is {against!r}; name baselines: against = ["ar"]'
        )


def _each(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each text and temperature that it names."""
    temperatures = [float(one) for one in raw["temperature"]] if "temperature" in raw else [None]
    return [
        {
            **raw,
            "name": raw["name"].replace("{text}", text).replace("{temperature}", f"{temperature or 0:g}"),
            "scenario": named_for(raw["scenario"], text) if text else raw.get("scenario", ""),
            "temperature": temperature,
        }
        for text in raw.get("text", [""])
        for temperature in temperatures
    ]


def _row(raw: Mapping[str, Any], at: float, bound: float | None, most: bool) -> Row:
    name = raw["name"]
    for placeholder in ("{rtt}", "{sessions}", "{rows}"):
        name = name.replace(placeholder, f"{at:g}")
    return Row(
        name,
        raw["kind"],
        at,
        bound,
        most,
        raw.get("scenario", ""),
        raw["temperature"],
        raw.get("of", "nacre"),
        tuple(raw.get("against", ())),
        raw.get("figure", ""),
        raw.get("micro", ""),
    )
