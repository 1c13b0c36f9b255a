"""What `nacre simulate` shows: a table with a column per point, JSON, and a plot. Files appear whole or not at all."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nacre.errors import InvalidArgument
from nacre.sim.capacity import Comparison, saturation
from nacre.sim.figures import Figures

#: Dials whose sweep is a growing load.
LOADS = ("concurrency", "arrivals_per_s")
_PLOTS = (".png", ".svg", ".pdf")


def _number(digits: int) -> Callable[[float | None], str]:
    return lambda value: "-" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


#: Label, figure, and how it is written.
_ROWS: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("tokens/s, whole fleet", "tokens_per_s", _number(1)),
    ("tokens/s of a session", "session_tokens_per_s", _number(1)),
    ("TTFT p50, ms", "ttft_p50_ms", _number(0)),
    ("TTFT p99, ms", "ttft_p99_ms", _number(0)),
    ("ITL p50, ms", "itl_p50_ms", _number(1)),
    ("ITL p99, ms", "itl_p99_ms", _number(1)),
    ("tokens per pass", "acceptance_length", _number(2)),
    ("rows per token", "rows_per_token", _number(2)),
    ("wasted rows", "wasted_rows_share", _percent),
    ("guesses rolled back", "rolled_back_share", _percent),
    ("verifier ms per token", "verifier_s_per_token", lambda value: _number(2)(None if value is None else 1e3 * value)),
    ("payload up, bytes per token", "payload_up_bytes_per_token", _number(1)),
    ("verifiers idle", "verifier_idle_share", _percent),
    ("drafters idle", "drafter_idle_share", _percent),
    ("$ per million tokens", "dollars_per_million_tokens", _number(2)),
)


def print_report(about: str, name: str, values: Sequence[Any], results: Sequence[Comparison], sample: int) -> None:
    from rich.table import Table

    from nacre.cli.output import result_console

    table = Table(title=about or None, title_justify="left")
    table.add_column(name or "")
    for index in range(len(results)):
        table.add_column(str(values[index]) if name else "value", justify="right")
    for label, figure, write in _ROWS:
        found = [getattr(result.with_guesses, figure) for result in results]
        if any(value is not None for value in found):
            table.add_row(label, *(write(value) for value in found))
        if figure == "tokens_per_s" and sample:
            table.add_row("  95 % interval", *(_between(result.with_guesses) for result in results))
    if any(result.plain for result in results):
        table.add_section()
        table.add_row("without guesses: tokens/s", *(_of_plain(result, "tokens_per_s", 1) for result in results))
        table.add_row("without guesses: ITL p99, ms", *(_of_plain(result, "itl_p99_ms", 1) for result in results))
        table.add_row("without guesses: session", *(_of_plain(result, "session_tokens_per_s", 1) for result in results))
        table.add_row("speed-up of a session", *(_number(2)(result.session_speed_up) for result in results))
        table.add_row("speed-up of the fleet", *(_number(2)(result.speed_up) for result in results))
    console = result_console()
    console.print(table)
    for line in _remarks(name, values, results, sample):
        console.print(line)


def as_json_value(
    about: str, name: str, values: Sequence[Any], results: Sequence[Comparison], sample: int
) -> dict[str, Any]:
    points = [
        {
            **({name: values[index]} if name else {}),
            "figures": result.with_guesses.as_dict(),
            "plain": result.plain.as_dict() if result.plain else None,
            "speed_up": result.speed_up,
            "session_speed_up": result.session_speed_up,
        }
        for index, result in enumerate(results)
    ]
    past = saturation(results) if name in LOADS else None
    return {
        "about": about,
        "swept": name or None,
        "sampled_verifiers": sample or None,
        "points": points,
        "saturated_at": None if past is None else values[past],
    }


def _remarks(name: str, values: Sequence[Any], results: Sequence[Comparison], sample: int) -> list[str]:
    lines = []
    if sample:
        verifiers = ", ".join(str(count) for count in sorted({result.dials.verifiers for result in results}))
        lines.append(
            f"{sample} of {verifiers} verifiers were simulated, with their share of the load, and stand for all."
        )
    if name in LOADS:
        past = saturation(results)
        if past is None:
            lines.append(f"Not saturated by {name} {values[-1]}.")
        else:
            lines.append(f"Saturated between {name} {values[past - 1]} and {values[past]}.")
    return lines


def _between(found: Figures) -> str:
    interval = found.tokens_per_s_interval
    return "-" if interval is None else f"{interval[0]:,.0f} to {interval[1]:,.0f}"


def _of_plain(result: Comparison, figure: str, digits: int) -> str:
    return _number(digits)(getattr(result.plain, figure) if result.plain else None)


def check_plot(path: Path) -> None:
    """Raises before anything is simulated if the plot could not be written."""
    if path.suffix not in _PLOTS:
        raise InvalidArgument(f"--plot is {path}; it must end in {', '.join(_PLOTS)}")
    if not path.parent.is_dir():
        raise InvalidArgument(f"--plot is {path}; there is no folder {path.parent}")
    import matplotlib  # noqa: F401  here, so that its absence is told at once


def draw(path: Path, name: str, values: Sequence[Any], results: Sequence[Comparison]) -> None:
    """Tokens/s with guesses and without, and the messages' p99 gap, over the swept dial."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    speed, gaps = figure.subplots(1, 2)
    single = all(result.dials.concurrency == 1 for result in results)
    kind = "session_tokens_per_s" if single else "tokens_per_s"
    places = list(range(len(results)))
    lines = (
        ("with guesses", [result.with_guesses for result in results], "o-"),
        ("without", [r.plain for r in results], "s--"),
    )
    for axes, what, title in ((speed, kind, "tokens/s"), (gaps, "itl_p99_ms", "ITL p99, ms")):
        for label, found, style in lines:
            points = [getattr(item, what) if item else None for item in found]
            shown = [(place, value) for place, value in zip(places, points, strict=True) if value is not None]
            if shown:
                axes.plot(*zip(*shown, strict=True), style, label=label)
        axes.set_xticks(places, [str(value) for value in values])
        axes.set_xlabel(name)
        axes.set_ylabel(title)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    speed.legend()
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix.removeprefix("."), dpi=150)
    write_whole(path, drawn.getvalue())


def write_whole(path: Path, content: bytes) -> None:
    """The file holds all of it, or what it held before."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be written: {error.strerror or error}") from None
    finally:
        unfinished.unlink(missing_ok=True)
