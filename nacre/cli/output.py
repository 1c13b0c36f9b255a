"""What commands write where: results on standard output, progress and notes on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

#: Called with how much of a step is done.
Advance = Callable[[int], None]

_REFRESH_HZ = 4  # a busy progress bar would take cores from what it reports on


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False), flush=True)


def note(text: str) -> None:
    """One line on standard error."""
    print(text, file=sys.stderr, flush=True)


class ChildLog:
    """Passes on what child processes log, each line with its author's name, until `hush`."""

    def __init__(self, *but: str) -> None:
        self._silent = set(but)
        self._hushed = False

    def hush(self) -> None:
        """They are being stopped: now everyone misses everyone else, and says so."""
        self._hushed = True

    def __call__(self, name: str, line: str) -> None:
        if not self._hushed and name not in self._silent:
            note(f"{name} | {line}")


def result_console() -> Console:
    """Where results go; colours only at a terminal."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


class Steps:
    """Progress on standard error: a bar or a spinner at a terminal, a line per step elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)

    @contextmanager
    def step(self, text: str, total: int | None = None) -> Iterator[Advance]:
        """One step; without `total` its length is unknown."""
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        started = time.monotonic()
        if not self._console.is_terminal:
            note(f"{text} …")
            yield lambda amount: None
            return
        columns = [SpinnerColumn(), TextColumn("{task.description}")]
        if total is not None:
            columns += [BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}")]
        bar = Progress(
            *columns, TimeElapsedColumn(), console=self._console, refresh_per_second=_REFRESH_HZ, transient=True
        )
        with bar:
            task = bar.add_task(text, total=total)
            yield lambda amount: bar.advance(task, amount)
        self._console.print(f"[dim]{text}: {time.monotonic() - started:.1f} s[/dim]")
