"""The dials of a simulated deployment: what machines, links, drafters and load are like.

Rule: a dial that cannot be is refused by name and value before anything runs. Times are milliseconds, as people
measure them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from nacre.errors import InvalidArgument
from nacre.runtime.settings import DrafterSettings, VerifierSettings
from nacre.session import SpeculationMode
from nacre.sim.dice import Dice
from nacre.sim.hosted import PassTime

#: What the rules' dials are set to: what the services' settings are.
_VERIFIER, _DRAFTER = VerifierSettings(), DrafterSettings()

POLICIES = ("nacre", "plain", "sync", "pearl", "pipelined")
MODES = (SpeculationMode.LATENCY.value, SpeculationMode.THROUGHPUT.value)  # off is the policy plain

#: (count, milliseconds) pairs: rows of a pass, nodes of a draft step.
Table = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Spread:
    """A value per session: `low` for all if equal to `high`, else drawn between them, evenly on the log scale."""

    low: float
    high: float

    def draw(self, dice: Dice) -> float:
        if self.low == self.high:
            return self.low
        if self.low <= 0:
            return dice.between(self.low, self.high)
        return self.low * (self.high / self.low) ** dice.unit()

    def __str__(self) -> str:
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Dials:
    """One deployment under one load.

    Machines. `pass_ms` is V: (rows, ms) of a verify pass, `draft_ms` is d: (nodes, ms) of a draft step; both linear
    between the points and beyond the last two, prompts included. `overhead_ms` is added to every pass and `commit_ms`
    per session in it; `verifier_message_ms` and `drafter_message_ms` is what a message in or out takes of their cores.
    `drafter_speeds`: each drafter takes one of these times `draft_ms`, by chance.

    Guesses. `acceptance[k]` is the chance that the right token is among the best k + 1 guesses, at every position
    alike; `trace` names a recorded trace instead.

    Links. `rtt_ms` there and back, per session, with up to `jitter_ms` more each way; `kbit_per_s` each way, 0 for
    unlimited. `device`: the client drafts on its own stream; else drafters stand beside the client.

    Load. `requests` in all, `concurrency` of them at a time (0: no bound), coming at `arrivals_per_s` (0: all at
    once), each with `prompt_tokens` and `output_tokens`.

    Fleet. `verifiers`; `drafters_per_session`, each a process of its own, or out of `drafter_pool` processes if that
    is not 0. Each verifier but the last dies with chance `crash_share` within the first `span_s`. Streams are cut
    `cuts_per_minute` times per session on average.

    Rules. `policy` is what ships (nacre), decoding alone (plain), or what it is compared with (sync, pearl,
    pipelined; `gamma` guesses a message, as far as a pass and the window can take them). `mode` is what requests ask
    for as `speculation.mode`. The others are the services' settings of the same names.
    """

    pass_ms: Table = ((1, 27.1), (8, 30.8), (16, 49.0))
    draft_ms: Table = ((1, 2.0),)
    overhead_ms: float = 0.0
    commit_ms: float = 0.0
    verifier_message_ms: float = 0.0
    drafter_message_ms: float = 0.0
    drafter_speeds: tuple[float, ...] = (1.0,)
    acceptance: tuple[float, ...] = (0.75, 0.87, 0.91, 0.93)
    trace: str = ""
    rtt_ms: Spread = Spread(0.0, 0.0)
    jitter_ms: float = 0.0
    kbit_per_s: float = 0.0
    device: bool = False
    requests: int = 24
    concurrency: int = 1
    arrivals_per_s: float = 0.0
    prompt_tokens: Spread = Spread(128, 128)
    output_tokens: Spread = Spread(96, 96)
    verifiers: int = 1
    drafters_per_session: int = 1
    drafter_pool: int = 0
    crash_share: float = 0.0
    cuts_per_minute: float = 0.0
    span_s: float = 0.0
    policy: str = "nacre"
    mode: str = MODES[0]
    gamma: int = 4
    pass_rows: int = _VERIFIER.pass_rows
    session_rows: int = _VERIFIER.session_rows
    window_nodes: int = _VERIFIER.window_nodes
    batch_nodes: int = _DRAFTER.batch_nodes
    least_survival: float = _DRAFTER.least_survival
    least_sent: float = _DRAFTER.least_sent
    pauses: bool = True
    token_bytes: int = 2
    verifier_dollars_per_hour: float = 0.0
    drafter_dollars_per_hour: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("pass_ms", "draft_ms"):
            _check_table(name, getattr(self, name))
        for name, least, most in _BOUNDS:
            _check_bounds(name, getattr(self, name), least, most)
        for name, least in _LEAST_BUT_0.items():
            if 0 < getattr(self, name) < least:
                raise InvalidArgument(
                    f"dial {name} is {getattr(self, name):g}; it must be 0 or at least {least:g}", param=name
                )
        _check_acceptance(self.acceptance)
        if not self.drafter_speeds or not all(_SMALL <= speed <= _MANY for speed in self.drafter_speeds):
            raise InvalidArgument(
                f"dial drafter_speeds is {list(self.drafter_speeds)}; it needs factors greater than 0, {_SMALL:g} to "
                f"{_plainly(_MANY)}",
                param="drafter_speeds",
            )
        for name, known in (("policy", POLICIES), ("mode", MODES)):
            if getattr(self, name) not in known:
                raise InvalidArgument(
                    f"dial {name} is {getattr(self, name)!r}; it must be one of {', '.join(known)}", param=name
                )
        if self.lock_step and self.rows_for_one < 2:
            raise InvalidArgument(
                f"dial {'pass_rows' if self.pass_rows < 2 else 'session_rows'} is 1; policy {self.policy} waits for "
                "guesses, and they need a row beside the tip's: at least 2"
            )
        if self.device and (self.drafter_pool or self.drafters_per_session != 1):
            raise InvalidArgument("dial device is true: then drafter_pool must be 0 and drafters_per_session 1")
        if self.cuts_per_minute and self.lock_step:
            raise InvalidArgument(
                f"dial cuts_per_minute needs policy nacre or plain; {self.policy} knows no lost streams"
            )
        if self.crash_share and not self.span_s:
            raise InvalidArgument("dial crash_share needs span_s, the seconds in the course of which they die")
        if self.crash_share and (self.lock_step or self.verifiers < 2):
            raise InvalidArgument(
                "dial crash_share needs policy nacre or plain, and at least 2 verifiers to fail over to"
            )

    @property
    def lock_step(self) -> bool:
        return self.policy in ("sync", "pearl", "pipelined")

    @property
    def rows_for_one(self) -> int:
        """Most rows of one session in a pass."""
        return min(self.session_rows, self.pass_rows)

    @property
    def chunk_nodes(self) -> int:
        """Guesses a message of the policies in lock-step: no more than the verifier computes and holds."""
        return min(self.gamma, self.rows_for_one - 1, self.window_nodes)

    @property
    def pass_time(self) -> PassTime:
        return PassTime(tuple((rows, ms / 1e3) for rows, ms in self.pass_ms))

    def draft_time(self, speed: float) -> PassTime:
        return PassTime(tuple((nodes, ms * speed / 1e3) for nodes, ms in self.draft_ms))


#: Dial, and the least and most it can be.
_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("overhead_ms", 0, 1e6),
    ("commit_ms", 0, 1e6),
    ("verifier_message_ms", 0, 1e6),
    ("drafter_message_ms", 0, 1e6),
    ("rtt_ms", 0, 1e6),
    ("jitter_ms", 0, 1e6),
    ("kbit_per_s", 0, 1e9),
    ("requests", 1, 10_000_000),
    ("concurrency", 0, 10_000_000),
    ("arrivals_per_s", 0, 1e9),
    ("prompt_tokens", 1, 1_000_000),
    ("output_tokens", 1, 1_000_000),
    ("verifiers", 1, 100_000),
    ("drafters_per_session", 0, 8),
    ("drafter_pool", 0, 1_000_000),
    ("crash_share", 0, 0.9),
    ("cuts_per_minute", 0, 600),
    ("span_s", 0, 1e9),
    ("gamma", 1, 256),
    ("pass_rows", 1, 4096),
    ("session_rows", 1, 1024),
    ("window_nodes", 1, 1024),
    ("batch_nodes", 1, 256),
    ("least_survival", 0, 1),
    ("least_sent", 0, 1),
    ("token_bytes", 1, 5),
    ("verifier_dollars_per_hour", 0, 1e6),
    ("drafter_dollars_per_hour", 0, 1e6),
    ("seed", 0, (1 << 63) - 1),
)
#: Dials of which 0 means something of its own: the least that they can be otherwise.
_LEAST_BUT_0 = {"kbit_per_s": 1e-3, "arrivals_per_s": 1e-6}
#: Nothing takes less than a nanosecond, or more than a fortnight; no pass has more rows.
_SMALL, _LONG_MS, _MANY = 1e-6, 1e9, 1_000_000


def load_dials(path: Path) -> tuple[Dials, str, dict[str, Any]]:
    """Reads a scenario file: its dials, its `about` line, and its `sweep` table (dial -> values).

    A trace is looked for beside the file. Raises InvalidArgument.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidArgument(f"there is no scenario {path}") from None
    except (OSError, ValueError) as error:  # no TOML, no text, a number of thousands of digits
        raise InvalidArgument(f"{path} cannot be read as a scenario: {error}") from None
    about = str(content.pop("about", ""))
    sweep = content.pop("sweep", {})
    if not isinstance(sweep, dict):
        raise InvalidArgument(f"{path}: sweep must be a table of dials and their values", param="sweep")
    if isinstance(content.get("trace"), str) and content["trace"] and not Path(content["trace"]).is_absolute():
        content["trace"] = str(path.parent / content["trace"])
    return with_dials(Dials(), content), about, sweep


def with_dials(dials: Dials, changes: Mapping[str, Any]) -> Dials:
    """`dials` with some of them set anew, from plain values (TOML's). Raises InvalidArgument naming the dial."""
    return replace(dials, **{_known(name): _value(_known(name), value) for name, value in changes.items()})


def _known(name: str) -> str:
    names = [field.name for field in fields(Dials)]
    for candidate in (name, f"{name}_ms"):
        if candidate in names:
            return candidate
    raise InvalidArgument(f"there is no dial {name!r}; there are {', '.join(names)}", param=name)


def _value(name: str, value: Any) -> Any:
    """A plain value as the dial's own type."""
    default = next(field.default for field in fields(Dials) if field.name == name)
    try:
        if name in ("pass_ms", "draft_ms"):
            points = value if isinstance(value, list | tuple) else ((1, value),)
            return tuple((_whole(count), _number(ms)) for count, ms in map(_pair, points))
        if name in ("acceptance", "drafter_speeds"):
            return tuple(_number(item) for item in (value if isinstance(value, list | tuple) else [value]))
        if isinstance(default, Spread):
            low, high = _pair(value) if isinstance(value, list | tuple) else (value, value)
            return Spread(_number(low), _number(high))
        if isinstance(default, int) and not isinstance(default, bool):
            return _whole(value)
        if isinstance(default, float):
            return _number(value)
        if not isinstance(value, type(default)):
            raise TypeError
        return value
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgument(f"dial {name} is {value!r}; {_SHAPES.get(name, _shape(default))}", param=name) from None


_SHAPES = {
    "pass_ms": "it must be a list of [rows, milliseconds]",
    "draft_ms": "it must be milliseconds, or a list of [nodes, milliseconds]",
    "acceptance": "it must be a list of chances, one per rival guess",
    "drafter_speeds": "it must be a list of factors",
}


def _shape(default: Any) -> str:
    match default:
        case bool():
            return "it must be true or false"
        case int():
            return "it must be a whole number"
        case Spread():
            return "it must be a number or [least, most]"
        case str():
            return "it must be text"
        case _:
            return "it must be a number"


def _pair(value: Any) -> tuple[Any, Any]:
    """Text of two letters could be taken for one, too."""
    if not isinstance(value, list | tuple):
        raise TypeError
    first, second = value
    return first, second


def _number(value: Any) -> float:
    """A number, or text that spells one in a way that TOML does not know, as `.5` does."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = _number(value)
    if int(number) != number:
        raise ValueError
    return int(number)


def _check_bounds(name: str, value: float | Spread, least: float, most: float) -> None:
    low, high = (value.low, value.high) if isinstance(value, Spread) else (value, value)
    if not (least <= low and least <= high):  # so that what is no number at all is refused
        what = f"at least {_plainly(least)}" if most >= 1e5 else f"{_plainly(least)} to {_plainly(most)}"
        raise InvalidArgument(f"dial {name} is {value}; it must be {what}", param=name)
    if low > most or high > most:
        raise InvalidArgument(f"dial {name} is {value}; it must be at most {_plainly(most)}", param=name)
    if low > high:
        raise InvalidArgument(f"dial {name} is [{low:g}, {high:g}]; the least comes first", param=name)


def _check_table(name: str, table: Table) -> None:
    what = "rows" if name == "pass_ms" else "nodes"
    if not table:
        raise InvalidArgument(f"dial {name} is empty; it needs at least one point [{what}, milliseconds]", param=name)
    before_count, before_ms = 0, 0.0
    for count, ms in table:
        if not before_count < count <= _MANY:
            raise InvalidArgument(
                f"dial {name} has {count} {what} after {before_count}; they must grow from 1, up to {_plainly(_MANY)}",
                param=name,
            )
        if not _SMALL <= ms <= _LONG_MS:
            raise InvalidArgument(
                f"dial {name} has {ms:g} ms for {count} {what}; it must be greater than 0, {_SMALL:g} to {_LONG_MS:g}",
                param=name,
            )
        if ms < before_ms:
            raise InvalidArgument(
                f"dial {name} has {ms:g} ms for {count} {what} and {before_ms:g} for {before_count}; "
                "more must not take less time",
                param=name,
            )
        before_count, before_ms = count, ms


def _check_acceptance(reached: tuple[float, ...]) -> None:
    if not reached:
        raise InvalidArgument("dial acceptance is empty; it needs at least one chance", param="acceptance")
    before = 0.0
    for index, chance in enumerate(reached):
        if not before <= chance <= 1:
            raise InvalidArgument(
                f"dial acceptance has {chance:g} for the best {index + 1} guesses after {before:g}; chances must not "
                "fall and lie in 0 to 1",
                param="acceptance",
            )
        before = chance


def _plainly(bound: float) -> str:
    return f"{int(bound):,}" if bound >= 1000 else f"{bound:g}"
