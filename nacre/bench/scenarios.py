"""Scenarios: what is run, as data. `benchmarks/NAME.toml` is one scenario.

A scenario is a grid: baselines x round-trip times x temperatures x prompts x seeds; one with several kinds
of text is run as one scenario for each (`by_text`). Keys of its `[quick]` table replace those above for `--quick`; its
`[[row]]` tables are figures to tell of a run (`headline`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from nacre.bench.baselines import folder, read_toml
from nacre.drafting.growth import MOST_ROWS
from nacre.errors import InvalidArgument
from nacre.models import TEXTS

KINDS = ("latency", "throughput", "micro", "drafters")
MOST = {"prompts": 1000, "tokens": 100_000, "seeds": 64, "warm_ups": 8, "tune_tokens": 10_000}
_NOT_SCENARIOS = ("baselines", "headline")
_LISTS = ("baselines", "rtt_ms", "temperature", "sessions", "text", "methods", "rows")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One grid. Times are milliseconds; `rtt_ms` is there and back. `sessions` are those at a time (throughput).

    `methods` are the drafting methods that are compared, `rows` what the passes may have that verify them (drafters).
    """

    name: str
    about: str = ""
    kind: str = "latency"
    baselines: tuple[str, ...] = ("ar", "nacre")
    rtt_ms: tuple[float, ...] = (0.0,)
    temperature: tuple[float, ...] = (1.0,)
    prompts: int = 24
    tokens: int = 96
    seeds: int = 2
    warm_ups: int = 2
    tune_tokens: int = 64
    sessions: tuple[int, ...] = (1,)
    text: tuple[str, ...] = ("mixed",)
    methods: tuple[str, ...] = ()
    rows: tuple[int, ...] = (16,)

    def seeds_at(self, temperature: float) -> range:
        """Seeds worth running: at temperature 0 all give the same text."""
        return range(1, (self.seeds if temperature > 0 else 1) + 1)


def scenario_files() -> list[Path]:
    return sorted(path for path in folder().glob("*.toml") if path.stem not in _NOT_SCENARIOS)


def scenario_file(name: str) -> Path:
    """Of a scenario by name, or by the path of a file of one's own. Raises InvalidArgument if there is none."""
    path = Path(name) if name.endswith(".toml") else folder() / f"{name}.toml"
    if not path.is_file() or path.stem in _NOT_SCENARIOS:
        known = ", ".join(["headline", *(file.stem for file in scenario_files())])
        raise InvalidArgument(f"scenario {name!r} is unknown; there are {known}, or give the path of a .toml file")
    return path


def load_scenario(name: str, *, quick: bool = False) -> Scenario:
    """By name or path, see `scenario_file`. Raises NotFound or InvalidArgument."""
    path = scenario_file(name)
    raw = {key: value for key, value in read_toml(path).items() if key != "row"}
    hurried = raw.pop("quick", {})
    if not isinstance(hurried, dict):
        raise InvalidArgument(f"{path}: quick is {hurried!r}; it must be a table of what --quick changes")
    return scenario_from(path.stem, {**raw, **(hurried if quick else {})}, str(path))


def scenario_from(name: str, raw: dict[str, Any], where: str) -> Scenario:
    """Raises InvalidArgument naming the key."""
    known = {item.name: item for item in fields(Scenario)}
    unknown = set(raw) - set(known) | ({"name"} & set(raw))
    if unknown:
        raise InvalidArgument(
            f"{where} has {min(unknown)!r}; a scenario has {', '.join(sorted(set(known) - {'name'}))}"
        )
    lists = {key: tuple(value) if isinstance(value, list) else (value,) for key, value in raw.items() if key in _LISTS}
    return checked(replace(Scenario(name), **{**raw, **lists}), where)


def checked(scenario: Scenario, where: str) -> Scenario:
    """The scenario, if its dials are possible. Raises InvalidArgument naming key, value and bound."""
    if scenario.kind not in KINDS:
        raise InvalidArgument(f"{where}: kind is {scenario.kind!r}; it must be one of {', '.join(KINDS)}")
    for key, most in MOST.items():
        value = getattr(scenario, key)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise InvalidArgument(f"{where}: {key} is {value}; it must be a whole number from 1 to {most}")
    if scenario.tokens < 2:
        raise InvalidArgument(f"{where}: tokens is {scenario.tokens}; speed needs at least 2")
    _check_all(where, "rtt_ms", scenario.rtt_ms, 0, 10_000)
    _check_all(where, "temperature", scenario.temperature, 0, 1e6)
    _check_all(where, "sessions", scenario.sessions, 1, 1024)
    _check_all(where, "rows", scenario.rows, 2, MOST_ROWS, whole=True)
    for key in ("baselines", "methods", "text"):
        _check_words(where, key, getattr(scenario, key))
    for text in scenario.text or ("",):
        if text not in TEXTS:
            raise InvalidArgument(f"{where}: text has {text!r}; it must be of {', '.join(TEXTS)}")
    if (scenario.kind == "drafters") != bool(scenario.methods):
        raise InvalidArgument(
            f"{where}: methods is {list(scenario.methods)}; a scenario of kind drafters names some, no other does"
        )
    if not scenario.baselines:
        raise InvalidArgument(f"{where}: baselines is empty; name at least one")
    return scenario


def by_text(scenario: Scenario) -> tuple[Scenario, ...]:
    """One scenario for each kind of text, under a name of its own where there are several."""
    if len(scenario.text) == 1:
        return (scenario,)
    return tuple(replace(scenario, name=named_for(scenario.name, text), text=(text,)) for text in scenario.text)


def named_for(name: str, text: str) -> str:
    """The scenario's name with one of its texts."""
    return f"{name}-{text}"


def _check_words(where: str, key: str, values: Sequence[Any]) -> None:
    for value in values:
        if not isinstance(value, str):
            raise InvalidArgument(f"{where}: {key} has {value!r}; it must be a list of names, each in quotes")


def _check_all(
    where: str, key: str, values: Sequence[float], least: float, most: float, *, whole: bool = False
) -> None:
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    for value in values or (None,):
        if value is None or isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
            raise InvalidArgument(f"{where}: {key} has {value}; it must be {least:g} to {most:g}")
