"""The results file: written whole or not at all, and only continued by the same code, dials and kind of machine."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nacre.bench.samples import Sample
from nacre.errors import FailedPrecondition, Internal, InvalidArgument, NotFound, ResourceExhausted

FORMAT = 1
#: `scikit-learn` changes what transformers' assisted generation does where it is installed.
LIBRARIES = (
    "nacre",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "grpcio",
    "protobuf",
    "uvloop",
    "psutil",
    "scikit-learn",
)
#: What is new is written this often, and at the end; but writing a long run's file takes no more than this share of it.
SAVE_EVERY_S, MOST_SAVING = 5.0, 0.02
#: Where the source of what is measured lies, and what of it counts.
_PACKAGES = ("nacre", "verifier_service", "drafter_service", "kernels")
_SOURCES = ("*.py", "*.c", "*.h", "*.proto", "*.toml")
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class Results:
    """What a run has measured. `identity` is what must be equal for a run to be continued."""

    identity: dict[str, Any]
    path: Path | None = None
    started: str = field(default_factory=lambda: now())
    finished: str | None = None
    fingerprint: str = ""
    samples: dict[tuple[Any, ...], Sample] = field(default_factory=dict)
    #: Everything that is no sample, by name: tuned lengths, loads, micro-benchmarks.
    kept: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)
    #: Seconds that each step of the run took, resumed runs together; starts of processes are part of the steps.
    took_s: dict[str, float] = field(default_factory=dict)
    _saved_at: float = 0.0
    _saving_s: float = 0.0  # what that took

    def add(self, sample: Sample) -> None:
        self.samples[sample.key] = sample
        self._save_in_time()

    def keep(self, name: str, value: Any) -> None:
        self.kept[name] = value
        self._save_in_time()

    def with_prefix(self, prefix: str) -> list[Any]:
        """What was kept under names that begin so."""
        return [value for name, value in self.kept.items() if name.startswith(prefix)]

    def check_fingerprint(self, fingerprint: str) -> None:
        """Raises FailedPrecondition if samples come from verifiers that need not write the same text."""
        if self.fingerprint and self.fingerprint != fingerprint:
            raise FailedPrecondition(
                f"the verifier's system fingerprint is {fingerprint}, the results' is {self.fingerprint}: start afresh"
            )
        self.fingerprint = fingerprint

    def check_text(self, sample: Sample, reference: str) -> None:
        """Raises Internal if the text is not the reference's, whatever the link was."""
        place = (sample.scenario, sample.temperature, sample.prompt, sample.seed)
        for other in self.samples.values():
            same = (other.scenario, other.temperature, other.prompt, other.seed) == place
            if same and other.baseline == reference and other.tokens != sample.tokens:
                raise Internal(
                    f"{sample.baseline} wrote another text than {reference} for prompt {sample.prompt}, seed "
                    f"{sample.seed}, temperature {sample.temperature:g}, {sample.rtt_ms:g} ms: exactness is broken"
                )

    def as_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "identity": self.identity,
            "started": self.started,
            "finished": self.finished,
            "system_fingerprint": self.fingerprint,
            "hardware": hardware(),
            "peak_memory_mb": self.memory_mb,
            "took_s": self.took_s,
            "summary": self.summary,
            "kept": self.kept,
            "samples": [sample.as_dict() for sample in self.samples.values()],
        }

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Counts the time of a step."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.took_s[step] = round(self.took_s.get(step, 0.0) + time.monotonic() - started, 3)

    @property
    def saved(self) -> bool:
        return self._saved_at > 0

    def save(self) -> None:
        """Writes the file, if there is anything to keep: a reader sees the old one or the new one."""
        if self.path is None or not (self.samples or self.kept):
            return
        began = time.monotonic()
        write_whole(self.path, json.dumps(self.as_dict(), allow_nan=False) + "\n")
        self._saved_at = time.monotonic()
        self._saving_s = self._saved_at - began

    def _save_in_time(self) -> None:
        if time.monotonic() - self._saved_at > max(SAVE_EVERY_S, self._saving_s / MOST_SAVING):
            self.save()


def check_place(path: Path, flag: str) -> None:
    """Raises InvalidArgument before anything runs if `path`, given with that flag, could not be written in the end."""
    if path.exists() and not path.is_file():
        raise InvalidArgument(f"{flag} is {path}, which is there and no file; name a file")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InvalidArgument(f"{path.parent} is no folder that can be written to; name another {flag}")


def write_whole(path: Path, content: str | bytes) -> None:
    """Raises ResourceExhausted where it cannot be written; then what was there before is there still."""
    making = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        making.write_bytes(content.encode() if isinstance(content, str) else content)
        making.replace(path)
    except OSError as error:
        raise ResourceExhausted(f"cannot write {path} ({error.strerror or error}); name another file") from None
    finally:
        making.unlink(missing_ok=True)


def resumed(path: Path, identity: Mapping[str, Any]) -> Results:
    """The results in `path`, to be gone on with. Raises NotFound or FailedPrecondition saying what differs."""
    raw = read_results(path)
    there, here = raw["identity"], json.loads(json.dumps(identity))
    for key in sorted(set(there) | set(here)):
        if there.get(key) != here.get(key):
            raise FailedPrecondition(
                f"{path} was measured with another {key} ({_short(there.get(key))} there, {_short(here.get(key))} "
                "here); figures of the two do not compare: run again without --resume"
            )
    results = Results(dict(identity), path, started=raw["started"], fingerprint=raw["system_fingerprint"])
    results.kept = raw["kept"]
    results.took_s, results.memory_mb = raw["took_s"], raw["peak_memory_mb"]
    for sample in map(Sample.from_dict, raw["samples"]):
        results.samples[sample.key] = sample
    return results


def read_results(path: Path) -> dict[str, Any]:
    """A results file as it lies there. Raises NotFound or FailedPrecondition."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist; name the file that an earlier run has written") from None
    except (OSError, ValueError) as error:
        raise FailedPrecondition(f"{path} is no results file: {error}") from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT or "identity" not in raw:
        raise FailedPrecondition(f"{path} is no results file of this version (format {FORMAT})")
    return raw


def source_state(root: Path = _ROOT) -> dict[str, str]:
    """The commit the code is of, and a hash of what has changed since ("" if nothing); empty outside a checkout.

    Files of the packages that git does not know yet have changed, too.
    """

    def git(*arguments: str) -> bytes:
        done = subprocess.run(  # noqa: S603
            ["git", "-C", str(root), *arguments],  # noqa: S607
            capture_output=True,
            check=False,
            timeout=30,
        )
        return done.stdout if done.returncode == 0 else b""

    new = [f"{package}/{kind}" for package in _PACKAGES for kind in _SOURCES]
    try:
        commit = git("rev-parse", "HEAD").decode().strip()
        changed = git("diff", "HEAD", "--", *_SOURCES)
        for name in git("ls-files", "-z", "--others", "--exclude-standard", "--", *new).split(b"\0")[:-1]:
            changed += name + b"\0" + _content(root / os.fsdecode(name))
    except (OSError, subprocess.TimeoutExpired):
        return {"commit": "", "dirty": ""}
    return {"commit": commit, "dirty": hashlib.sha256(changed).hexdigest()[:12] if changed else ""}


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # gone meanwhile, or a link to nothing
        return b""


def machine() -> dict[str, Any]:
    """What of the hardware must be equal for figures to compare."""
    return {"processor": _processor(), "cores": os.cpu_count()}


def hardware() -> dict[str, Any]:
    return {
        **machine(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "load": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
