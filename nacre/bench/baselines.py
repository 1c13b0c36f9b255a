"""Baselines: what is compared, as data. `benchmarks/baselines.toml` has one table per baseline.

Kinds: `nacre` (a session at the verifier, drafted for by a drafter process or not), `lockstep` (a client that drafts
and waits, on its own stream), `transformers` (its own `generate`, in a process of its own, without a network).
A name with a colon is a baseline with an argument: `sync:svip` is `sync` with the pacing policy `svip`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from nacre.errors import InvalidArgument, NotFound
from nacre.pacing import policy_class
from nacre.runtime.settings import DrafterSettings, VerifierSettings, load_settings
from nacre.session import SpeculationMode

KINDS = ("nacre", "lockstep", "transformers")
STYLES = ("sync", "pearl")
#: Parts that `verifier_service.ablated` leaves out.
PARTS = ("self-decode", "late-match")
#: Ways of transformers' that `nacre.bench.yardsticks` knows.
WAYS = ("plain", "assisted", "lookup", "batching")
#: What every speed-up is counted from.
REFERENCE = "ar"
_CHOICES = {
    "kind": KINDS,
    "speculation": tuple(mode.value for mode in SpeculationMode),
    "style": ("", *STYLES),
    "way": ("", *WAYS),
    "without": ("", *PARTS),
}
#: What keys that are no text must be.
_TYPES: dict[str, tuple[type, str]] = {
    "drafter": (dict, "a table of settings"),
    "verifier": (dict, "a table of settings"),
    "local": (bool, "true or false"),
    "predicts": (bool, "true or false"),
}


@dataclass(frozen=True, slots=True)
class Baseline:
    """One way to generate. `drafter` and `verifier` are settings of those services; no `drafter`: nobody drafts.

    `predicts`: the client says what it expects, most of which comes true (`given.expected_answer`).
    """

    name: str
    about: str
    kind: str = "nacre"
    speculation: str = "latency"
    drafter: Mapping[str, Any] | None = None
    without: str = ""  # a part of the verifier that is left out; see `verifier_service.ablated`
    verifier: Mapping[str, Any] = field(default_factory=dict)
    style: str = ""
    way: str = ""
    policy: str = ""
    local: bool = False  # only where there is no network
    predicts: bool = False

    @property
    def mode(self) -> SpeculationMode:
        return SpeculationMode(self.speculation)

    @property
    def exact(self) -> bool:
        """Whether its text must be the reference's, token by token; transformers draws other noise."""
        return self.kind != "transformers"

    @property
    def needs_wire(self) -> bool:
        return self.kind != "transformers" and not self.local


def folder() -> Path:
    """Where scenarios and baselines lie: ./benchmarks, else beside the package. Raises NotFound."""
    for place in (Path("benchmarks"), Path(__file__).resolve().parents[2] / "benchmarks"):
        if (place / "baselines.toml").is_file():
            return place
    raise NotFound("there is no benchmarks/baselines.toml here; run `nacre bench` in a checkout of Nacre's source")


def load_baselines(path: Path | None = None) -> dict[str, Baseline]:
    """Name -> baseline. Raises InvalidArgument naming table and key."""
    path = path or folder() / "baselines.toml"
    return {name: _baseline(path, name, table) for name, table in read_toml(path).items()}


def chosen_baselines(known: Mapping[str, Baseline], names: Sequence[str]) -> list[Baseline]:
    """The named baselines, the reference first whether named or not. Raises InvalidArgument for an unknown name."""
    found = [known[REFERENCE]]
    for name in names:
        base, _, policy = name.partition(":")
        if base not in known:
            raise InvalidArgument(f"baseline {name!r} is unknown; there are {', '.join(sorted(known))}")
        if policy and known[base].style != "sync":
            raise InvalidArgument(f"baseline {name!r} names a policy; only sync takes one, as in sync:fixed")
        if policy:
            policy_class(policy)  # an unknown one is an error now, not in an hour
        baseline = replace(known[base], name=name, policy=policy) if policy else known[base]
        if baseline not in found:
            found.append(baseline)
    return found


def runs_in(baseline: Baseline, kind: str) -> bool:
    """Whether a scenario of that kind can measure it.

    Many sessions at a time need a verifier of Nacre, over the wire that all have, or transformers' batching; one
    session at a time is what transformers' batching is not for.
    """
    if kind == "throughput":
        return baseline.way == "batching" or (baseline.kind == "nacre" and not (baseline.local or baseline.predicts))
    return baseline.way != "batching"


def check_kinds(scenario: str, kind: str, found: Iterable[Baseline], known: Mapping[str, Baseline]) -> None:
    """Raises InvalidArgument for a baseline that a scenario of that kind cannot measure, naming those it can."""
    for baseline in found:
        if not runs_in(baseline, kind):
            able = ", ".join(sorted(name for name, other in known.items() if runs_in(other, kind)))
            raise InvalidArgument(
                f"scenario {scenario} (kind {kind}) cannot measure baseline {baseline.name!r}; it can measure {able}"
            )


def read_toml(path: Path) -> dict[str, Any]:
    """Raises NotFound or InvalidArgument."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidArgument(f"{path} cannot be read: {error}") from None


def flags_of(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Command-line flags of a service's settings."""
    return tuple(part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value)))


def _baseline(path: Path, name: str, table: Any) -> Baseline:
    where = f"[{name}] in {path}"
    if not isinstance(table, dict):
        raise InvalidArgument(f"{where} is no table")
    known = {item.name for item in fields(Baseline)} - {"name", "policy"}
    unknown = set(table) - known
    if unknown:
        raise InvalidArgument(f"{where} has {min(unknown)!r}; a baseline has {', '.join(sorted(known))}")
    for key, value in table.items():
        expected, told = _TYPES.get(key, (str, "a text in quotes"))
        if not isinstance(value, expected):
            raise InvalidArgument(f"{where}: {key} is {value!r}; it must be {told}")
    baseline = Baseline(name, **{"about": "", **table})
    for key, choices in _CHOICES.items():
        if getattr(baseline, key) not in choices:
            raise InvalidArgument(f"{where}: {key} is {getattr(baseline, key)!r}; it must be one of {choices}")
    for key, kind in (("style", "lockstep"), ("way", "transformers")):
        if bool(getattr(baseline, key)) != (baseline.kind == kind):
            raise InvalidArgument(
                f"{where}: kind is {baseline.kind!r} and {key} {getattr(baseline, key)!r}; "
                f"a baseline of kind {kind} has a {key}, no other does"
            )
    _check_settings(where, "verifier", VerifierSettings, baseline.verifier)
    _check_settings(where, "drafter", DrafterSettings, baseline.drafter or {})
    return baseline


def _check_settings(where: str, service: str, kind: type, settings: Mapping[str, Any]) -> None:
    known = {item.name for item in fields(kind)}
    unknown = set(settings) - known
    if unknown:
        raise InvalidArgument(f"{where}: {service} has {min(unknown)!r}; it may have {', '.join(sorted(known))}")
    load_settings(kind, service, flags_of(settings))
