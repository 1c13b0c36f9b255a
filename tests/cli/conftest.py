"""Runs the command as a user does, in a folder of its own and without the settings of whoever runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from nacre.cli import main
from tests.tiny_models import tiny_pair  # noqa: F401  a fixture


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    def mistake(self) -> str:
        """The message, after checking that it is all there is: exit code 2, one line, nothing on standard output."""
        assert self.code == 2, self
        assert self.out == ""
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("nacre: ")
        return self.err.removeprefix("nacre: ").rstrip("\n")


Nacre = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("NACRE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NACRE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    monkeypatch.setenv("COLUMNS", "100")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def nacre(capfd: pytest.CaptureFixture[str]) -> Nacre:
    """Runs a command in this process: fast."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture
def nacre_process() -> Nacre:
    """Runs a command as a process of its own: what replaces its process, or must be seen from outside."""

    def run(*arguments: object) -> Outcome:
        command = [sys.executable, "-m", "nacre.cli", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run
