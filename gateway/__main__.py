"""`python -m gateway`: the gateway as a process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.settings import GatewaySettings
from nacre.runtime.service import run_service


def _serve() -> Callable[[GatewaySettings], Coroutine[Any, Any, None]]:
    from gateway.server import serve

    return serve


def main() -> int:
    return run_service("gateway", GatewaySettings, _serve)


if __name__ == "__main__":
    sys.exit(main())
