"""`nacre serve verifier|drafter|gateway`: becomes that service's process; its flags are its own."""

from __future__ import annotations

import os
import sys

import typer

app = typer.Typer(
    help="""Run one service in this process.

\b
  nacre serve verifier --target my-model --grpc-port 8101
  nacre serve drafter --draft my-draft --grpc-port 8201
  nacre serve gateway --verifiers 127.0.0.1:8101 --drafters 127.0.0.1:8201

`nacre serve verifier --help` lists a service's flags; SIGTERM or Ctrl-C drains it.
""",
    rich_markup_mode=None,
    no_args_is_help=False,
)

# The service parses its own flags, --help included.
_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@app.command("verifier", context_settings=_PASS_ON)
def verifier(context: typer.Context) -> None:
    """The verifier: owns sessions and the target model."""
    _become("verifier_service", context.args)


@app.command("drafter", context_settings=_PASS_ON)
def drafter(context: typer.Context) -> None:
    """A drafter: joins sessions when told to, and guesses."""
    _become("drafter_service", context.args)


@app.command("gateway", context_settings=_PASS_ON)
def gateway(context: typer.Context) -> None:
    """The gateway: OpenAI-compatible HTTP and gRPC in front of verifiers and drafters."""
    _become("gateway", context.args)


def _become(module: str, arguments: list[str]) -> None:
    """Replaces this process, so that signals and the exit code are the service's own."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])  # noqa: S606  our own interpreter
