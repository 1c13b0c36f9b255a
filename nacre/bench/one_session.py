"""One generation over the rig, measured at the client: request, messages as they come, what the verifier counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from nacre.bench.rig import Rig, Served, Wire
from nacre.client import Generation, Request, Retry
from nacre.errors import Unavailable
from nacre.runtime.delay_proxy import Passage
from nacre.runtime.draft_totals import TakenStep
from nacre.sampling import SamplingParams
from nacre.session import SpeculationMode
from nacre.v1 import drafter_pb2, drafter_pb2_grpc, verifier_pb2_grpc
from nacre.v1 import session_pb2 as pb
from nacre.wire import messages
from nacre.wire.errors import error_of

#: Keys and values are shared within a tenant only: with one of its own, no sample finds its prompt read already.
TENANT_METADATA = "nacre-tenant"


@dataclass(frozen=True, slots=True)
class Asked:
    """What to generate. `seed` decides the noise and with it, given the prompt, the text."""

    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float
    seed: int
    tenant: str
    mode: SpeculationMode = SpeculationMode.LATENCY
    prediction: tuple[int, ...] = ()


@dataclass(slots=True)
class Told:
    """What was seen of one generation. Times are seconds on the event loop's clock."""

    started_s: float = 0.0
    tokens: tuple[int, ...] = ()
    text: str = ""
    arrivals_s: list[float] = field(default_factory=list)
    arrival_tokens: list[int] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)
    passages: list[Passage] = field(default_factory=list)
    draft_steps: list[TakenStep] = field(default_factory=list)
    fingerprint: str = ""
    drafter_admitted_s: float | None = None
    extra: dict[str, float] = field(default_factory=dict)  # what only one kind of baseline tells

    @property
    def arrivals_ms(self) -> tuple[float, ...]:
        return tuple(round((moment - self.started_s) * 1e3, 3) for moment in self.arrivals_s)


@dataclass(frozen=True, slots=True)
class Commit:
    """A message as it came, and what the verifier said of the pass behind it."""

    arrived_s: float
    tokens: int
    rows: int
    verify_ms: float
    queue_ms: float


async def generate(
    rig: Rig,
    asked: Asked,
    wire: Wire,
    served: Served,
    *,
    drafter: str | None = None,
    keep_passages: bool = False,
    advance: Callable[[int], None] = lambda amount: None,
) -> Told:
    """Runs one generation; with `drafter` (an address) that drafter is told to join. Raises NacreError."""
    clock = asyncio.get_running_loop().time
    told = Told()
    attaching: list[asyncio.Task[None]] = []
    before = wire.bytes_up, wire.bytes_down

    def observe(event: pb.SessionEvent) -> None:
        match event.WhichOneof("body"):
            case "opened":
                told.fingerprint = event.opened.system_fingerprint
                if drafter is not None:
                    join = _attach(rig, drafter, wire, event.opened.drafter_ticket, told)
                    attaching.append(asyncio.create_task(join))
            case "commit":
                commit = event.commit
                told.commits.append(Commit(clock(), len(commit.tokens), commit.rows, commit.verify_ms, commit.queue_ms))
                told.counts["commit_bytes"] = told.counts.get("commit_bytes", 0) + commit.ByteSize()
            case "finished":
                told.counts |= counted(event.finished.statistics)

    generation = Generation(
        verifier_pb2_grpc.VerifierStub(rig.channel(wire.address)),
        wire.address,
        _request(asked),
        vocabulary=served.vocabulary,
        handshake=messages.handshake(),
        metadata=((TENANT_METADATA, asked.tenant),),
        retry=Retry(attempts=0),
        observe=observe,
    )
    if keep_passages:
        wire.listen = told.passages.append
    told.started_s = clock()
    try:
        async for piece in generation:
            if piece.tokens:
                told.arrivals_s.append(clock())
                told.arrival_tokens.append(len(piece.tokens))
                advance(len(piece.tokens))
    finally:
        wire.listen = None
        for task in attaching:
            task.cancel()
        joined = await asyncio.gather(*attaching, return_exceptions=True)
    for failure in joined:
        if isinstance(failure, Exception):
            raise failure
    told.tokens, told.text = tuple(generation.tokens), generation.text
    if wire.delayed:
        told.counts["wire_up_bytes"] = wire.bytes_up - before[0]
        told.counts["wire_down_bytes"] = wire.bytes_down - before[1]
    return told


def counted(statistics: pb.SessionStatistics) -> dict[str, float]:
    """The verifier's own counts, under the names of `samples.COUNTS`."""
    return {
        "passes": statistics.passes,
        "rows": statistics.rows,
        "verified": statistics.verified_guesses,
        "accepted": statistics.accepted_guesses,
        "received": statistics.received_guesses,
        "draft_bytes": statistics.draft_bytes,
        "verify_ms": statistics.verify_ms,
        "prefill_ms": statistics.prefill_ms,
    }


def _request(asked: Asked) -> Request:
    return Request(
        prompt=asked.prompt,
        prediction=asked.prediction,
        max_tokens=asked.max_tokens,
        sampling=SamplingParams(temperature=asked.temperature),
        seed=asked.seed,
        ignore_eos=True,  # all runs write the same number of tokens, so that times compare
        speculation=asked.mode,
    )


async def _attach(rig: Rig, drafter: str, wire: Wire, ticket: str, told: Told) -> None:
    stub: Any = drafter_pb2_grpc.DrafterStub(rig.channel(drafter))
    try:
        await stub.Attach(drafter_pb2.AttachRequest(verifier_address=wire.address, ticket=ticket))
    except grpc.aio.AioRpcError as failure:
        error = error_of(failure, drafter)
        raise Unavailable(f"the drafter could not join the session: {error.message}") from None
    told.drafter_admitted_s = asyncio.get_running_loop().time()
