"""Help: there for every command, with examples, and at once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.cli.conftest import Nacre

COMMANDS = [
    "demo",
    "up",
    "generate",
    "serve",
    "models",
    "models show",
    "models inflate",
    "train demo-pair",
    "train text-draft",
    "train acceptance-head",
    "config show",
    "store stats",
    "store export",
    "store import",
    "store purge",
    "store key",
    "store build",
    "simulate",
    "doctor",
    "version",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(nacre: Nacre, command: str):
    outcome = nacre(*command.split(), "--help")
    assert outcome.code == 0
    assert outcome.err == ""
    examples = [line for line in outcome.out.splitlines() if line.lstrip().startswith(("nacre ", "NACRE_"))]
    assert any(f"nacre {command}" in line for line in examples), outcome.out


def test_without_arguments_the_overview_is_shown(nacre: Nacre):
    bare, asked = nacre(), nacre("--help")
    assert bare == asked
    assert bare.code == 0
    for command in COMMANDS:
        assert f"\n  {command.split()[0]} " in bare.out


def test_flags_have_the_same_name_and_meaning_everywhere(nacre: Nacre):
    shared = {"--target", "--draft", "--device", "--threads", "--seed", "--dtype"}
    for command in ("up", "demo"):
        out = nacre(command, "--help").out
        assert all(f"{flag} " in out for flag in shared)
    for command in ("generate", "train demo-pair", "models inflate"):
        assert "--seed " in nacre(*command.split(), "--help").out


def test_help_loads_nothing_heavy():
    script = """
import json, sys
from nacre.cli import main
main(["--help"])
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stderr))
    assert "nacre.cli.app" in loaded
    heavy = {"torch", "transformers", "grpc", "numpy", "asyncio", "rich", "tokenizers", "nacre.runtime.settings"}
    assert heavy & loaded == set()


def test_a_services_own_help_is_passed_on(nacre_process: Nacre):
    outcome = nacre_process("serve", "drafter", "--help")
    assert outcome.code == 0
    assert "--grpc-port" in outcome.out
    assert "--least-survival" in outcome.out
