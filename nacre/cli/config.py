"""`nacre config show`: every setting, its value, and which layer it came from."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from typing import Annotated, Any

import typer

from nacre.cli import options as flags

app = typer.Typer(help="Look at the configuration.", rich_markup_mode=None)

_SECRETS = frozenset({"api_keys"})

# The gateway is a neighbour, not a library: it says itself what its settings are.
_ASK_GATEWAY = """
import dataclasses, json, sys
from gateway.settings import GatewaySettings
from nacre.errors import NacreError
from nacre.runtime.settings import load_settings
try:
    loaded = load_settings(GatewaySettings, "gateway", sys.argv[1:], prog="nacre config show --service gateway")
except NacreError as error:
    sys.exit("nacre: " + error.message)
print(json.dumps({"values": dataclasses.asdict(loaded.settings), "origins": dict(loaded.origins)}))
"""


SERVICES = ("verifier", "drafter", "gateway", "store")


@app.callback()
def config() -> None:
    """Look at the configuration."""


@app.command("show", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def show(
    context: typer.Context,
    service: Annotated[str | None, flags.one_of("--service", "Only this service's settings", SERVICES)] = None,
    as_json: flags.Json = False,
) -> None:
    """Show each setting's value and where it came from: default < nacre.toml < NACRE_* environment < flags.

    Flags of the service may follow, to see what they would do.

    \b
    nacre config show
    nacre config show --service verifier --threads 4
    NACRE_DRAFTER_METHOD=lookup nacre config show --service drafter --json
    """
    from nacre.cli.output import print_json
    from nacre.errors import InvalidArgument

    if context.args and service is None:
        raise InvalidArgument(f"{context.args[0]} belongs to one service; say which with --service")
    wanted = [service] if service is not None else list(SERVICES)
    shown = {name: _settings_of(name, context.args) for name in wanted}
    if as_json:
        print_json(shown)
        return
    for name, entries in shown.items():
        print(f"[{name}]")
        width = max(len(key) for key in entries)
        values = {key: _as_toml(entry["value"]) for key, entry in entries.items()}
        column = min(40, max(len(value) for value in values.values()))
        for key, entry in entries.items():
            print(f"{key:<{width}} = {values[key]:<{column}}  # {entry['from']}")
        print()


def _settings_of(service: str, arguments: list[str]) -> dict[str, dict[str, Any]]:
    """name -> {value, from}. Raises InvalidArgument for a layer that cannot be right."""
    if service == "gateway":
        values, origins = _ask_gateway(arguments)
    else:
        from nacre.runtime.settings import DrafterSettings, StoreSettings, VerifierSettings, load_settings

        kind: type = {"verifier": VerifierSettings, "drafter": DrafterSettings, "store": StoreSettings}[service]
        prog = f"nacre config show --service {service}"
        loaded = load_settings(kind, service, arguments, prog=prog)
        values, origins = dataclasses.asdict(loaded.settings), dict(loaded.origins)
    return {name: {"value": _shown(name, value), "from": origins[name]} for name, value in values.items()}


def _shown(name: str, value: Any) -> Any:
    """A value as anyone may see it: a url without its password."""
    if name in _SECRETS and value:
        return "(set)"
    return re.sub(r"(?<=//)[^/@]*@", "(set)@", value) if name == "url" else value


def _ask_gateway(arguments: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    from nacre.errors import InvalidArgument

    command = [sys.executable, "-P", "-c", _ASK_GATEWAY, *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own interpreter
    if answer.returncode != 0:
        last = (answer.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InvalidArgument(last.removeprefix("nacre: "))
    if not answer.stdout.startswith("{"):  # --help
        print(answer.stdout, end="")
        raise typer.Exit
    told = json.loads(answer.stdout)
    return told["values"], told["origins"]


def _as_toml(value: Any) -> str:
    return json.dumps(value)
