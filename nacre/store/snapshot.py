"""The file that keeps a local store over a restart: one process at a time may write it.

Rule: who may write holds a lock on an empty file beside it (`.NAME.lock`), which the system lets go of when the process
ends, however it ends. Writes take turns, so two of one process cannot mix.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from nacre.store.portable import Section, read_file, write_file


class Snapshot:
    """The file at `path`, which need not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._turn = asyncio.Lock()
        self._lock: int | None = None

    def claim(self) -> bool:
        """Whether this process may write it until `release`: another one may be doing so."""
        if self._lock is not None:
            return True
        try:
            lock = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_WRONLY | os.O_CREAT, 0o600)
        except OSError:
            return True  # what is wrong there is told when it is written
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        except OSError:  # a file system without locks
            os.close(lock)
            return True
        self._lock = lock
        return True

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def read(self) -> Iterator[Section]:
        """As `read_file`."""
        return read_file(self.path)

    async def write(self, sections: Sequence[Section]) -> None:
        """In a thread of its own; `sections` must not change meanwhile. Raises ResourceExhausted."""
        async with self._turn:
            await asyncio.to_thread(write_file, self.path, sections)

    def move_aside(self) -> Path:
        """Out of the way, under the first free name beside it, which is returned. Raises OSError."""
        numbers = range(1, 1000)
        names = (self.path.with_name(f"{self.path.name}.damaged-{number}") for number in numbers)
        aside = next((name for name in names if not name.exists()), self.path.with_name(f"{self.path.name}.damaged"))
        return self.path.rename(aside)
