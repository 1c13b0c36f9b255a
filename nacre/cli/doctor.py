"""`nacre doctor`: is this machine ready? One line per check, each with its remedy."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.util import find_spec

import typer

from nacre.cli import EXIT_FAILED
from nacre.cli import options as flags

_LEAST_PYTHON = (3, 11)
_LEAST_FREE_MB = 1500
_PORTS = {"--http-port": 8000, "--grpc-port": 8001}


class Verdict(StrEnum):
    ok = "ok"
    warn = "warn"
    fail = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check; `remedy` says what to do unless all is well."""

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""


def doctor(as_json: flags.Json = False) -> None:
    """Check this machine: Python, kernels, libraries, cores, memory, bundled models, ports. Exit code 1 if one fails.

    \b
    nacre doctor
    nacre doctor --json
    """
    from nacre.cli.output import print_json

    findings: list[Finding] = []
    for check in _CHECKS:
        finding = check()
        findings.append(finding)
        if not as_json:
            print(_line(finding), flush=True)
    failed = any(finding.verdict is Verdict.fail for finding in findings)
    if as_json:
        print_json({"ok": not failed, "checks": [asdict(finding) for finding in findings]})
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _line(finding: Finding) -> str:
    remedy = f"  ->  {finding.remedy}" if finding.remedy else ""
    return f"{finding.verdict.value:<5}{finding.check:<15}{finding.found}{remedy}"


def _python() -> Finding:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < _LEAST_PYTHON:
        return Finding("python", Verdict.fail, found, "install Python 3.11 or newer; make PYTHON=python3.11")
    return Finding("python", Verdict.ok, found)


def _nacre() -> Finding:
    from nacre.cli.version import installed

    found = installed("nacre")
    if found is None:
        return Finding("nacre", Verdict.warn, "not installed, run from its source", "run: make setup")
    return Finding("nacre", Verdict.ok, found)


def _torch() -> Finding:
    from nacre.cli.version import installed

    found = {name: installed(name) for name in ("torch", "transformers", "safetensors")}
    missing = [name for name, version in found.items() if version is None]
    if missing:
        return Finding(
            "models",
            Verdict.warn,
            f"{', '.join(missing)} missing: this machine can be a client or a lookup drafter only",
            "to run models: pip install 'nacre[model]'",
        )
    return Finding("models", Verdict.ok, ", ".join(f"{name} {version}" for name, version in found.items()))


def _compiler() -> Finding:
    found = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if found is None:
        return Finding("compiler", Verdict.warn, "none found", "install gcc or clang to build the CPU kernels")
    return Finding("compiler", Verdict.ok, found)


def _kernels() -> Finding:
    if find_spec("torch") is None:
        return Finding("kernels", Verdict.ok, "not needed without torch")
    from nacre_kernels import available, describe  # type: ignore[import-not-found,unused-ignore]

    if available():
        return Finding("kernels", Verdict.ok, describe())
    return Finding("kernels", Verdict.warn, describe(), "exact but slow; install a C compiler, then: make setup")


def _gateway() -> Finding:
    missing = [name for name in ("starlette", "uvicorn", "pydantic", "jinja2") if find_spec(name) is None]
    if missing:
        return Finding("gateway", Verdict.warn, f"{', '.join(missing)} missing", "run: pip install 'nacre[gateway]'")
    return Finding("gateway", Verdict.ok, "HTTP libraries are there")


def _cores() -> Finding:
    from nacre.runtime.processes import available_cores

    count = len(available_cores()) or os.cpu_count() or 1
    if count < 2:
        return Finding("cores", Verdict.warn, "1", "verifier and drafter share it; speculation pays from 2 cores up")
    return Finding("cores", Verdict.ok, str(count))


def _memory() -> Finding:
    free_mb = _available_mb()
    if free_mb is None:
        return Finding("memory", Verdict.warn, "unknown", "the bundled pair needs about 1.5 GB in all")
    if free_mb < _LEAST_FREE_MB:
        return Finding("memory", Verdict.warn, f"{free_mb} MB available", f"free {_LEAST_FREE_MB - free_mb} MB more")
    return Finding("memory", Verdict.ok, f"{free_mb} MB available")


def _available_mb() -> int | None:
    if find_spec("psutil") is not None:
        import psutil

        return int(psutil.virtual_memory().available // 1_000_000)
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1_000_000
    except (ValueError, OSError, AttributeError):
        return None


def _bundled() -> Finding:
    from nacre.cli.model_files import read_model_files
    from nacre.errors import NacreError
    from nacre.models import BUNDLED, bundled

    try:
        files = [read_model_files(bundled(name)) for name in BUNDLED]
        if find_spec("torch") is not None and find_spec("transformers") is not None:
            from nacre.engine import load_model

            for each in files:
                load_model(str(each.path))
    except NacreError as error:
        remedy = "reinstall nacre, or train the pair (nacre train demo-pair), or use --target and --draft"
        return Finding("bundled pair", Verdict.fail, error.message, remedy)
    told = ", ".join(f"{each.path.name} {each.parameters / 1e6:.1f} M" for each in files)
    return Finding("bundled pair", Verdict.ok, told)


def _cache() -> Finding:
    from nacre.cli.model_files import cache_folder

    folder = cache_folder()
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return Finding("cache", Verdict.fail, f"{folder} cannot be written", "set NACRE_CACHE to a directory of yours")
    free_mb = shutil.disk_usage(existing).free // 1_000_000
    if free_mb < _LEAST_FREE_MB:
        return Finding("cache", Verdict.warn, f"{folder}: {free_mb} MB free", "the demo writes about 230 MB once")
    return Finding("cache", Verdict.ok, f"{folder} ({free_mb} MB free)")


def _ports() -> Finding:
    from nacre.cli.stack import check_port_free
    from nacre.errors import NacreError

    taken = []
    for flag, port in _PORTS.items():
        try:
            check_port_free(flag, port)
        except NacreError:
            taken.append((flag, port))
    if taken:
        found = ", ".join(str(port) for _, port in taken) + " in use"
        remedy = "fine if that is nacre up; else: nacre up " + " ".join(f"{flag} 0" for flag, _ in taken)
        return Finding("ports", Verdict.warn, found, remedy)
    return Finding("ports", Verdict.ok, ", ".join(str(port) for port in _PORTS.values()) + " free")


_CHECKS: tuple[Callable[[], Finding], ...] = (
    _python,
    _nacre,
    _torch,
    _compiler,
    _kernels,
    _gateway,
    _cores,
    _memory,
    _bundled,
    _cache,
    _ports,
)
