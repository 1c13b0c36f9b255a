"""Drafting methods side by side: which of them are run how, what a run has measured of each, what the figures say.

Every method is followed in one process along real generations (`drafter_trace`), a cell for each temperature, seed and
number of rows, and then end to end, as a baseline named `nacre-METHOD`. What runs on what, see `scenario_baselines`.
A name with plus signs is a fusion.

Rule: a cell is measured whole or not at all, because a method keeps what it has learnt from one prompt for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from statistics import median
from typing import Any, Protocol

from nacre.bench.baselines import Baseline, chosen_baselines
from nacre.bench.results import Results
from nacre.bench.scenarios import Scenario
from nacre.drafting import method_names

#: Under which names results keep the cells.
PREFIX = "drafter/"
#: Methods that need what only a verifier has: end to end they guess there.
LOCAL = frozenset({"dense", "nest"})

#: A sample to be taken: baseline, prompt, seed.
Sampled = tuple[Baseline, int, int]


class Jobs(Protocol):
    """Who measures; see `nacre.bench.jobs.Jobs`."""

    async def do(self, job: dict[str, Any]) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Cell:
    """One method at one temperature, with one seed, verified in passes of at most `rows` rows."""

    scenario: str
    method: str
    temperature: float
    seed: int
    rows: int

    @property
    def kept_as(self) -> str:
        return f"{PREFIX}{self.scenario}/{self.temperature:g}/{self.rows}/{self.seed}/{self.method}"


def baseline_of(method: str) -> str:
    """The name of a method's baseline end to end."""
    return f"nacre-{method}"


def scenario_baselines(scenario: Scenario, known: Mapping[str, Baseline]) -> tuple[Baseline, ...]:
    """What a scenario runs end to end, the reference first. Raises InvalidArgument for what is unknown."""
    found = chosen_baselines(known, scenario.baselines)
    for method in scenario.methods:
        names = method_names(method)
        name = baseline_of(method)
        if name not in {baseline.name for baseline in found}:
            if LOCAL.isdisjoint(names):
                predicts = "prediction" in names
                drafter = {"method": method}
                found.append(Baseline(name, f"drafting method {method}", drafter=drafter, predicts=predicts))
            else:
                found.append(Baseline(name, f"{method} in the verifier itself", verifier={"local": method}))
    return tuple(found)


def cells_of(scenario: Scenario) -> list[Cell]:
    """All cells of a scenario; the methods of one temperature, seed and number of rows one after the other."""
    return [
        Cell(scenario.name, method, temperature, seed, rows)
        for temperature in scenario.temperature
        for seed in scenario.seeds_at(temperature)
        for rows in scenario.rows
        for method in dict.fromkeys(scenario.methods)
    ]


def missing_cells(scenario: Scenario, results: Results) -> list[Cell]:
    return [cell for cell in cells_of(scenario) if cell.kept_as not in results.kept]


async def measure(
    cells: Iterable[Cell],
    scenario: Scenario,
    target: str,
    prompts: Sequence[tuple[int, ...]],
    seed_of: Callable[[int, int], int],
    jobs: Jobs,
    results: Results,
    advance: Callable[[int], None],
) -> None:
    """Measures cells of a scenario into the results. `seed_of` tells the noise's seed of (prompt, seed)."""
    for cell in cells:
        job = {
            "way": "drafter",
            "target": target,
            "method": cell.method,
            "rows": cell.rows,
            "temperature": cell.temperature,
            "max_tokens": scenario.tokens,
            "prompts": prompts,
            "seeds": [seed_of(prompt, cell.seed) for prompt in range(len(prompts))],
        }
        results.keep(
            cell.kept_as,
            {
                "scenario": cell.scenario,
                "method": cell.method,
                "temperature": cell.temperature,
                "rows": cell.rows,
                "seed": cell.seed,
                **await jobs.do(job),
            },
        )
        advance(1)


def tenant_of(scenario: Scenario, baseline: Baseline, rtt_ms: float, temperature: float, seed: int) -> str:
    """Whose a sample end to end is, "" for a tenant of its own. Drafters learn from one prompt to the next."""
    if scenario.kind != "drafters":
        return ""
    place = f"{scenario.name}/{baseline.name}/{rtt_ms:g}/{temperature:g}/{seed}"
    return f"drafters-{sha256(place.encode()).hexdigest()[:16]}"


def from_the_first(wanted: Sequence[Sampled], missing: Sequence[Sampled]) -> list[Sampled]:
    """What to sample where some is missing: all prompts of a seed, for what was learnt before is lost."""
    again = {(baseline.name, seed) for baseline, _, seed in missing}
    return [item for item in wanted if (item[0].name, item[2]) in again]


# -- what the figures say ----------------------------------------------------------------------------------------------


def drafter_summary(kept: Mapping[str, Any], served: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`rows`: figures per scenario, method, temperature and number of rows; `orderings`: fusions beside their sources.

    `served` are the cells end to end. Empty where no method was measured.
    """
    cells = [value for name, value in kept.items() if name.startswith(PREFIX)]
    if not cells:
        return {}
    places = dict.fromkeys((c["scenario"], c["method"], c["temperature"], c["rows"]) for c in cells)
    rows = [_row([c for c in cells if _place(c) == place]) for place in places]
    return {"rows": rows, "orderings": [*_by_length(rows), *_by_speed(rows, served)]}


def _place(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return (cell["scenario"], cell["method"], cell["temperature"], cell["rows"])


def _row(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All seeds of a place: counts are added before they are divided, of times and sizes the median is taken."""

    def total(name: str) -> int:
        return sum(cell[name] for cell in cells)

    def middle(name: str, which: str) -> float | None:
        found = [cell[name][which] for cell in cells if cell[name] is not None]
        return median(found) if found else None

    return {
        **dict(zip(("scenario", "method", "temperature", "rows"), _place(cells[0]), strict=True)),
        "seeds": sorted(cell["seed"] for cell in cells),
        "tokens_per_pass": total("tokens") / total("passes"),
        "tokens_per_pass_by_seed": {str(cell["seed"]): cell["tokens"] / cell["passes"] for cell in cells},
        "rows_per_pass": total("pass_rows") / total("passes"),
        "guesses_per_proposal": total("guesses") / max(1, total("proposals")),
        "proposals_per_pass": total("proposals") / total("passes"),
        "empty_share": total("empty") / max(1, total("proposals")),
        "propose_us": middle("propose_us", "median"),
        "propose_p95_us": middle("propose_us", "p95"),
        "update_us": middle("update_us", "median"),
        "open_us": middle("open_us", "median"),
        "memory_bytes": median(cell["memory_bytes"] for cell in cells),
    }


def _by_length(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every fusion beside the best of its sources where all of them were measured: tokens a pass."""
    found = []
    for place in dict.fromkeys((row["scenario"], row["temperature"], row["rows"]) for row in rows):
        here = {r["method"]: r for r in rows if (r["scenario"], r["temperature"], r["rows"]) == place}
        for method, best in _fusions(here, "tokens_per_pass"):
            fused, alone = (here[name]["tokens_per_pass_by_seed"] for name in (method, best))
            found.append(
                {
                    "figure": "tokens_per_pass",
                    **dict(zip(("scenario", "temperature", "rows"), place, strict=True)),
                    **_ordering(here, method, best, "tokens_per_pass"),
                    "seeds": len(fused),
                    "seeds_ok": sum(length > alone.get(seed, 0.0) for seed, length in fused.items()),
                }
            )
    return found


def _by_speed(rows: Sequence[Mapping[str, Any]], served: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same for tokens a second, end to end."""
    methods = {baseline_of(row["method"]): row["method"] for row in rows}
    scenarios = {row["scenario"] for row in rows}
    cells = [cell for cell in served if cell["scenario"] in scenarios and cell["baseline"] in methods]
    found = []
    for place in dict.fromkeys((cell["scenario"], cell["temperature"], cell["rtt_ms"]) for cell in cells):
        here = {methods[c["baseline"]]: c for c in cells if (c["scenario"], c["temperature"], c["rtt_ms"]) == place}
        for method, best in _fusions(here, "tokens_per_s"):
            found.append(
                {
                    "figure": "tokens_per_s",
                    **dict(zip(("scenario", "temperature", "rtt_ms"), place, strict=True)),
                    **_ordering(here, method, best, "tokens_per_s"),
                }
            )
    return found


def _fusions(here: Mapping[str, Mapping[str, Any]], figure: str) -> list[tuple[str, str]]:
    """(fusion, the best of its sources) of all fusions whose sources are here, too."""
    found = []
    for method in here:
        sources = method_names(method)
        if len(sources) > 1 and all(source in here for source in sources):
            found.append((method, max(sources, key=lambda source: here[source][figure])))
    return found


def _ordering(here: Mapping[str, Mapping[str, Any]], method: str, best: str, figure: str) -> dict[str, Any]:
    value, beside = here[method][figure], here[best][figure]
    return {"method": method, "value": value, "beside": best, "beside_value": beside, "ok": value > beside}
