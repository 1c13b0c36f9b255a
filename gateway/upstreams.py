"""The verifiers and drafters behind the gateway: one channel each, looked at every second.

Rule: a peer takes new sessions only while it answers, says it is serving and fits the model served. A verifier that
answers but does not serve is draining: what runs there may finish. One that stops answering loses its streams at once,
because a hung process keeps its connections open; moving a generation is exact, so a false alarm costs only time.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway import served
from gateway.metrics import GatewayMetrics
from gateway.placement import Candidate, by_preference, load_of
from gateway.served import ServedModel
from gateway.settings import GatewaySettings
from nacre.errors import NacreError, ResourceExhausted, Unavailable
from nacre.runtime.grpc_options import CHANNEL_OPTIONS
from nacre.v1 import drafter_pb2, drafter_pb2_grpc, verifier_pb2, verifier_pb2_grpc
from nacre.wire.errors import error_of
from nacre.wire.messages import check_handshake

if TYPE_CHECKING:
    from gateway.leg import Leg

log = logging.getLogger("nacre.gateway")

_TOKENIZER_TIMEOUT_S = 60.0
#: Of a drafter: answers whose ways are remembered, how fast its step time is followed, and what no step takes.
_WAYS_KEPT = 8
_STEP_FOLLOW = 0.3
_MOST_STEP_S = 60.0
_MOST_KIND_CHARS = 128


class State(enum.Enum):
    UNKNOWN = "unknown"  # not heard of yet
    UP = "up"  # takes sessions
    DRAINING = "draining"  # answers, takes no new sessions
    SUSPECT = "suspect"  # a stream to it has just broken; it is being looked at
    DOWN = "down"  # does not answer
    REFUSED = "refused"  # does not fit what is served here


class Upstream:
    """One peer. `incarnation` changes when the connection breaks: what the peer knew of us may be gone then."""

    role = ""

    def __init__(self, address: str) -> None:
        self.address = address
        self.state = State.UNKNOWN
        self.reason = "it has not answered yet"
        self.failures = 0
        self.incarnation = 0
        self.last_chosen = 0
        self.look_now = asyncio.Event()
        self.channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    @property
    def up(self) -> bool:
        return self.state is State.UP


class VerifierUpstream(Upstream):
    role = "verifier"

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.stub = verifier_pb2_grpc.VerifierStub(self.channel)
        self.model = verifier_pb2.GetModelResponse()
        self.legs: set[Leg] = set()  # owner streams of ours
        self._own_when_reported = 0

    def reported(self, model: verifier_pb2.GetModelResponse) -> None:
        self.model = model
        self._own_when_reported = len(self.legs)

    def candidate(self) -> Candidate:
        load = load_of(len(self.legs), self.model.sessions, self._own_when_reported)
        return Candidate(self.address, load, self.model.max_sessions, self.failures > 0, self.last_chosen)


class DrafterUpstream(Upstream):
    """`rtt_s` is the shortest of the last answers' ways, `step_s` the time of a draft step lately; 0 while unknown."""

    role = "drafter"

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.stub = drafter_pb2_grpc.DrafterStub(self.channel)
        self.drafter = drafter_pb2.GetDrafterResponse()
        self.seats = 0  # sessions of ours it drafts for
        self.step_s = 0.0
        self._ways_s: deque[float] = deque(maxlen=_WAYS_KEPT)
        self._own_when_reported = 0

    @property
    def kind(self) -> str:
        """What it guesses with: drafters of one kind are as good as each other."""
        drafter = self.drafter
        return f"{drafter.method}:{drafter.draft}"[:_MOST_KIND_CHARS] if drafter.draft else drafter.method

    @property
    def rtt_s(self) -> float:
        return min(self._ways_s, default=0.0)

    @property
    def sessions(self) -> int:
        return load_of(self.seats, self.drafter.sessions, self._own_when_reported)

    def reported(self, drafter: drafter_pb2.GetDrafterResponse, way_s: float) -> None:
        """`way_s` is how long the answer took."""
        steps = drafter.steps - self.drafter.steps
        step_s = (drafter.busy_ms - self.drafter.busy_ms) / 1e3 / max(1, steps)
        if steps > 0 and 0 < step_s < _MOST_STEP_S:  # else it has done nothing, has begun anew, or talks nonsense
            self.step_s += (_STEP_FOLLOW if self.step_s else 1.0) * (step_s - self.step_s)
        self._ways_s.append(way_s)
        self.drafter = drafter
        self._own_when_reported = self.seats

    def candidate(self) -> Candidate:
        return Candidate(self.address, self.sessions, self.drafter.max_sessions, self.failures > 0, self.last_chosen)


_Peer = TypeVar("_Peer", bound=Upstream)


class UpstreamPool:
    """Owns all upstreams. `run()` must be running for their states to be current."""

    def __init__(self, settings: GatewaySettings, metrics: GatewayMetrics, chat_source: Callable[[str], str]) -> None:
        self._settings = settings
        self._metrics = metrics
        self._chat_source = chat_source
        self.verifiers = {address: VerifierUpstream(address) for address in settings.verifiers}
        self.drafters = {address: DrafterUpstream(address) for address in settings.drafters}
        self.served: ServedModel | None = None
        self._identifying = asyncio.Lock()
        self._choices = 0
        self._changed = asyncio.Event()

    # -- placement -----------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return self.served is not None and any(verifier.up for verifier in self.verifiers.values())

    @property
    def undecided(self) -> bool:
        """Whether a verifier may turn out to be up within the time of one look."""
        return any(v.state in (State.UNKNOWN, State.SUSPECT) for v in self.verifiers.values())

    def model(self) -> ServedModel:
        """What is served. Raises Unavailable while no verifier has said so."""
        if self.served is None:
            raise Unavailable(self._nobody())
        return self.served

    def place(self, exclude: frozenset[str] = frozenset(), *, fingerprint: str = "") -> VerifierUpstream:
        """The verifier for the next session; one that is to go on with a text names the `fingerprint` it began on.

        Raises Unavailable if none is up or serves that, ResourceExhausted if all are full.
        """
        up = [v for v in self.verifiers.values() if v.up and v.address not in exclude]
        if not up:
            raise Unavailable(self._nobody())
        if fingerprint:
            up = [v for v in up if v.model.system_fingerprint == fingerprint]
            if not up:
                raise Unavailable(f"this generation began on {fingerprint!r}, which no verifier serves any more")
        best = by_preference(verifier.candidate() for verifier in up)
        if not best:
            raise ResourceExhausted(f"all {len(up)} verifiers are full; try again later")
        return self._choose(self.verifiers, best[0].address)

    def place_drafter(
        self, exclude: frozenset[str], choose: Callable[[list[DrafterUpstream]], DrafterUpstream] | None = None
    ) -> DrafterUpstream | None:
        """The drafter to ask next, if there is one with room.

        `choose` has the last word among those that are as healthy as the best; it gets them in order of preference.
        """
        up = (d for d in self.drafters.values() if d.up and d.drafter.max_sessions and d.address not in exclude)
        best = by_preference(drafter.candidate() for drafter in up)
        if not best:
            return None
        as_healthy = [self.drafters[c.address] for c in best if c.doubtful == best[0].doubtful]
        return self._choose(self.drafters, (choose(as_healthy) if choose else as_healthy[0]).address)

    def suspect(self, peer: Upstream) -> None:
        """A stream to it has just broken: it gets nothing new until it has answered, which is asked for at once."""
        if peer.up:
            self._set(peer, State.SUSPECT, "a stream to it has just broken")
        peer.look_now.set()

    async def changed(self, timeout_s: float) -> None:
        """Returns when some peer's state has changed, or after the timeout."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()

    def _choose(self, peers: dict[str, _Peer], address: str) -> _Peer:
        self._choices += 1
        chosen = peers[address]
        chosen.last_chosen = self._choices
        return chosen

    def _nobody(self) -> str:
        told = "; ".join(f"{v.address}: {v.reason}" for v in self.verifiers.values() if not v.up)
        return f"no verifier takes sessions ({told}); start one or wait"

    # -- watching ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watches all peers until cancelled; closes their channels then."""
        try:
            async with asyncio.TaskGroup() as group:
                for verifier in self.verifiers.values():
                    group.create_task(self._watch(verifier, self._look_at_verifier))
                    group.create_task(self._watch_connection(verifier))
                for drafter in self.drafters.values():
                    group.create_task(self._watch(drafter, self._look_at_drafter))
                    group.create_task(self._watch_connection(drafter))
        finally:
            for peer in (*self.verifiers.values(), *self.drafters.values()):
                await peer.channel.close()

    async def _watch(self, peer: Any, look: Callable[[Any], Any]) -> None:
        while True:
            peer.look_now.clear()
            try:
                await look(peer)
            except grpc.aio.AioRpcError as failure:
                self._unanswered(peer, failure)
            except NacreError as error:
                self._set(peer, State.DOWN if error.retryable else State.REFUSED, error.message)
            except Exception as error:
                log.exception("looking at %s %s failed", peer.role, peer.address)
                self._set(peer, State.REFUSED, f"looking at it failed: {type(error).__name__}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.poll_s):
                    await peer.look_now.wait()

    async def _watch_connection(self, peer: Upstream) -> None:
        """Counts the connections that broke, and has the peer looked at as soon as one does.

        One waiter for the life of the channel: a wait that is given up stays in gRPC's memory.
        """
        while True:
            state = peer.channel.get_state()
            await peer.channel.wait_for_state_change(state)
            if state is grpc.ChannelConnectivity.READY:
                peer.incarnation += 1
                peer.look_now.set()

    async def _serving(self, peer: Upstream) -> bool:
        request = health_pb2.HealthCheckRequest(service="")
        try:
            answer = await peer.health.Check(request, timeout=self._settings.poll_timeout_s)
        except grpc.aio.AioRpcError as failure:
            if failure.code() is grpc.StatusCode.UNIMPLEMENTED:  # no health protocol: an answer is health enough
                return True
            raise
        return answer.status == health_pb2.HealthCheckResponse.SERVING

    async def _look_at_verifier(self, verifier: VerifierUpstream) -> None:
        if not await self._serving(verifier):
            self._set(verifier, State.DRAINING, "it answers but takes no sessions")
            return
        request = verifier_pb2.GetModelRequest()
        model = await verifier.stub.GetModel(request, timeout=self._settings.poll_timeout_s)
        async with self._identifying:
            await self._identify(verifier, model)

    async def _identify(self, verifier: VerifierUpstream, model: verifier_pb2.GetModelResponse) -> None:
        if self.served is not None:
            told = served.difference(self.served.model, model)
            if told is None:
                verifier.reported(model)
                self._set(verifier, State.UP, "")
                return
            if any(other.up or other.legs for other in self.verifiers.values() if other is not verifier):
                self._set(verifier, State.REFUSED, told)
                return
            log.warning("verifier %s serves something new and nobody serves the old: %s", verifier.address, told)
        self.served = await served.fetch(
            verifier.stub,
            verifier.address,
            model,
            name=self._settings.model_name,
            chat_source=self._chat_source,
            timeout_s=_TOKENIZER_TIMEOUT_S,
        )
        self._metrics.model_name = self.served.name
        for drafter in self.drafters.values():
            drafter.look_now.set()
        verifier.reported(model)
        self._set(verifier, State.UP, "")

    async def _look_at_drafter(self, drafter: DrafterUpstream) -> None:
        if not await self._serving(drafter):
            self._set(drafter, State.DRAINING, "it answers but takes no sessions")
            return
        request = drafter_pb2.GetDrafterRequest()
        asked = time.monotonic()
        answer = await drafter.stub.GetDrafter(request, timeout=self._settings.poll_timeout_s)
        drafter.reported(answer, time.monotonic() - asked)
        if self.served is None:
            self._set(drafter, State.UNKNOWN, "no verifier has said yet what it must fit")
            return
        check_handshake(drafter.drafter.handshake, self.served.handshake)
        self._set(drafter, State.UP, "")

    def _unanswered(self, peer: Upstream, failure: grpc.aio.AioRpcError) -> None:
        peer.failures += 1
        # A refused connection is certain; silence may be a busy machine.
        if failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED and peer.failures < self._settings.poll_failures:
            return
        error = error_of(failure, peer.address)
        self._set(peer, State.DOWN, error.message)
        if isinstance(peer, VerifierUpstream) and failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            for leg in tuple(peer.legs):
                leg.fail(Unavailable(f"{peer.address} has stopped answering"))

    def _set(self, peer: Upstream, state: State, reason: str) -> None:
        peer.reason = reason
        if state is State.UP:
            peer.failures = 0
        if state is peer.state:
            return
        if state in (State.UP, State.DRAINING, State.UNKNOWN):
            log.info("%s %s is %s", peer.role, peer.address, state.value)
        else:
            log.warning("%s %s is %s: %s", peer.role, peer.address, state.value, reason)
        if state is State.REFUSED:
            self._metrics.upstream_refused(peer.role)
        peer.state = state
        self._metrics.upstream(peer.role, peer.address, peer.up)
        self._changed.set()
        self._changed = asyncio.Event()
