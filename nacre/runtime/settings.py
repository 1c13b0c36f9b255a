"""Settings: one frozen dataclass per service, parsed once at the edge.

Layers, later ones win: defaults < TOML file < NACRE_<SERVICE>_<NAME> environment < command-line flags. Unknown keys are
errors, and every value remembers where it came from (`nacre config show`). Each value has its bounds; two values
that contradict each other are an error that names both.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_type_hints

from nacre.errors import InvalidArgument

T = TypeVar("T")


def setting(default: Any, text: str, *, least: float | None = None, most: float | None = None) -> Any:
    """A dataclass field with its help text and bounds."""
    return field(default=default, metadata={"help": text, "least": least, "most": most})


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two settings that cannot both be as they are: `holds(settings)` tells, `why` ends with what to change."""

    one: str
    other: str
    holds: Callable[[Any], bool]
    why: str


_ONE_PORT = Contradiction(
    "metrics_port",
    "grpc_port",
    lambda chosen: chosen.metrics_port == chosen.grpc_port != 0,
    "two listeners cannot share a port: change one of them",
)


@dataclass(frozen=True)
class VerifierSettings:
    """The verifier service: owns sessions and the target model."""

    target: str = setting("demo-target", "target model: a directory, a hub id, or the bundled demo-target")
    revision: str = setting("", "revision of a hub model")
    dtype: str = setting("bfloat16", "bfloat16 or float32")
    device: str = setting("cpu", "cpu or cuda[:N]")
    threads: int = setting(1, "compute threads of the engine", least=1, most=1024)
    host: str = setting("127.0.0.1", "address to listen on")
    grpc_port: int = setting(8101, "gRPC port; 0 picks a free one", least=0, most=65535)
    metrics_port: int = setting(0, "port of /metrics; 0 turns it off", least=0, most=65535)
    seed: int = setting(
        0, "seed of the stream from which requests without a seed draw theirs; 0 draws at random", least=0
    )
    max_sessions: int = setting(64, "most sessions open at a time", least=1, most=100_000)
    grace_s: float = setting(30.0, "seconds a session keeps its place without its owner", least=0, most=3600)
    drain_s: float = setting(20.0, "seconds running sessions may take to finish after SIGTERM", least=0, most=3600)
    kv_mb: int = setting(512, "memory for keys and values, MiB", least=1, most=1_000_000)
    chunk_rows: int = setting(256, "most prompt rows in one pass", least=1, most=8192)
    pass_rows: int = setting(32, "most rows of tips and guesses in one pass, over all sessions", least=1, most=4096)
    session_rows: int = setting(16, "most rows of one session in one pass", least=1, most=1024)
    window_nodes: int = setting(512, "most unresolved guesses a drafter may have in flight", least=1, most=1024)
    max_drafters: int = setting(8, "most drafters of one session", least=1, most=64)
    local: str = setting("", "methods without a model that guess in the verifier itself, joined by +; empty: none")
    datastore: str = setting("", "corpus for local rest, made by nacre store build")
    log_level: str = setting("info", "debug, info, warning or error")

    contradictions: ClassVar[tuple[Contradiction, ...]] = (
        _ONE_PORT,
        Contradiction(
            "session_rows",
            "pass_rows",
            lambda chosen: chosen.session_rows > chosen.pass_rows,
            "one session cannot have more rows than the whole pass: lower session_rows or raise pass_rows",
        ),
        Contradiction(
            "local",
            "session_rows",
            lambda chosen: bool(chosen.local) and chosen.session_rows < 2,
            "the tip takes the only row and no guess is ever verified: raise session_rows or leave local empty",
        ),
    )


@dataclass(frozen=True)
class DrafterSettings:
    """The drafter service: joins sessions when told to, and guesses."""

    method: str = setting("model", "where guesses come from: model, lookup or others, fused if joined by +")
    draft: str = setting("demo-draft", "draft model: a directory, a hub id, or the bundled demo-draft")
    datastore: str = setting("", "corpus for method rest, made by nacre store build")
    revision: str = setting("", "revision of a hub model")
    dtype: str = setting("float32", "bfloat16 or float32")
    device: str = setting("cpu", "cpu or cuda[:N]")
    threads: int = setting(1, "compute threads of the draft model", least=1, most=1024)
    host: str = setting("127.0.0.1", "address to listen on")
    grpc_port: int = setting(8201, "gRPC port; 0 picks a free one", least=0, most=65535)
    metrics_port: int = setting(0, "port of /metrics; 0 turns it off", least=0, most=65535)
    max_sessions: int = setting(32, "most sessions drafted for at a time", least=1, most=10_000)
    window_nodes: int = setting(512, "most guesses kept for one session", least=1, most=1024)
    batch_nodes: int = setting(4, "most nodes extended in one draft step", least=1, most=256)
    children: int = setting(4, "most rival guesses at one position", least=1, most=32)
    least_survival: float = setting(
        0.015, "guesses less likely than this are not made; a fifth of it at a distance, less far away", least=0, most=1
    )
    least_sent: float = setting(
        0.02, "guesses less likely than this are kept back for now; less far away", least=0, most=1
    )
    kv_mb: int = setting(256, "memory for the draft model's keys and values, MiB", least=1, most=1_000_000)
    verifiers: tuple[str, ...] = setting(
        (), "addresses it may be told to join, host:port, comma separated; none given: any"
    )
    log_level: str = setting("info", "debug, info, warning or error")

    contradictions: ClassVar[tuple[Contradiction, ...]] = (
        _ONE_PORT,
        Contradiction(
            "least_sent",
            "least_survival",
            lambda chosen: chosen.least_sent < chosen.least_survival,
            "what is never made cannot be sent: raise least_sent or lower least_survival",
        ),
        Contradiction(
            "children",
            "window_nodes",
            lambda chosen: chosen.children > chosen.window_nodes,
            "one position cannot have more guesses than the whole session: lower children or raise window_nodes",
        ),
    )


@dataclass(frozen=True)
class StoreSettings:
    """The store: what was learnt, kept in this process or shared through Redis."""

    url: str = setting("", "redis://host:port/db, rediss://, redis+cluster:// or unix://; empty: see snapshot")
    key_file: str = setting("", "tenant keys, which hide what lies in Redis; needed with a url")
    snapshot: str = setting("", "without url: file that keeps a process's rows over a restart; empty: no store")
    max_rows: int = setting(200_000, "most rows of a store in the process", least=1000, most=100_000_000)
    max_log_tokens: int = setting(
        1_000_000, "most tokens of outputs in a store in the process", least=0, most=1_000_000_000
    )
    log_tenants: tuple[str, ...] = setting(
        (), "tenants whose finished outputs are kept too, comma separated; * is everyone"
    )
    ttl_s: float = setting(
        86_400.0, "seconds after which a row in Redis that nobody writes is gone", least=60, most=10 * 365 * 86_400
    )
    # A store further away than this is no help: no setting lets it hold up sessions for longer.
    timeout_s: float = setting(0.05, "longest a session waits for Redis when it starts", least=0.005, most=0.05)

    contradictions: ClassVar[tuple[Contradiction, ...]] = (
        Contradiction(
            "key_file",
            "url",
            lambda chosen: bool(chosen.key_file) and not chosen.url,
            "keys hide what lies in Redis, and nothing else: set url or leave key_file out",
        ),
        Contradiction(
            "log_tenants",
            "max_log_tokens",
            lambda chosen: bool(chosen.log_tenants) and chosen.max_log_tokens == 0 and not chosen.url,
            "no output could be kept: raise max_log_tokens or leave log_tenants empty",
        ),
    )


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings and, per field, the layer its value came from; `config` is the TOML file that was named, if one was."""

    settings: Any
    origins: Mapping[str, str]
    config: str = ""


def load_settings(kind: type[T], section: str, argv: Sequence[str] | None = None, *, prog: str | None = None) -> Loaded:
    """Parses the layers for one service. Raises InvalidArgument naming the key and its origin; `--help` exits.

    `kind` may have `contradictions`, which are checked too.
    """
    parser = _parser(kind, prog or f"nacre serve {section}")
    flags = vars(parser.parse_args(argv))
    config = flags.pop("config") or os.environ.get("NACRE_CONFIG", "")
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    origins = {item.name: "default" for item in dataclasses.fields(kind)}  # type: ignore[arg-type]

    def put(name: str, value: Any, origin: str) -> None:
        if name not in origins:
            known = ", ".join(sorted(origins))
            raise InvalidArgument(f"{origin} sets {name!r}, which {section} does not have; it has {known}", param=name)
        values[name] = _convert(name, value, hints[name], origin)
        origins[name] = origin

    for name, value in _toml_section(config, section).items():
        put(name, value, config or "nacre.toml")
    prefix = f"NACRE_{section.upper()}_"
    for key, value in os.environ.items():
        if key.startswith(prefix):
            put(key.removeprefix(prefix).lower(), value, key)
    for name, value in flags.items():
        if value is not None:
            put(name, value, f"--{name.replace('_', '-')}")
    _check_bounds(kind, values, origins)
    settings = kind(**values)
    _check_contradictions(settings, origins)
    return Loaded(settings, origins, config)


def _parser(kind: type, prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=(kind.__doc__ or "").strip(),
        epilog="Every flag can also be set in nacre.toml or as an environment variable; see `nacre config show`.",
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file (default: ./nacre.toml if there is one)")
    for item in dataclasses.fields(kind):
        shown = _in_words(item.default)
        parser.add_argument(
            f"--{item.name.replace('_', '-')}",
            metavar=item.name.rsplit("_", 1)[-1].upper(),
            help=f"{item.metadata['help']} (default: {shown})".replace("%", "%%"),
        )
    return parser


def _toml_section(config: str, section: str) -> dict[str, Any]:
    path = Path(config or "nacre.toml")
    if not path.is_file():
        if config:
            raise InvalidArgument(f"configuration file {config} does not exist; name one that does, or leave it out")
        return {}
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InvalidArgument(f"configuration file {path} cannot be read: {error}") from None
    unknown = set(content) - {"verifier", "drafter", "gateway", "store"}
    if unknown:
        raise InvalidArgument(f"{path} has a section {min(unknown)!r}; known are verifier, drafter, gateway and store")
    return content.get(section, {})


def _convert(name: str, value: Any, hint: Any, origin: str) -> Any:
    try:
        if hint is bool:
            if isinstance(value, bool):
                return value
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[str(value).lower()]
        if hint in (int, float, str):
            if isinstance(value, bool):
                raise ValueError
            return hint(value)
        items = value.split(",") if isinstance(value, str) else list(value)
        return tuple(str(item).strip() for item in items if str(item).strip())
    except (KeyError, TypeError, ValueError):
        kind = getattr(hint, "__name__", str(hint))
        raise InvalidArgument(f"{origin}: {name} is {value!r}; it must be a {kind}", param=name) from None


def _check_bounds(kind: type, values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    for item in dataclasses.fields(kind):
        value = values.get(item.name)
        if value is None:
            continue
        least, most = item.metadata["least"], item.metadata["most"]
        too_small = least is not None and not value >= least
        too_large = most is not None and not value <= most
        if too_small or too_large:
            bounds = f"at least {least}" if most is None else f"{least} to {most}"
            raise InvalidArgument(f"{origins[item.name]}: {item.name} is {value}; it must be {bounds}", param=item.name)


def _check_contradictions(settings: Any, origins: Mapping[str, str]) -> None:
    """On the values as they will be used: one that was given and a default can contradict each other, too."""
    for found in getattr(settings, "contradictions", ()):
        if found.holds(settings):
            one, other = (
                f"{name} is {_in_words(getattr(settings, name))} ({origins[name]})" for name in (found.one, found.other)
            )
            raise InvalidArgument(f"{one} and {other}; {found.why}", param=found.one)


def _in_words(value: Any) -> str:
    """A value as one writes it on the command line; an empty one is `none`."""
    return (",".join(value) if isinstance(value, tuple) else str(value)) or "none"
