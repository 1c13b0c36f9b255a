"""Puts a verifier together: load the target, probe it, listen, run the batch loop, drain on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import cast

from nacre.drafting.proposer import TeachableByTenant
from nacre.engine import Engine, load_model
from nacre.errors import FailedPrecondition
from nacre.models import located
from nacre.runtime.local_drafting import LocalDrafting
from nacre.runtime.local_reading import LocalReading
from nacre.runtime.pass_timing import measure_costs
from nacre.runtime.proposers import build_local_proposer
from nacre.runtime.service import GrpcService, announce_ready, serve_metrics, set_up_logging, until_signalled
from nacre.runtime.settings import StoreSettings, VerifierSettings
from nacre.runtime.store_metrics import StoreMetrics
from nacre.runtime.store_writer import StoreWriter
from nacre.runtime.stores import opened_store
from nacre.runtime.verifier_host import HostLimits, VerifierHost
from nacre.runtime.verify_pass import VerifyPass
from nacre.sampling import NOISE_VERSION, PROCESSOR_VERSION, completion_key
from nacre.scheduling import Pacer, RowBudget
from nacre.session import SessionLimits
from nacre.store import Store
from nacre.v1 import verifier_pb2_grpc
from nacre.wire import messages
from verifier_service.metrics import VerifierMetrics
from verifier_service.servicer import Served, VerifierServicer

log = logging.getLogger("nacre.verifier")


async def serve(
    settings: VerifierSettings,
    *,
    store: StoreSettings | None = None,
    host_for: Callable[..., VerifierHost] = VerifierHost,
) -> None:
    """Runs a verifier until SIGTERM or SIGINT. Raises NacreError for everything the caller can mend."""
    set_up_logging(settings.log_level)
    async with opened_store(store, writes=True) as kept:
        await _serve(settings, kept, host_for)


async def _serve(settings: VerifierSettings, store: Store | None, host_for: Callable[..., VerifierHost]) -> None:
    # The port first: a mistake there should not cost a minute of loading.
    service = GrpcService(settings.host, settings.grpc_port, ["nacre.v1.Verifier"])
    built = build_local_proposer(settings) if settings.local else None
    engine, served = await asyncio.to_thread(load, settings)
    guessing = None
    if built is not None:
        built.check_tokenizer(served.handshake.tokenizer_fingerprint)
        guessing = built.proposer
    if guessing is not None and guessing.traits.encodes:
        engine.keep_hidden()
    metrics = VerifierMetrics(served.handshake.model_id)
    budget = RowBudget(pass_rows=settings.pass_rows, session_rows=settings.session_rows if engine.info.tree_mode else 1)
    limits = HostLimits(
        max_sessions=settings.max_sessions,
        grace_s=settings.grace_s,
        chunk_rows=settings.chunk_rows,
        budget=budget,
    )
    verify_pass = VerifyPass(engine, settings.chunk_rows)
    costs = await asyncio.to_thread(
        measure_costs,
        verify_pass,
        vocab_size=engine.info.vocab_size,
        max_positions=engine.info.max_positions,
        most_rows=settings.pass_rows,
    )
    log.info("a pass takes %s", costs)
    writer = _writer(store, served, metrics) if store is not None else None
    reading = None
    if store is not None and writer is not None and guessing is not None and guessing.traits.teachable:
        reading = LocalReading(store, cast(TeachableByTenant, guessing).teach, writer.namespace_of)
    local = LocalDrafting(guessing, reading) if guessing is not None else None
    pacer = Pacer(costs, budget)
    host = host_for(verify_pass, limits, pacer=pacer, observe=metrics.observe, local=local, writer=writer)
    servicer = VerifierServicer(host, served, metrics, seed_source(settings.seed))
    verifier_pb2_grpc.add_VerifierServicer_to_server(servicer, service.server)
    stop_metrics = serve_metrics(settings.host, settings.metrics_port, metrics.registry)
    tasks = [
        asyncio.create_task(host.run(), name="batch-loop"),
        asyncio.create_task(_keep_house(host, metrics, engine), name="housekeeping"),
    ]
    if reading is not None:
        tasks.append(asyncio.create_task(reading.run(), name="local-reading"))
    await service.start()
    announce_ready(
        service="verifier",
        grpc_port=service.port,
        metrics_port=settings.metrics_port,
        model=served.handshake.model_id,
    )
    try:
        stopping = asyncio.create_task(until_signalled(lambda: _drain(host, service, settings.drain_s)))
        # A batch loop that dies takes the process with it: a verifier that looks alive but never answers is worse.
        await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        await service.stop(0.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        stop_metrics()


def _writer(store: Store, served: Served, metrics: VerifierMetrics) -> StoreWriter:
    StoreMetrics(store, metrics.registry)
    target = served.handshake
    return StoreWriter(store, target.model_id, target.model_revision, target.tokenizer_fingerprint)


def load(settings: VerifierSettings) -> tuple[Engine, Served]:
    """Loads and probes the target; blocking."""
    loaded = load_model(
        located(settings.target),
        dtype=settings.dtype,
        device=settings.device,
        threads=settings.threads,
        revision=settings.revision or None,
    )
    device = settings.device.partition(":")[0]
    versions = (f"processors-{PROCESSOR_VERSION}", f"noise-{NOISE_VERSION}", f"device-{device}")
    engine = Engine(loaded, kv_bytes=settings.kv_mb * 1024 * 1024, versions=versions)
    if loaded.tokenizer_path is None:
        raise FailedPrecondition(
            f"{settings.target} has no tokenizer.json; a verifier serves its model's tokenizer: add it"
        )
    info = engine.info
    if not info.tree_mode:
        log.warning("draft trees are refused for this model: %s", info.tree_refusal)
    handshake = messages.handshake(info.model_id, info.revision, info.tokenizer_fingerprint)
    served = Served(
        info=info,
        tokenizer_json=loaded.tokenizer_path.read_bytes(),
        chat_template=_chat_template(loaded.tokenizer_path),
        handshake=handshake,
        fingerprint=info.fingerprint,
        session_limits=SessionLimits(
            window_nodes=settings.window_nodes, max_streams=settings.max_drafters + bool(settings.local)
        ),
    )
    log.info("serving %s (%s, %s)", info.model_id, info.dtype, info.numerics)
    return engine, served


def seed_source(seed: int) -> Callable[[], int]:
    """Where requests without a seed get theirs: a seeded stream, or real randomness for 0."""
    if seed == 0:
        return lambda: secrets.randbits(64)
    drawn = itertools.count(1)
    return lambda: completion_key(seed, next(drawn))


def _chat_template(tokenizer_file: Path) -> str:
    jinja = tokenizer_file.with_name("chat_template.jinja")
    if jinja.is_file():
        return jinja.read_text()
    config = tokenizer_file.with_name("tokenizer_config.json")
    template = json.loads(config.read_text()).get("chat_template", "") if config.is_file() else ""
    return template if isinstance(template, str) else ""


async def _keep_house(host: VerifierHost, metrics: VerifierMetrics, engine: Engine) -> None:
    while True:
        host.expire()
        metrics.sample(host, _share_in_use(engine))
        await asyncio.sleep(1.0)


def _share_in_use(engine: Engine) -> float:
    use = engine.use()
    return 1.0 - (use.free_slots + use.idle_block_slots) / use.slots


async def _drain(host: VerifierHost, service: GrpcService, drain_s: float) -> None:
    """No new sessions; running ones may finish in time, the rest resume elsewhere from what is committed."""
    log.info("draining: %d sessions, up to %.0f s", host.session_count, drain_s)
    host.draining = True
    await service.not_serving()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(drain_s):
            await host.empty()
