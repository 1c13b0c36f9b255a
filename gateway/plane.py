"""What the HTTP face and the gRPC face share: settings, upstreams, drafters, admission, and an owner for loose tasks.

Rule: no task without an owner. Streams outlive the handler that began them by a farewell, so their tasks belong to the
process's task group, and none of them may take it down.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from gateway.admission import Admission
from gateway.drafters import DrafterPlacement
from gateway.metrics import GatewayMetrics
from gateway.settings import GatewaySettings
from gateway.upstreams import UpstreamPool

log = logging.getLogger("nacre.gateway")


@dataclass(slots=True)
class Plane:
    """One gateway. `draining` once it takes nothing new."""

    settings: GatewaySettings
    metrics: GatewayMetrics
    pool: UpstreamPool
    drafters: DrafterPlacement
    admission: Admission
    tasks: asyncio.TaskGroup
    draining: bool = field(default=False)

    def background(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[None]:
        """Runs `work` on behalf of the process; whatever goes wrong in it is logged and ends there."""
        return self.tasks.create_task(_contained(work, name), name=name)


async def _contained(work: Coroutine[Any, Any, Any], name: str) -> None:
    try:
        await work
    except Exception:
        log.exception("%s failed", name)
