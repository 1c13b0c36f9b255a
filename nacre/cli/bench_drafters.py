"""What `nacre bench drafters` prints: one table for each kind of text, a line for each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_NOTE = (
    "[dim]tokens a pass: committed tokens per verify pass, the verifier's own included, in one process; us: time of a\n"
    "proposal at the highest temperature, median and 95th percentile; learn us: of an update; memory: held in the\n"
    "middle of a generation; tokens/s: end to end with a drafter process, over ar in the same cell.\n"
    "prediction: a copy of the answer with one token in sixteen wrong; rest: a corpus that the target was trained on.\n"
    "Every text is the one that the target writes alone.[/dim]"
)


def scenarios_in(drafters: Mapping[str, Any]) -> list[str]:
    """The scenarios whose methods stand side by side."""
    return list(dict.fromkeys(row["scenario"] for row in drafters.get("rows", ())))


def print_drafters(console: Console, drafters: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> None:
    """`drafters` and `cells` of a run's summary."""
    from nacre.bench.baselines import REFERENCE
    from nacre.bench.drafters import baseline_of

    for scenario in scenarios_in(drafters):
        rows = [row for row in drafters["rows"] if row["scenario"] == scenario]
        served = [cell for cell in cells if cell["scenario"] == scenario]
        widths = sorted({row["rows"] for row in rows})
        warmths = sorted({row["temperature"] for row in rows})
        links = sorted({(cell["temperature"], cell["rtt_ms"]) for cell in served})
        table = _table(scenario, widths, warmths, links)
        table.add_row("(no drafter)", *_speeds(served, REFERENCE, links, before=len(warmths) + 4))
        for method in dict.fromkeys(row["method"] for row in rows):
            mine = [row for row in rows if row["method"] == method]
            lengths = [_by_rows(mine, widths, "tokens_per_pass", "{:.2f}", temperature) for temperature in warmths]
            hottest = warmths[-1]
            table.add_row(
                method,
                *lengths,
                _by_rows(mine, widths, "propose_us", "{:.0f}", hottest),
                _by_rows(mine, widths, "propose_p95_us", "{:.0f}", hottest),
                _by_rows(mine, widths[-1:], "update_us", "{:.0f}", hottest),
                _size(max(row["memory_bytes"] for row in mine)),
                *_speeds(served, baseline_of(method), links),
            )
        console.print(table)
    console.print(_NOTE)
    for line in said_of(drafters["orderings"]):
        console.print(line)


def said_of(orderings: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each fusion and figure: in how many cells it is ahead of the best of its sources, and where not."""
    lines = []
    for method, figure in dict.fromkeys((found["method"], found["figure"]) for found in orderings):
        here = [found for found in orderings if (found["method"], found["figure"]) == (method, figure)]
        ahead = sum(found["ok"] for found in here)
        behind = ", ".join(
            f"{_cell(found)}: {found['value']:.2f} beside {found['beside_value']:.2f} of {found['beside']}"
            for found in here
            if not found["ok"]
        )
        unit = {"tokens_per_pass": "tokens a pass", "tokens_per_s": "tokens/s"}[figure]
        lines.append(
            f"{method} ahead of each of its sources, {unit}: in {ahead} of {len(here)} cells"
            + (f"; not in {behind}" if behind else "")
        )
    return lines


def _table(
    scenario: str, widths: Sequence[int], warmths: Sequence[float], links: Sequence[tuple[float, float]]
) -> Table:
    from rich.table import Table

    table = Table(title=scenario, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="bold")
    shown = "/".join(map(str, widths))
    table.add_column("method", no_wrap=True)
    for temperature in warmths:
        table.add_column(f"tokens a pass\nT {temperature:g}, {shown} rows", justify="right")
    for heading in (f"us\n{shown} rows", "us p95", "learn\nus", "memory\nMB"):
        table.add_column(heading, justify="right")
    for temperature, rtt_ms in links:
        table.add_column(f"tokens/s\nT {temperature:g}, {rtt_ms:g} ms", justify="right")
    return table


def _by_rows(
    rows: Sequence[Mapping[str, Any]], widths: Sequence[int], figure: str, form: str, temperature: float
) -> str:
    found = {row["rows"]: row[figure] for row in rows if row["temperature"] == temperature}
    return " ".join("-" if found.get(width) is None else form.format(found[width]) for width in widths)


def _speeds(
    served: Sequence[Mapping[str, Any]], baseline: str, links: Sequence[tuple[float, float]], *, before: int = 0
) -> list[str]:
    """Speed at each temperature and link, after so many empty columns."""
    shown = []
    for place in links:
        found = [c for c in served if c["baseline"] == baseline and (c["temperature"], c["rtt_ms"]) == place]
        speedup = found[0]["speedup"] if found else None
        over = f" {speedup['value']:.2f}x" if speedup else ""
        shown.append(f"{found[0]['tokens_per_s']:.1f}{over}" if found else "-")
    return [""] * before + shown


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.2f}"


def _cell(found: Mapping[str, Any]) -> str:
    where = f"{found['rows']} rows" if "rows" in found else f"{found['rtt_ms']:g} ms"
    return f"{found['scenario']} T {found['temperature']:g} {where}"
