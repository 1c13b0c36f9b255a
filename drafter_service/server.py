"""Puts a drafter together: load what guesses, listen, join sessions when told to, leave them on a signal."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from drafter_service.metrics import DrafterMetrics
from drafter_service.servicer import DrafterServicer
from nacre.drafting import Proposer, needs_model
from nacre.runtime.draft_worker import DraftWorker
from nacre.runtime.proposers import build_proposer
from nacre.runtime.service import GrpcService, announce_ready, serve_metrics, set_up_logging, until_signalled
from nacre.runtime.settings import DrafterSettings
from nacre.session import DrafterLimits
from nacre.v1 import drafter_pb2_grpc

log = logging.getLogger("nacre.drafter")


async def serve(settings: DrafterSettings) -> None:
    """Runs a drafter until SIGTERM or SIGINT. Raises NacreError for everything the caller can mend."""
    set_up_logging(settings.log_level)
    service = GrpcService(settings.host, settings.grpc_port, ["nacre.v1.Drafter"])
    built = await asyncio.to_thread(build_proposer, settings)
    proposer: Proposer = built.proposer
    limits = DrafterLimits(
        window_nodes=settings.window_nodes,
        least_survival=settings.least_survival,
        least_sent_survival=settings.least_sent,
    )
    worker = DraftWorker(proposer, limits, max_sessions=settings.max_sessions, batch_nodes=settings.batch_nodes)
    method = proposer.traits.name
    metrics = DrafterMetrics(method)
    servicer = DrafterServicer(
        worker,
        handshake=built.handshake,
        method=method,
        draft=_draft_of(settings),
        metrics=metrics,
        allowed=settings.verifiers,
    )
    drafter_pb2_grpc.add_DrafterServicer_to_server(servicer, service.server)
    stop_metrics = serve_metrics(settings.host, settings.metrics_port, metrics.registry)
    worker_task = asyncio.create_task(worker.run(), name="draft-worker")
    keeper_task = asyncio.create_task(_keep_house(worker, metrics), name="housekeeping")
    await service.start()
    announce_ready(service="drafter", grpc_port=service.port, metrics_port=settings.metrics_port, method=method)

    async def drain() -> None:
        servicer.draining = True
        await service.not_serving()

    try:
        stopping = asyncio.create_task(until_signalled(drain))
        await asyncio.wait({stopping, worker_task, keeper_task}, return_when=asyncio.FIRST_COMPLETED)
        for task in (worker_task, keeper_task):
            if task.done():
                task.result()
    finally:
        await servicer.close()
        await service.stop(0.0)
        for task in (worker_task, keeper_task):
            task.cancel()
        await asyncio.gather(worker_task, keeper_task, return_exceptions=True)
        stop_metrics()


async def _keep_house(worker: DraftWorker, metrics: DrafterMetrics) -> None:
    while True:
        metrics.sample(worker)
        await asyncio.sleep(1.0)


def _draft_of(settings: DrafterSettings) -> str:
    """The draft model's name without the folders it lies in; empty for methods that need none."""
    return Path(settings.draft).name if needs_model(settings.method) else ""
