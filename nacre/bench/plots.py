"""Plots of a run: speed-up over RTT, and the lanes of one generation. Needs matplotlib (extra `bench`)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nacre.bench.baselines import REFERENCE
from nacre.bench.results import check_place, write_whole
from nacre.bench.timeline import LANES
from nacre.errors import FailedPrecondition, InvalidArgument

ENDINGS = (".png", ".svg", ".pdf")


def check_plot(path: Path) -> None:
    """Raises before anything is run if a plot could not be written in the end."""
    if path.suffix not in ENDINGS:
        raise InvalidArgument(f"--plot is {str(path)!r}; its name must end in one of {', '.join(ENDINGS)}")
    check_place(path, "--plot")
    _pyplot()


def plot(path: Path, summary: Mapping[str, Any], spans: Sequence[Mapping[str, Any]]) -> None:
    """Writes one figure: speed-ups with their intervals above, the lanes of one generation below.

    The file holds all of it or what it held before. Raises ResourceExhausted where it cannot be written.
    """
    pyplot = _pyplot()
    cells = [cell for cell in summary.get("cells", ()) if cell["speedup"] and cell["baseline"] != REFERENCE]
    figure, axes = pyplot.subplots(2 if spans else 1, 1, figsize=(11, 8 if spans else 4.5), squeeze=False)
    _speedups(axes[0][0], cells)
    if spans:
        _lanes(axes[1][0], spans)
    figure.tight_layout()
    drawn = io.BytesIO()
    try:
        figure.savefig(drawn, format=path.suffix.removeprefix("."))
    finally:
        pyplot.close(figure)
    write_whole(path, drawn.getvalue())


def _speedups(axis: Any, cells: Sequence[Mapping[str, Any]]) -> None:
    names = dict.fromkeys((cell["scenario"], cell["temperature"], cell["baseline"]) for cell in cells)
    lines = [
        [cell for cell in cells if (cell["scenario"], cell["temperature"], cell["baseline"]) == name] for name in names
    ]
    longest = max(map(len, lines), default=0)
    for line in lines:
        if len(line) < min(2, longest):  # single points say little among lines; the table has them
            continue
        line.sort(key=lambda cell: cell["rtt_ms"])
        values = [cell["speedup"]["value"] for cell in line]
        below = [cell["speedup"]["value"] - cell["speedup"]["low"] for cell in line]
        above = [cell["speedup"]["high"] - cell["speedup"]["value"] for cell in line]
        axis.errorbar(
            [cell["rtt_ms"] for cell in line],
            values,
            yerr=[below, above],
            marker="o",
            capsize=3,
            label=f"{line[0]['baseline']} ({line[0]['scenario']}, T = {line[0]['temperature']:g})",
        )
    axis.set_xlabel("round trip, ms")
    axis.set_ylabel("speed-up over ar")
    axis.axhline(1.0, color="grey", linewidth=0.8)
    axis.set_ylim(bottom=0)
    axis.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _lanes(axis: Any, spans: Sequence[Mapping[str, Any]]) -> None:
    thinnest = 0.002 * max(span["end_ms"] for span in spans)
    for place, lane in enumerate(reversed(LANES)):
        here = [span for span in spans if span["lane"] == lane]
        bars = [(span["begin_ms"], max(thinnest, span["end_ms"] - span["begin_ms"])) for span in here]
        axis.broken_barh(bars, (place - 0.35, 0.7), alpha=0.6)
    axis.set_yticks(range(len(LANES)), list(reversed(LANES)))
    axis.set_xlabel("ms from the request")


def _pyplot() -> Any:
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise FailedPrecondition(
            "matplotlib is not installed, so there is no plot; run: pip install 'nacre[bench]', or leave --plot out"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
