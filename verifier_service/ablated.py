"""`python -m verifier_service.ablated --without PART`: a verifier without one part of the design; not for production.

What the part is worth is the difference to the real one (`nacre bench ablations`). The text is the same, as always.

    self-decode   once a drafter has joined, no pass starts without a guess, for `PATIENCE_S` at most: a drafter that
                  is silent or gone costs time, and blocks nobody
    late-match    a guess for a position that has its token already is dropped, and with it what hangs below; the
                  drafter is not told, and helps again after its next miss
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from nacre.errors import InvalidArgument
from nacre.runtime.service import run_service
from nacre.runtime.settings import VerifierSettings, setting

PARTS = SELF_DECODE, LATE_MATCH = ("self-decode", "late-match")
#: Longest wait for a guess. The host asks again about once a second, so it is twice that at worst.
PATIENCE_S = 1.0


@dataclass(frozen=True)
class AblatedSettings(VerifierSettings):
    """A verifier that lacks one part of the design, to measure what the part is worth; not for production."""

    without: str = setting("", f"the part that is left out: {' or '.join(PARTS)}")


def has_guess(session: Any, *, now: float) -> bool:
    """Whether a hosted session may have its next pass without self-decode: it must not wait where none can come."""
    machine = session.machine
    last_token = machine.end_position - len(machine.tokens) <= 1  # needs no guess
    if session.totals.passes == 0 or not machine.streams or last_token:
        return True
    return len(machine.tree) > 0 or now - session.ready_since >= PATIENCE_S


def _serve() -> Callable[[AblatedSettings], Coroutine[Any, Any, None]]:
    from nacre.runtime.hosted_session import HostedSession
    from nacre.runtime.verifier_host import VerifierHost
    from nacre.session import VerifierSession
    from verifier_service.server import serve

    class WithoutLateMatch(VerifierHost):
        def open(self, machine: VerifierSession, *args: Any, **options: Any) -> HostedSession:
            machine.late_match = False
            return super().open(machine, *args, **options)

    def with_guess(session: HostedSession) -> bool:
        return has_guess(session, now=time.monotonic())

    async def ablated(settings: AblatedSettings) -> None:
        if settings.without not in PARTS:
            raise InvalidArgument(
                f"without is {settings.without!r}; it must be {' or '.join(PARTS)}: the whole verifier is "
                "python -m verifier_service",
                param="without",
            )
        without_match = settings.without == LATE_MATCH
        await serve(settings, host_for=WithoutLateMatch if without_match else partial(VerifierHost, ready=with_guess))

    return ablated


def main() -> int:
    return run_service("verifier", AblatedSettings, _serve)


if __name__ == "__main__":
    sys.exit(main())
