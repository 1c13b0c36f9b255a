"""The `nacre.v1.Verifier` API over a VerifierHost: one bidirectional stream carries one session for one party.

Rule: whatever is wrong with a stream ends that stream with a status and a message; the session and the process go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from nacre.drafting import KNOWN_METHODS
from nacre.engine import EngineInfo
from nacre.errors import InvalidArgument, NacreError
from nacre.runtime.hosted_session import HostedSession
from nacre.runtime.verifier_host import VerifierHost
from nacre.runtime.verify_pass import EngineSession
from nacre.sampling import History, completion_key
from nacre.session import SessionLimits, SpeculationMode, check_prediction, open_session
from nacre.session.observed import MOST_BEST
from nacre.text import DOMAINS
from nacre.v1 import session_pb2 as pb
from nacre.v1 import verifier_pb2, verifier_pb2_grpc
from nacre.wire import messages
from nacre.wire.errors import status_of
from verifier_service.metrics import VerifierMetrics

log = logging.getLogger("nacre.verifier")

Context: TypeAlias = grpc.aio.ServicerContext
Requests: TypeAlias = AsyncIterator[pb.SessionRequest]

TOKENIZER_CHUNK_BYTES = 64 * 1024
MAX_STOP_IDS = 64
#: Metadata key by which a gateway names the tenant; keys and values are shared within a tenant only.
TENANT_METADATA = "nacre-tenant"


@dataclass(frozen=True, slots=True)
class Served:
    """What this verifier serves, fixed at start."""

    info: EngineInfo
    tokenizer_json: bytes
    chat_template: str
    handshake: pb.Handshake
    fingerprint: str
    session_limits: SessionLimits = field(default_factory=SessionLimits)


class VerifierServicer(verifier_pb2_grpc.VerifierServicer):
    def __init__(
        self, host: VerifierHost, served: Served, metrics: VerifierMetrics, draw_seed: Callable[[], int]
    ) -> None:
        self._host = host
        self._served = served
        self._metrics = metrics
        self._draw_seed = draw_seed
        self._tag_key = secrets.token_bytes(32)

    async def GetModel(self, request: verifier_pb2.GetModelRequest, context: Context) -> verifier_pb2.GetModelResponse:
        info = self._served.info
        return verifier_pb2.GetModelResponse(
            handshake=self._served.handshake,
            vocab_size=info.vocab_size,
            max_positions=info.max_positions,
            eos_ids=info.eos_ids,
            dtype=info.dtype,
            numerics=info.numerics,
            system_fingerprint=self._served.fingerprint,
            pass_times=[
                verifier_pb2.PassTime(rows=rows, ms=1e3 * seconds) for rows, seconds in self._host.pacer.costs.points
            ],
            tree_refusal=info.tree_refusal,
            sessions=self._host.session_count,
            max_sessions=self._host.limits.max_sessions,
            chat_template=self._served.chat_template,
        )

    async def GetTokenizer(
        self, request: verifier_pb2.GetTokenizerRequest, context: Context
    ) -> AsyncIterator[verifier_pb2.GetTokenizerResponse]:
        data = self._served.tokenizer_json
        for start in range(0, len(data), TOKENIZER_CHUNK_BYTES):
            yield verifier_pb2.GetTokenizerResponse(chunk=data[start : start + TOKENIZER_CHUNK_BYTES])

    async def Session(self, request_iterator: Requests, context: Context) -> None:
        requests = _read(request_iterator)
        try:
            first = await anext(requests, None) or pb.SessionRequest()
            match first.WhichOneof("body"):
                case "open":
                    session = self._open(first.open, context)
                    await self._serve_owner(session, len(session.machine.tokens), first.open.observe, requests, context)
                case "join":
                    await self._join(first.join, requests, context)
                case other:
                    raise InvalidArgument(f"the first request is {other or 'missing'}; it must be Open or Join")
        except Exception as error:  # noqa: BLE001  whatever it is, it ends this stream only
            await self._abort(context, error)

    async def _abort(self, context: Context, error: BaseException) -> None:
        if not isinstance(error, NacreError):
            log.error("stream failed", exc_info=error)
        code, message = status_of(error)
        self._metrics.stream_error(code.name)
        await context.abort(code, message)

    # -- owners --------------------------------------------------------------------------------------------------

    def _open(self, request: pb.Open, context: Context) -> HostedSession:
        served, info = self._served, self._served.info
        messages.check_handshake(request.handshake, served.handshake)
        params = messages.sampling_from_wire(request.sampling)
        params.validate(info.vocab_size)
        if len(request.stop_ids) > MAX_STOP_IDS:
            raise InvalidArgument(f"stop_ids has {len(request.stop_ids)} entries; at most {MAX_STOP_IDS} are allowed")
        if len(request.label.encode()) > messages.MAX_LABEL_BYTES:
            raise InvalidArgument(f"label is longer than {messages.MAX_LABEL_BYTES} bytes; shorten it", param="label")
        if request.domain and request.domain not in DOMAINS:
            raise InvalidArgument(
                f"domain is {request.domain[:40]!r}; leave it out or take one of {', '.join(DOMAINS)}", param="domain"
            )
        top_logprobs = request.top_logprobs if request.HasField("top_logprobs") else -1
        if top_logprobs > 20:
            raise InvalidArgument(f"top_logprobs is {top_logprobs}; at most 20 are reported", param="top_logprobs")
        _check_observe(request.observe)
        check_prediction(request.prediction, vocab_size=info.vocab_size, max_positions=info.max_positions)
        seed = request.seed if request.HasField("seed") else self._draw_seed()
        stop_ids = set(request.stop_ids) | (set() if request.ignore_eos else set(info.eos_ids))
        machine = open_session(
            list(request.prompt),
            resume=list(request.resume),
            max_tokens=request.max_tokens,
            max_positions=info.max_positions,
            vocab_size=info.vocab_size,
            stop_ids=frozenset(stop_ids),
            mode=messages.mode_from_wire(request.speculation),
            keep_choices=top_logprobs >= 0,
            limits=served.session_limits,
        )
        history = History(prompt=tuple(request.prompt))
        for token in request.resume:
            history.append(token)
        engine = EngineSession(
            tenant=_tenant(context),
            params=params,
            key=completion_key(seed, request.completion_index),
            top_logprobs=top_logprobs,
            history=history,
        )
        prediction = tuple(request.prediction)
        session = self._host.open(machine, engine, seed, prediction=prediction, domain=request.domain)
        log.debug(
            "session %s opened: %d prompt tokens",
            session.id,
            len(request.prompt),
            extra={"label": request.label},
        )
        return session

    async def _serve_owner(
        self, session: HostedSession, cursor: int, observe: int, requests: Requests, context: Context
    ) -> None:
        own_guesses = _Drafting(self._host, session, "own")
        try:
            if observe and session.machine.mode is not SpeculationMode.OFF and not session.ended:
                session.observed.join(own_guesses.join(), observe)
            session.machine.replay(cursor)  # refuses a position that cannot be replayed, before anything is sent
            await self._serve(
                session,
                cursor,
                context,
                self._opened(session, owner=True),
                self._owner_says(session, own_guesses, requests),
                own_guesses,
            )
        finally:
            own_guesses.leave()
            self._host.owner_left(session)

    async def _owner_says(self, session: HostedSession, own_guesses: _Drafting, requests: Requests) -> None:
        async for request in requests:
            match request.WhichOneof("body"):
                case "draft":
                    own_guesses.receive(request.draft)
                case "cancel":
                    self._host.cancel(session)
                case other:
                    raise InvalidArgument(
                        f"request {other or 'without a body'} after Open; an owner sends Draft or Cancel"
                    )

    # -- drafters, and owners that come back ---------------------------------------------------------------------

    async def _join(self, request: pb.Join, requests: Requests, context: Context) -> None:
        messages.check_handshake(request.handshake, self._served.handshake)
        _check_observe(request.observe)
        session, as_owner = self._host.by_ticket(request.ticket)
        if as_owner:
            self._host.owner_joined(session)
            await self._serve_owner(session, request.position, request.observe, requests, context)
            return
        method = _method(request.method)
        guesses = _Drafting(self._host, session, method)
        ordinal = guesses.join()
        if request.observe:
            session.observed.join(ordinal, request.observe)
        self._metrics.drafters(method).inc()
        try:
            machine = session.machine
            opened = self._opened(session, owner=False, ordinal=ordinal)
            listen = self._drafter_says(guesses, requests)
            await self._serve(session, len(machine.tokens), context, opened, listen, guesses)
        finally:
            guesses.leave()
            self._metrics.drafters(method).dec()

    async def _drafter_says(self, guesses: _Drafting, requests: Requests) -> None:
        async for request in requests:
            body = request.WhichOneof("body")
            if body != "draft":
                raise InvalidArgument(f"request {body or 'without a body'} after Join; a drafter sends Draft")
            guesses.receive(request.draft)

    # -- both ----------------------------------------------------------------------------------------------------

    async def _serve(
        self,
        session: HostedSession,
        cursor: int,
        context: Context,
        opened: pb.Opened,
        listen: Coroutine[Any, Any, None],
        guesses: _Drafting,
    ) -> None:
        """Sends what is committed from `cursor` on while `listen` takes requests, until the session ends."""
        async with _one_cause(), asyncio.TaskGroup() as group:
            listening = group.create_task(listen)
            owner = bool(opened.owner_ticket)
            await context.write(pb.SessionEvent(opened=opened))
            while True:
                await session.changed(cursor, drafter=not owner)
                if len(session.machine.tokens) > cursor:
                    commit = session.commit_since(cursor, guesses.ordinal)
                    cursor = commit.end
                    await context.write(pb.SessionEvent(commit=messages.commit_to_wire(commit, with_logprobs=owner)))
                elif session.ended:
                    break
            if session.failure is not None:
                raise session.failure
            assert session.machine.finished is not None
            reason = messages.reason_to_wire(session.machine.finished)
            finished = pb.Finished(reason=reason, statistics=_statistics(session))
            await context.write(pb.SessionEvent(finished=finished))
            listening.cancel()

    def _opened(self, session: HostedSession, *, owner: bool, ordinal: int = 0) -> pb.Opened:
        machine, engine = session.machine, session.engine
        return pb.Opened(
            handshake=self._served.handshake,
            session_id=session.id,
            drafter_ticket=session.drafter_ticket if owner else "",
            owner_ticket=session.owner_ticket if owner else "",
            tokens=() if owner else machine.tokens,
            prompt_length=machine.prompt_length,
            sampling=messages.sampling_to_wire(engine.params),
            noise_key=engine.key,
            seed=session.seed if owner else 0,
            end_position=machine.end_position,
            window_nodes=machine.limits.window_nodes,
            row_budget=self._host.limits.budget.session_rows if owner else self._host.offer,
            system_fingerprint=self._served.fingerprint,
            tenant_tag=0 if owner else self._tenant_tag(engine.tenant),
            ordinal=ordinal,
            prediction=() if owner else session.prediction,
            tenant=engine.tenant if session.kept_best and not owner else "",
            vocab_size=0 if owner else self._served.info.vocab_size,
            domain=session.domain,
        )

    def _tenant_tag(self, tenant: str) -> int:
        """Tells tenants apart without naming them, and only for as long as this process lives."""
        return int.from_bytes(blake2b(tenant.encode(), key=self._tag_key, digest_size=8).digest(), "little")


class _Drafting:
    """One stream's place among a session's drafters; taken when its first guess arrives, given up at the end."""

    def __init__(self, host: VerifierHost, session: HostedSession, method: str) -> None:
        self._host = host
        self._session = session
        self._method = method
        self.ordinal: int | None = None

    def join(self) -> int:
        if self.ordinal is None:
            self.ordinal = self._host.join(self._session, self._method)
        return self.ordinal

    def receive(self, draft: pb.Draft) -> None:
        if not self._session.ended:
            self._host.draft(self._session, self.join(), messages.draft_from_wire(draft), draft.ByteSize())

    def leave(self) -> None:
        if self.ordinal is not None:
            self._host.leave(self._session, self.ordinal, self._method)
            self.ordinal = None


@contextlib.asynccontextmanager
async def _one_cause() -> AsyncIterator[None]:
    """A task group's exception group, reduced to the failure that caused it."""
    try:
        yield
    except BaseExceptionGroup as group:
        cause: BaseException = group
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        raise cause from None


async def _read(request_iterator: Requests) -> AsyncIterator[pb.SessionRequest]:
    """Requests of a stream; bytes that are no request become InvalidArgument, not a parser's message."""
    try:
        async for request in request_iterator:
            yield request
    except (DecodeError, UnicodeDecodeError, grpc.aio.UsageError):
        raise InvalidArgument("a request could not be parsed; it is no nacre.v1.SessionRequest") from None


def _tenant(context: Context) -> str:
    metadata = dict(context.invocation_metadata() or ())
    tenant = str(metadata.get(TENANT_METADATA, "local"))
    if len(tenant) > 64:
        raise InvalidArgument(f"metadata {TENANT_METADATA} is longer than 64 characters")
    return tenant


def _check_observe(count: int) -> None:
    if count > MOST_BEST:
        raise InvalidArgument(f"observe is {count}; at most {MOST_BEST} are told", param="observe")


def _method(named: str) -> str:
    """What a drafter's method counts as: whatever drafters call themselves, there are so many names and no more."""
    if named in KNOWN_METHODS:
        return named
    return "fusion" if "+" in named and KNOWN_METHODS.issuperset(named.split("+")) else "other"


def _statistics(session: HostedSession) -> pb.SessionStatistics:
    totals = session.totals
    return pb.SessionStatistics(
        tokens=len(session.machine.tokens) - session.machine.replay_from,
        passes=totals.passes,
        rows=totals.rows,
        verified_guesses=totals.verified,
        accepted_guesses=totals.accepted,
        received_guesses=totals.received,
        draft_bytes=totals.draft_bytes,
        verify_ms=totals.verify_ms,
        prefill_ms=totals.prefill_ms,
        cached_tokens=totals.cached_tokens or 0,
    )
