"""What `nacre bench` prints: the table of a run, and what there is to run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nacre.cli.bench_drafters import print_drafters, scenarios_in

if TYPE_CHECKING:
    from rich.table import Table

    from nacre.bench.results import Results

#: Columns of a table that goes into a file or a pipe.
_WIDE = 220

_COLUMNS = (
    ("tokens/s", "tokens_per_s", "{:.1f}"),
    ("TTFT ms", "ttft_ms", "{:.0f}"),
    ("ITL p50/p99 ms", "itl", ""),
    ("tokens a pass", "acceptance_length", "{:.2f}"),
    ("accepted", "acceptance_rate", "{:.2f}"),
    ("rows/token", "rows_per_token", "{:.2f}"),
    ("verifier ms/token", "verifier_s_per_token", "ms"),
    ("verifier idle", "verifier_idle_share", "{:.0%}"),
    ("drafter idle", "drafter_idle_share", "{:.0%}"),
    ("B up/token", "payload_up_bytes_per_token", "{:.1f}"),
    ("rolled back", "rolled_back_share", "{:.0%}"),
)


def print_report(results: Results) -> None:
    """A line per cell and baseline; tables of their own for methods, many sessions, the headline's rows."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    summary = results.summary
    drafters = summary.get("drafters") or {}
    compared = scenarios_in(drafters)
    cells = [cell for cell in summary.get("cells", ()) if cell["scenario"] not in compared]
    if cells:
        console.print(_cells_table(cells))
        console.print(
            "[dim]tokens/s: decoding, the first message apart; speed-up: over ar in the same cell, with its 95 % "
            "interval over prompts;\nITL: between messages; every text is ar's, token by token (hf-* draw other noise)."
            "[/dim]"
        )
    if drafters:
        print_drafters(console, drafters, summary["cells"])
    if summary.get("loads"):
        console.print(_loads_table(summary["loads"]))
        console.print(
            "[dim]tokens/s of all sessions while all of them decode; speed-up: median (least to most) of repeats.[/dim]"
        )
    if summary.get("rows"):
        console.print(_rows_table(summary["rows"]))


def _cells_table(cells: list[dict[str, Any]]) -> Table:
    table = _table("scenario", "baseline", "T", "RTT ms", "speed-up", *(heading for heading, _, _ in _COLUMNS))
    before = None
    for cell in cells:
        place = (cell["scenario"], cell["temperature"], cell["rtt_ms"])
        if before is not None and place != before:
            table.add_section()
        before = place
        table.add_row(
            cell["scenario"],
            cell["baseline"] + _settings(cell["settings"]),
            f"{cell['temperature']:g}",
            f"{cell['rtt_ms']:g}",
            _speedup(cell["speedup"]),
            *(_shown(cell, key, form) for _, key, form in _COLUMNS),
        )
    return table


def _loads_table(loads: list[dict[str, Any]]) -> Table:
    table = _table(
        "scenario", "baseline", "sessions", "RTT ms", "speed-up", "tokens/s", "whole run", "TPOT ms", "goodput/s"
    )
    for load in loads:
        goodput = load["goodput_per_s"]
        table.add_row(
            load["scenario"],
            load["baseline"],
            str(load["sessions"]),
            f"{load['rtt_ms']:g}",
            _speedup(load["speedup"]),
            f"{load['tokens_per_s']:.1f}",
            f"{load['whole_tokens_per_s']:.1f}",
            f"{load['tpot_p50_ms']:.0f}",
            "-" if goodput is None else f"{goodput:.2f}",
        )
    return table


def _rows_table(rows: list[dict[str, Any]]) -> Table:
    table = _table("row", "", "value", "bound", "interval")
    for row in rows:
        reached = {True: "[green]ok[/green]", False: "[red]missed[/red]", None: "[dim]open[/dim]"}[row["ok"]]
        if row["value"] is not None and row["bound"] is None:
            reached = ""
        low, high = row.get("interval") or (None, None)
        table.add_row(
            row["name"],
            reached,
            "-" if row["value"] is None else f"{row['value']:.2f}",
            _bound(row),
            row.get("why") or ("" if low is None else f"{low:.2f}-{high:.2f}"),
        )
    return table


def _bound(row: dict[str, Any]) -> str:
    if row["bound"] is None:
        return "reported"
    return f"{'at most' if row['most'] else 'at least'} {row['bound']:g}"


def _table(*headings: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < 2 else "right", no_wrap=heading == "speed-up")
    return table


def print_list(as_json: bool) -> None:
    from nacre.bench.baselines import load_baselines
    from nacre.bench.scenarios import load_scenario, scenario_files
    from nacre.cli.output import print_json, result_console

    scenarios = [load_scenario(path.stem) for path in scenario_files()]
    baselines = load_baselines()
    if as_json:
        print_json(
            {
                "scenarios": [asdict(scenario) for scenario in scenarios],
                "baselines": [asdict(baseline) for baseline in baselines.values()],
            }
        )
        return
    console = result_console()
    console.print("[bold]scenarios[/bold]")
    for scenario in scenarios:
        console.print(f"  {scenario.name:<20} {scenario.about}")
    console.print("[bold]baselines[/bold]")
    for baseline in baselines.values():
        console.print(f"  {baseline.name:<20} {baseline.about}")


def _settings(settings: dict[str, Any]) -> str:
    return f" ({', '.join(f'{key} {value}' for key, value in settings.items())})" if settings else ""


def _speedup(found: dict[str, Any] | None) -> str:
    return f"{found['value']:.2f} x ({found['low']:.2f}-{found['high']:.2f})" if found else "-"


def _shown(cell: dict[str, Any], key: str, form: str) -> str:
    if key == "itl":
        if cell["itl_p50_ms"] is None:
            return "-"
        return f"{cell['itl_p50_ms']:.0f}/{cell['itl_p99_ms']:.0f}"
    value = cell[key]
    if value is None:
        return "-"
    return f"{value * 1e3:.1f}" if form == "ms" else form.format(value)
