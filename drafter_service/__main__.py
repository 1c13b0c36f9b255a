"""`python -m drafter_service`: the drafter as a process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import Any

from nacre.runtime.service import run_service
from nacre.runtime.settings import DrafterSettings


def _serve() -> Callable[..., Coroutine[Any, Any, None]]:
    from drafter_service.server import serve

    return serve


def main() -> int:
    return run_service("drafter", DrafterSettings, _serve, with_store=True)


if __name__ == "__main__":
    sys.exit(main())
