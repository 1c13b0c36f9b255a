"""Child processes on a leash: started, watched, pinned, and never left behind.

Rules. A child lives only as long as its parent: whoever leaves the `async with` stops them all (SIGTERM, then SIGKILL),
and where the parent itself is killed the kernel kills them (Linux: parent-death signal). Each child has a process group
of its own, so Ctrl-C in a terminal reaches the parent alone, which stops everything in order. Children are started by
exec, never by a bare fork: neither gRPC nor torch's threads survive one.

A service says `ready {json}` on standard output once it accepts calls; until then `start` waits. One that ends before
that explains itself in one line on standard error, and that line becomes the error here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, TypeVar

from nacre.errors import DeadlineExceeded, FailedPrecondition, Internal, NacreError, Unavailable

T = TypeVar("T")

#: Told (child's name, line) for what a child writes to standard error.
OnLine = Callable[[str, str], None]

TAIL_LINES = 40
MAX_LINE_BYTES = 64 * 1024
START_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 10.0

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
#: A child that has lived this long had no bad start: its next restart comes fast again.
SETTLED_S = 60.0
MAX_RESTARTS_IN_A_ROW = 10

# Runs in a bare interpreter that then becomes the child. SIGKILL, because whoever stops in an orderly way sends SIGTERM
# himself; a parent that died before the request reached the kernel would not be noticed, hence the check behind it.
_LEASH = """
import ctypes, os, signal, sys
parent, cores, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
prctl = getattr(ctypes.CDLL(None), "prctl", None)
if prctl is not None:
    prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != parent:
    sys.exit(1)
if cores:
    os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
os.execv(command[0], command)
"""
_ANNOUNCEMENT = "ready "
_OWN_NAME = re.compile(r"^nacre (?:serve )?[a-z-]+: (?:error: )?")


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run: `python -m module arguments…`, on these cores only (none given: on any)."""

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    cores: tuple[int, ...] = ()


class Child:
    """A started process. `ready` is what it announced; `tail` holds its last lines on standard error."""

    def __init__(self, spec: ChildSpec, process: asyncio.subprocess.Process) -> None:
        self.spec = spec
        self.ready: dict[str, Any] = {}
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._process = process
        self._settled = asyncio.Event()  # it is ready, or it has ended
        self._ended = asyncio.Event()

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number if a signal ended it."""
        return self._process.returncode

    async def wait(self) -> int:
        """Its exit code, once it has ended and all it wrote has been read."""
        await self._ended.wait()
        assert self.exit_code is not None
        return self.exit_code

    def signal(self, number: int) -> None:
        """Sends a signal to its whole process group; harmless once it has ended."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def failure(self) -> NacreError:
        """Why it ended, as one line: its own last words if it had any."""
        code = self.exit_code
        last = next((line for line in reversed(self.tail) if line.strip()), "")
        words = _OWN_NAME.sub("", last).strip()
        if code == 2 and words:  # a mistake of the caller, in the service's own words
            return FailedPrecondition(f"{self.name}: {words}")
        said = f": {words}" if words else ""
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            hint = " (out of memory?)" if name == "SIGKILL" else ""
            return Unavailable(f"{self.name} was ended by {name}{hint}{said}")
        return Internal(f"{self.name} ended with exit code {code}{said}")

    async def _follow(self, on_line: OnLine | None, on_output: Callable[[str], None] | None) -> None:
        async with asyncio.TaskGroup() as readers:
            readers.create_task(self._read_output(on_output))
            readers.create_task(self._read_errors(on_line))
        await self._process.wait()
        self._ended.set()
        self._settled.set()

    async def _read_output(self, on_output: Callable[[str], None] | None) -> None:
        assert self._process.stdout is not None
        async for line in _lines(self._process.stdout):
            if not self.ready and line.startswith(_ANNOUNCEMENT):
                with contextlib.suppress(ValueError):
                    self.ready = {"ready": True, **json.loads(line.removeprefix(_ANNOUNCEMENT))}
                    self._settled.set()
            elif on_output is not None:
                on_output(line)

    async def _read_errors(self, on_line: OnLine | None) -> None:
        assert self._process.stderr is not None
        async for line in _lines(self._process.stderr):
            self.tail.append(line)
            if on_line is not None and not _OWN_NAME.match(line):  # its last words are told by `failure`, once
                on_line(self.name, line)


class Processes:
    """Owner of child processes; an async context manager. Start children from the task that entered it."""

    def __init__(
        self,
        *,
        on_line: OnLine | None = None,
        start_timeout_s: float = START_TIMEOUT_S,
        stop_timeout_s: float = STOP_TIMEOUT_S,
    ) -> None:
        self.children: list[Child] = []
        self._on_line = on_line
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._readers = asyncio.TaskGroup()

    async def __aenter__(self) -> Processes:
        await self._readers.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        finally:
            await self._readers.__aexit__(None, None, None)

    async def start(self, spec: ChildSpec, *, on_output: Callable[[str], None] | None = None) -> Child:
        """Starts a child and waits until it is ready. Raises NacreError with its own words if it ends before."""
        child = await self.spawn(spec, on_output=on_output)
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await child._settled.wait()
        except TimeoutError:
            await self.end(child)
            raise DeadlineExceeded(
                f"{spec.name} was not ready within {self._start_timeout_s:g} s; look at its log or try a smaller model"
            ) from None
        if not child.ready:
            await child.wait()
            self.children.remove(child)
            raise child.failure()
        return child

    async def spawn(self, spec: ChildSpec, *, on_output: Callable[[str], None] | None = None) -> Child:
        """Starts a child without waiting for it."""
        cores = ",".join(map(str, spec.cores))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), cores),
            # -P: a folder of the user's that happens to be called gateway is not ours.
            *(sys.executable, "-P", "-m", spec.module, *spec.arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            process_group=0,
        )
        child = Child(spec, process)
        self.children.append(child)
        self._readers.create_task(child._follow(self._on_line, on_output), name=f"follow-{spec.name}")
        return child

    async def end(self, child: Child) -> None:
        """Ends one child: SIGTERM, and SIGKILL if it takes too long. A second cancellation kills it at once."""
        await self._end([child])
        if child in self.children:
            self.children.remove(child)

    async def stop(self) -> None:
        """Ends all children, the youngest told first; returns once none is left."""
        await self._end(list(reversed(self.children)))
        self.children.clear()

    async def keep(self, child: Child, respawn: ChildSpec, report: Callable[[str], None]) -> None:
        """Starts `respawn` whenever the child ends, with growing pauses; returns after too many bad starts in a row."""
        loop = asyncio.get_running_loop()
        misses, since = 0, loop.time()
        current: Child | None = child
        while misses < MAX_RESTARTS_IN_A_ROW:
            if current is not None:
                await current.wait()
                if current in self.children:
                    self.children.remove(current)
                if loop.time() - since > SETTLED_S:
                    misses = 0
                reason = current.failure().message
            pause = min(FIRST_BACKOFF_S * 2**misses, LONGEST_BACKOFF_S)
            misses += 1
            report(f"{reason}; starting it again in {pause:g} s")
            await asyncio.sleep(pause)
            try:
                since, current = loop.time(), await self.start(respawn)
                report(f"{respawn.name} is back")
            except NacreError as error:
                current, reason = None, error.message
        report(f"{respawn.name} failed {misses} times in a row and stays down: {reason}")

    async def _end(self, children: list[Child]) -> None:
        for child in children:
            child.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._stop_timeout_s):
                for child in children:
                    await child._process.wait()
        except TimeoutError:
            pass
        finally:  # also on a second Ctrl-C, which arrives here as a cancellation
            for child in children:
                child.signal(signal.SIGKILL)
        for child in children:
            await child.wait()


def run_until_signalled(main: Coroutine[Any, Any, T]) -> T:
    """Runs `main`; SIGINT, SIGTERM and SIGHUP cancel it, so that it can end its children, a second one hurries it.

    Raises KeyboardInterrupt if a signal was what ended it.
    """
    signals: list[int] = []

    async def cancellable() -> T:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        assert task is not None

        def signalled(number: int) -> None:
            signals.append(number)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, signalled, number)
        return await main

    try:
        return asyncio.run(cancellable())
    except (asyncio.CancelledError, BaseExceptionGroup):
        if signals:
            raise KeyboardInterrupt from None
        raise


def available_cores() -> tuple[int, ...]:
    """The cores this process may use, in order; empty where the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    return tuple(sorted(os.sched_getaffinity(0)))


def with_flag(spec: ChildSpec, flag: str, value: object) -> ChildSpec:
    """The same child with `flag` set to `value`, replacing what it was."""
    arguments = list(spec.arguments)
    if flag in arguments:
        arguments[arguments.index(flag) + 1] = str(value)
    else:
        arguments += [flag, str(value)]
    return replace(spec, arguments=tuple(arguments))


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Lines as they come; one that is too long is cut instead of breaking the reader."""
    held = b""
    while chunk := await stream.read(MAX_LINE_BYTES):
        *whole, held = (held + chunk).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace").rstrip("\r")
        if len(held) >= MAX_LINE_BYTES:
            yield held.decode("utf-8", "replace")
            held = b""
    if held:
        yield held.decode("utf-8", "replace")
