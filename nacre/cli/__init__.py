"""The `nacre` command.

Rules: results go to standard output, everything else to standard error; with `--json` standard output is one JSON
object and nothing more. A mistake of the user is one line on standard error and exit code 2, never a traceback. Nothing
heavy is imported before a command needs it: `nacre --help` must feel instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

EXIT_FAILED = 1  # our own bug, or a check that failed
EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130

#: Top-level package -> extra of the `nacre` distribution that brings it.
_EXTRAS = {
    "torch": "model",
    "transformers": "model",
    "safetensors": "model",
    "psutil": "model",
    "starlette": "gateway",
    "uvicorn": "gateway",
    "pydantic": "gateway",
    "jinja2": "gateway",
    "redis": "redis",
    "matplotlib": "bench",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    # gRPC reports a peer's orderly goodbye on standard error; here every error is reported once, by us.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")

    import typer

    from nacre.cli.app import app
    from nacre.errors import Internal, NacreError

    # The base of all mistakes on a command line; which module it lives in depends on typer's version.
    usage_error: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        code = app(args=arguments, prog_name="nacre", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except NacreError as error:
        return _fail(error.message, EXIT_FAILED if isinstance(error, Internal) else EXIT_MISTAKE)
    except usage_error as error:
        return _fail(error.format_message(), EXIT_MISTAKE)
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return _fail(f"{error.name} is not installed; run: pip install 'nacre[{extra}]'", EXIT_MISTAKE)
    except BrokenPipeError:  # whoever read our output has seen enough; nothing may be flushed into the pipe at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


def _fail(message: str, code: int) -> int:
    print("nacre: " + " ".join(message.split()), file=sys.stderr)
    return code
