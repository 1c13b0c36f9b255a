"""`python -m verifier_service.lockstep`: a verifier for clients that draft and wait, as `nacre bench` compares with.

The same engine and the same host, but pass k of a session starts only once k drafts have come (the first one reads the
prompt), never without, and computes every guess that was sent: what to send is such a client's own decision.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

from nacre.runtime.service import run_service
from nacre.runtime.settings import VerifierSettings


def in_step(session: Any) -> bool:
    """Whether a hosted session may have its next pass."""
    return session.totals.passes <= session.totals.drafts


def _serve() -> Callable[[VerifierSettings], Coroutine[Any, Any, None]]:
    from nacre.runtime.verifier_host import HostLimits, VerifierHost
    from nacre.runtime.verify_pass import VerifyPass
    from nacre.scheduling import Pacer, PassCosts
    from verifier_service.server import serve

    def host(verify_pass: VerifyPass, limits: HostLimits, *, pacer: Pacer, **options: Any) -> VerifierHost:
        # As if rows cost nothing and every guess were sure: the client has weighed them.
        budget = replace(limits.budget, least_survival=0.0)
        whole = Pacer(PassCosts([(1, 1.0)]), budget, pauses=False, trials=False)
        return VerifierHost(verify_pass, limits, pacer=whole, ready=in_step, **options)

    return partial(serve, host_for=host)


def main() -> int:
    return run_service("verifier", VerifierSettings, _serve)


if __name__ == "__main__":
    sys.exit(main())
