"""A verifier over the real session machine and a toy target, and a drafter that only listens; both with fault knobs."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from nacre.errors import NacreError, ResourceExhausted, Unauthenticated
from nacre.ids import vocabulary_fingerprint
from nacre.runtime.grpc_options import SERVER_OPTIONS
from nacre.sampling import completion_key
from nacre.session import Commit, Draft, SpeculationMode, VerifierSession, open_session
from nacre.v1 import drafter_pb2, drafter_pb2_grpc, verifier_pb2, verifier_pb2_grpc
from nacre.v1 import session_pb2 as pb
from nacre.wire import messages
from nacre.wire.errors import status_of
from tests.gateway import toy_target


@dataclass
class Faults:
    """What goes wrong, and when. Counts are output tokens the owner's stream has been sent."""

    break_after: int | None = None  # end the owner's stream with `code` …
    code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
    breaks: int = 1  # … this often
    forget: bool = False  # … and lose the session with it
    pause_after: int | None = None  # stop generating there until `resume` is set
    resume: asyncio.Event = field(default_factory=asyncio.Event)
    repeat: bool = False  # commits begin two tokens too early
    lie: bool = False  # what is repeated differs
    finish_early: int | None = None  # says that it gave the session up
    full: bool = False  # admits nobody
    mute: bool = False  # never answers Open
    slow_to_answer: asyncio.Event | None = None  # opens the session, but says so only then


@dataclass(eq=False)
class Hosted:
    machine: VerifierSession
    opened: pb.Open
    key: int
    seed: int
    owner_ticket: str = field(default_factory=lambda: secrets.token_hex(8))
    drafter_ticket: str = field(default_factory=lambda: secrets.token_hex(8))
    commits: list[Commit] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: bool = False
    received: int = 0
    hopeless: bool = False  # no guess of the drafter inside is right

    def announce(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class FakeVerifier(verifier_pb2_grpc.VerifierServicer):
    """`async with FakeVerifier() as verifier:` listens on `verifier.address`."""

    def __init__(
        self,
        *,
        fingerprint: str = "fp-toy",
        max_positions: int = 512,
        lookahead: int = 3,
        eos_share: int = 0,
        chat_template: str = "",
        model_id: str = "toy",
        port: int = 0,
    ) -> None:
        self.faults = Faults()
        self.fingerprint = fingerprint
        self.max_positions = max_positions
        self.lookahead = lookahead
        self.eos_share = eos_share
        self.chat_template = chat_template
        self.port = port
        self.opens: list[pb.Open] = []
        self.joins: list[pb.Join] = []
        self.metadata: list[dict[str, Any]] = []
        self.cancels = 0
        self.hosted: dict[str, tuple[Hosted, bool]] = {}
        self.sessions: list[Hosted] = []
        vocabulary = toy_target.tokenizer().get_vocab(with_added_tokens=True)
        self.handshake = messages.handshake(model_id, "r1", vocabulary_fingerprint(vocabulary))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> FakeVerifier:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self.server = grpc.aio.server(options=SERVER_OPTIONS)
        self.health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        verifier_pb2_grpc.add_VerifierServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port(self.address)
        await self.server.start()

    async def stop(self) -> None:
        """At once, as a killed process would; sessions are lost."""
        self.hosted.clear()
        await self.server.stop(None)

    async def drain(self) -> None:
        await self.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)

    # -- the API -------------------------------------------------------------------------------------------------

    async def GetModel(self, request: Any, context: Any) -> verifier_pb2.GetModelResponse:
        return verifier_pb2.GetModelResponse(
            handshake=self.handshake,
            vocab_size=toy_target.vocab_size(),
            max_positions=self.max_positions,
            eos_ids=[toy_target.EOS],
            dtype="toy",
            numerics="exact",
            system_fingerprint=self.fingerprint,
            sessions=len(self.sessions),
            max_sessions=1000,
            chat_template=self.chat_template,
        )

    async def GetTokenizer(self, request: Any, context: Any) -> AsyncIterator[verifier_pb2.GetTokenizerResponse]:
        data = toy_target.tokenizer_json()
        for start in range(0, len(data), 1000):
            yield verifier_pb2.GetTokenizerResponse(chunk=data[start : start + 1000])

    async def Session(self, request_iterator: Any, context: Any) -> None:
        requests = aiter(request_iterator)
        try:
            first = await anext(requests)
            if first.WhichOneof("body") == "open":
                self.metadata.append(dict(context.invocation_metadata()))
                if self.faults.mute:
                    await asyncio.Event().wait()
                hosted = self._open(first.open)
                if self.faults.slow_to_answer is not None:
                    await self.faults.slow_to_answer.wait()
                await self._serve(hosted, len(hosted.machine.tokens), requests, context, owner=True)
            else:
                self.joins.append(first.join)
                hosted, owner = self._by_ticket(first.join.ticket)
                start = first.join.position if owner else len(hosted.machine.tokens)
                await self._serve(hosted, start, requests, context, owner=owner)
        except NacreError as error:
            await context.abort(*status_of(error))

    # -- sessions ------------------------------------------------------------------------------------------------

    def _open(self, request: pb.Open) -> Hosted:
        self.opens.append(request)
        if self.faults.full:
            raise ResourceExhausted("full; try later")
        messages.check_handshake(request.handshake, self.handshake)
        params = messages.sampling_from_wire(request.sampling)
        params.validate(toy_target.vocab_size())
        machine = open_session(
            list(request.prompt),
            resume=list(request.resume),
            max_tokens=request.max_tokens,
            max_positions=self.max_positions,
            vocab_size=toy_target.vocab_size(),
            stop_ids=frozenset(request.stop_ids) | (frozenset() if request.ignore_eos else {toy_target.EOS}),
            mode=messages.mode_from_wire(request.speculation),
            keep_choices=request.HasField("top_logprobs"),
        )
        seed = request.seed if request.HasField("seed") else secrets.randbits(64)
        hosted = Hosted(machine, request, completion_key(seed, request.completion_index), seed)
        self.sessions.append(hosted)
        self.hosted[hosted.owner_ticket] = (hosted, True)
        self.hosted[hosted.drafter_ticket] = (hosted, False)
        hosted_task = asyncio.ensure_future(self._generate(hosted))
        hosted_task.add_done_callback(lambda task: task.cancelled() or task.result())
        return hosted

    def _by_ticket(self, ticket: str) -> tuple[Hosted, bool]:
        if ticket not in self.hosted:
            raise Unauthenticated("the ticket is unknown here")
        return self.hosted[ticket]

    def forget(self, hosted: Hosted) -> None:
        self.hosted.pop(hosted.owner_ticket, None)
        self.hosted.pop(hosted.drafter_ticket, None)

    async def _generate(self, hosted: Hosted) -> None:
        machine = hosted.machine
        params = messages.sampling_from_wire(hosted.opened.sampling)
        top = hosted.opened.top_logprobs if hosted.opened.HasField("top_logprobs") else -1
        own = machine.join() if machine.mode is not SpeculationMode.OFF and self.lookahead else None
        while machine.finished is None:
            done = len(machine.tokens) - machine.prompt_length
            if self.faults.pause_after is not None and done >= self.faults.pause_after:
                await self.faults.resume.wait()
                if machine.finished is not None:  # cancelled meanwhile
                    break
            if own is not None and len(machine.tokens) + 1 < machine.end_position:
                self._guess(hosted, own, params, done)
            plan = machine.plan(8)
            sampled = [
                toy_target.choose(
                    [*machine.tokens, *plan.ancestors(row)], params, hosted.key, top, eos_share=self.eos_share
                )
                for row in range(len(plan.tokens))
            ]
            hosted.commits.append(machine.resolve(plan, sampled, row_budget=8, verify_ms=1.0).commit)
            hosted.announce()
            await asyncio.sleep(0)
        hosted.announce()

    def _guess(self, hosted: Hosted, own: int, params: Any, done: int) -> None:
        """A drafter inside: right for a varying number of tokens, then wrong."""
        machine = hosted.machine
        tokens: list[int] = []
        for step in range(min(self.lookahead, machine.end_position - len(machine.tokens) - 1)):
            choice = toy_target.choose([*machine.tokens, *tokens], params, hosted.key, -1, eos_share=self.eos_share)
            wrong = hosted.hopeless or (done + step) % 5 == 3
            tokens.append(1 + choice.token % (toy_target.vocab_size() - 1) if wrong else choice.token)
        if tokens:
            machine.draft(own, Draft(1, tuple(tokens), anchor=len(machine.tokens)))

    # -- streams -------------------------------------------------------------------------------------------------

    async def _serve(self, hosted: Hosted, position: int, requests: Any, context: Any, *, owner: bool) -> None:
        listening = asyncio.ensure_future(self._listen(hosted, requests, owner=owner))
        try:
            await context.write(pb.SessionEvent(opened=self._opened(hosted, owner=owner)))
            await self._send(hosted, position, context, listening, owner=owner)
            if hosted.received:  # a write to a finished call would cost its sender the last messages
                await asyncio.wait({listening}, timeout=1.0)
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError, NacreError):
                await listening

    async def _send(self, hosted: Hosted, position: int, context: Any, listening: Any, *, owner: bool) -> None:
        machine, faults = hosted.machine, self.faults
        while True:
            if listening.done() and listening.exception() is not None:
                raise listening.exception()
            if position < len(machine.tokens):
                index = next(i for i, commit in enumerate(hosted.commits) if commit.end > position)
                commit = hosted.commits[index]
                if commit.position < position or faults.repeat:
                    start = max(machine.replay_from, min(position, commit.position) - 2 * faults.repeat)
                    replayed = machine.replay(start)
                    count = commit.end - start
                    commit = replace(
                        replayed, tokens=replayed.tokens[:count], choices=replayed.choices[:count], rows=commit.rows
                    )
                message = messages.commit_to_wire(commit, with_logprobs=owner)
                if faults.lie and message.position < position:
                    message.tokens[0] = 1 + message.tokens[0] % 300
                await context.write(pb.SessionEvent(commit=message))
                position = commit.end
                done = position - machine.prompt_length
                if owner and faults.finish_early is not None and done >= faults.finish_early:
                    faults.finish_early = None
                    self.forget(hosted)
                    await context.write(pb.SessionEvent(finished=pb.Finished(reason=pb.FINISH_REASON_CANCELLED)))
                    return
                if owner and faults.break_after is not None and done >= faults.break_after and faults.breaks:
                    faults.breaks -= 1
                    if faults.forget:
                        self.forget(hosted)
                    await context.abort(faults.code, "broken on purpose")
            elif machine.finished is not None:
                finished = pb.Finished(
                    reason=messages.reason_to_wire(machine.finished),
                    statistics=pb.SessionStatistics(
                        tokens=len(machine.tokens) - machine.replay_from,
                        passes=len(hosted.commits),
                        rows=sum(commit.rows for commit in hosted.commits),
                        verified_guesses=sum(commit.rows - 1 for commit in hosted.commits),
                        accepted_guesses=sum(len(commit.tokens) - 1 for commit in hosted.commits),
                        received_guesses=hosted.received,
                        draft_bytes=3 * hosted.received,
                        verify_ms=float(len(hosted.commits)),
                        cached_tokens=2,
                    ),
                )
                await context.write(pb.SessionEvent(finished=finished))
                self.forget(hosted)
                return
            else:
                await hosted.changed.wait()

    async def _listen(self, hosted: Hosted, requests: Any, *, owner: bool) -> None:
        ordinal: int | None = None
        try:
            async for request in requests:
                match request.WhichOneof("body"):
                    case "draft":
                        if ordinal is None:
                            ordinal = hosted.machine.join()
                        hosted.machine.draft(ordinal, messages.draft_from_wire(request.draft))
                        hosted.received += len(request.draft.guesses)
                    case "cancel":
                        assert owner
                        self.cancels += 1
                        hosted.cancelled = True
                        hosted.machine.cancel()
                        self.faults.resume.set()
                        hosted.announce()
        finally:
            if ordinal is not None:
                hosted.machine.leave(ordinal)
            hosted.announce()

    def _opened(self, hosted: Hosted, *, owner: bool) -> pb.Opened:
        machine = hosted.machine
        return pb.Opened(
            handshake=self.handshake,
            session_id="toy-session",
            drafter_ticket=hosted.drafter_ticket if owner else "",
            owner_ticket=hosted.owner_ticket if owner else "",
            tokens=() if owner else machine.tokens,
            prompt_length=machine.prompt_length,
            sampling=hosted.opened.sampling,
            noise_key=hosted.key,
            seed=hosted.seed if owner else 0,
            end_position=machine.end_position,
            window_nodes=64,
            row_budget=8,
            system_fingerprint=self.fingerprint,
            prediction=() if owner else hosted.opened.prediction,
        )


class FakeDrafter(drafter_pb2_grpc.DrafterServicer):
    """Notes which sessions it is asked to join, and joins none."""

    def __init__(
        self, *, model_id: str = "", method: str = "fake", refuse: grpc.StatusCode | None = None, port: int = 0
    ) -> None:
        self.attached: list[drafter_pb2.AttachRequest] = []
        self.handshake = messages.handshake(model_id)
        self.method = method
        self.refuse = refuse
        self.port = port

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> FakeDrafter:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self.server = grpc.aio.server(options=SERVER_OPTIONS)
        drafter_pb2_grpc.add_DrafterServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port(self.address)
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop(None)

    async def GetDrafter(self, request: Any, context: Any) -> drafter_pb2.GetDrafterResponse:
        return drafter_pb2.GetDrafterResponse(
            handshake=self.handshake, method=self.method, sessions=len(self.attached), max_sessions=100
        )

    async def Attach(self, request: Any, context: Any) -> drafter_pb2.AttachResponse:
        self.attached.append(request)
        if self.refuse is not None:
            await context.abort(self.refuse, "refused on purpose")
        return drafter_pb2.AttachResponse(session_id="toy-session")
