"""Child processes: started, watched, pinned, stopped, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from nacre.errors import DeadlineExceeded, FailedPrecondition, Internal, Unavailable
from nacre.runtime import processes
from nacre.runtime.processes import Child, ChildSpec, Processes, available_cores, with_flag

SERVICE = """
import json, os, signal, sys, time
mode = sys.argv[1]
def ready(**more):
    print("ready " + json.dumps({"pid": os.getpid(), **more}), flush=True)
if mode == "mistake":
    print("some log line", file=sys.stderr)
    print("nacre verifier: threads is 0; it must be 1 to 64", file=sys.stderr)
    sys.exit(2)
if mode == "bug":
    raise ValueError("boom")
if mode == "silent":
    time.sleep(600)
if mode == "suicide":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "chatty":
    sys.stderr.write("x" * 3_000_000 + "\\nlast\\n")
    sys.stdout.write("y" * 3_000_000 + "\\n")
if mode == "cores":
    ready(cores=sorted(os.sched_getaffinity(0)))
ready(arguments=sys.argv[2:])
print("after", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that behaves as its first argument says."""
    (tmp_path / "pretended_service.py").write_text(SERVICE)
    inherited = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{inherited}" if inherited else str(tmp_path))


def spec(mode: str = "serve", *arguments: str, cores: tuple[int, ...] = ()) -> ChildSpec:
    return ChildSpec("verifier", "pretended_service", (mode, *arguments), cores)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  what is waited for has no event; the test's timeout bounds it
        await asyncio.sleep(0.005)


def wait_until_gone(pid: int) -> None:
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=60)
    assert not alive(pid)


async def test_start_returns_what_the_child_announced_and_leaving_ends_it():
    output: list[str] = []
    async with Processes() as children:
        child = await children.start(spec("serve", "--a", "1"), on_output=output.append)
        assert child.ready["arguments"] == ["--a", "1"]
        assert child.ready["pid"] == child.pid
        assert alive(child.pid)
        await until(lambda: bool(output))
    assert output == ["after"]
    assert child.exit_code == -signal.SIGTERM
    assert not alive(child.pid)


async def test_a_mistake_at_start_is_told_in_the_childs_own_words():
    async with Processes() as children:
        with pytest.raises(FailedPrecondition) as caught:
            await children.start(spec("mistake"))
        assert caught.value.message == "verifier: threads is 0; it must be 1 to 64"
        assert children.children == []


async def test_a_bug_at_start_is_one_line_with_the_exit_code():
    async with Processes() as children:
        with pytest.raises(Internal) as caught:
            await children.start(spec("bug"))
    assert caught.value.message == "verifier ended with exit code 1: ValueError: boom"


async def test_a_module_that_does_not_exist_is_one_line():
    async with Processes() as children:
        with pytest.raises(Internal, match="No module named no_such_service"):
            await children.start(ChildSpec("gateway", "no_such_service"))


async def test_a_killed_start_names_the_signal():
    async with Processes() as children:
        with pytest.raises(Unavailable, match=r"verifier was ended by SIGKILL \(out of memory\?\)"):
            await children.start(spec("suicide"))


async def test_a_child_that_is_never_ready_is_ended():
    async with Processes(start_timeout_s=0.5) as children:
        with pytest.raises(DeadlineExceeded, match=r"was not ready within 0\.5 s"):
            await children.start(spec("silent"))
        assert children.children == []


async def test_a_child_that_ignores_sigterm_is_killed():
    async with Processes(stop_timeout_s=0.2) as children:
        child = await children.start(spec("stubborn"))
    assert child.exit_code == -signal.SIGKILL


async def test_endless_lines_neither_block_the_child_nor_fill_memory():
    lines: list[tuple[str, int]] = []
    async with Processes(on_line=lambda name, line: lines.append((name, len(line)))) as children:
        child = await children.start(spec("chatty"))
        assert child.tail[-1] == "last"
    assert sum(size for _, size in lines) == 3_000_004
    assert max(size for _, size in lines) <= 2 * processes.MAX_LINE_BYTES


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system cannot pin processes")
async def test_a_child_runs_on_the_cores_it_was_given():
    core = available_cores()[-1]
    async with Processes() as children:
        pinned = await children.start(spec("cores", cores=(core,)))
        free = await children.start(spec("cores"))
        assert pinned.ready["cores"] == [core]
        assert tuple(free.ready["cores"]) == available_cores()


async def test_an_error_in_the_body_ends_the_children_and_comes_through():
    started: list[Child] = []

    async def body() -> None:
        async with Processes() as children:
            started.append(await children.start(spec()))
            raise RuntimeError("body")

    with pytest.raises(RuntimeError, match="body"):
        await body()
    assert not alive(started[0].pid)


async def test_a_kept_child_is_started_again_with_the_new_arguments(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "FIRST_BACKOFF_S", 0.01)
    told: list[str] = []
    async with Processes() as children:
        first = await children.start(spec("serve", "--grpc-port", "0"))
        respawn = with_flag(first.spec, "--grpc-port", 7)
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(children.keep(first, respawn, told.append))
            first.signal(signal.SIGKILL)
            await until(lambda: "verifier is back" in told)
            second: Child = children.children[0]
            assert second.pid != first.pid
            assert second.ready["arguments"] == ["--grpc-port", "7"]
            keeper.cancel()
    assert told[0].startswith("verifier was ended by SIGKILL")
    assert not alive(second.pid)


async def test_a_kept_child_that_never_starts_again_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "FIRST_BACKOFF_S", 0.0)
    monkeypatch.setattr(processes, "MAX_RESTARTS_IN_A_ROW", 3)
    told: list[str] = []
    async with Processes() as children:
        child = await children.start(spec())
        child.signal(signal.SIGKILL)
        await children.keep(child, spec("mistake"), told.append)
        assert children.children == []
    assert told[-1] == "verifier failed 3 times in a row and stays down: verifier: threads is 0; it must be 1 to 64"


PARENT = """
import asyncio, sys
from nacre.runtime.processes import ChildSpec, Processes, run_until_signalled
async def main():
    async with Processes(stop_timeout_s=float(sys.argv[2])) as children:
        child = await children.start(ChildSpec("verifier", "pretended_service", (sys.argv[1],)))
        print(child.pid, flush=True)
        await asyncio.sleep(600)
try:
    run_until_signalled(main())
except KeyboardInterrupt:
    print("stopped", flush=True)
    sys.exit(130)
"""


def start_parent(mode: str, stop_timeout_s: float = 60) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-c", textwrap.dedent(PARENT), mode, str(stop_timeout_s)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_to_the_parent_ends_the_child_and_then_the_parent(number: signal.Signals):
    parent, pid = start_parent("serve")
    with parent:
        assert os.getpgid(pid) != os.getpgid(parent.pid), "a terminal's Ctrl-C must reach the parent alone"
        parent.send_signal(number)
        assert parent.wait(timeout=60) == 130
        assert not alive(pid)
        assert parent.stdout is not None
        assert parent.stdout.read() == "stopped\n"


def test_a_second_signal_kills_a_child_that_takes_its_time():
    parent, pid = start_parent("stubborn")
    with parent:
        parent.send_signal(signal.SIGINT)
        time.sleep(0.5)
        # Should it come before the first was noticed, the two are one, and the test takes as long as the stop timeout.
        parent.send_signal(signal.SIGINT)
        assert parent.wait(timeout=120) == 130
        assert not alive(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's leash is Linux's")
def test_a_killed_parent_leaves_no_child():
    parent, pid = start_parent("stubborn")
    with parent:
        parent.kill()
        parent.wait(timeout=60)
        wait_until_gone(pid)
