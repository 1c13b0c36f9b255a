"""One generation as its owner sees it: a stream of committed tokens that survives a lost connection.

Rule: a token at a position can only ever have one value. So after a break the generation is opened again with what is
committed so far, and whatever comes twice is dropped by position; the reader sees a pause, never a wrong, missing or
doubled token.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import grpc

from nacre.drafting import DraftContext
from nacre.errors import Internal, InvalidArgument, NacreError, Unavailable
from nacre.runtime.drafter_stream import OBSERVED_BEST, Outgoing, write_drafts
from nacre.sampling import Choice, SamplingParams
from nacre.session import Commit, FinishReason, Reanchor, SpeculationMode
from nacre.text import OutputText, Vocabulary
from nacre.v1 import session_pb2 as pb
from nacre.v1 import verifier_pb2_grpc
from nacre.wire import messages
from nacre.wire.errors import error_of
from nacre.wire.streams import send

if TYPE_CHECKING:
    from nacre.runtime.draft_worker import DraftWorker


@dataclass(frozen=True, slots=True)
class Request:
    """What to generate. `prompt` are token ids; `top_logprobs` -1 asks for no log-probabilities.

    `prediction` are token ids that the output is expected to be, `domain` is what the text is like (one of
    `nacre.text.DOMAINS`; a gateway that is not told finds out): they change its speed, never its text.
    """

    prompt: tuple[int, ...]
    max_tokens: int = 128
    sampling: SamplingParams = field(default_factory=SamplingParams)
    seed: int | None = None
    completion_index: int = 0
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    speculation: SpeculationMode = SpeculationMode.LATENCY
    drafters: int | None = None
    top_logprobs: int = -1
    label: str = ""
    prediction: tuple[int, ...] = ()
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one message brought. `text` are whole characters; it may lag behind `tokens`, and ends before a stop string.

    `guessed_by[i]` is 0 where the verifier sampled token i itself, else the ordinal of the drafter that guessed it.
    """

    text: str
    tokens: tuple[int, ...]
    guessed_by: tuple[int, ...]
    choices: tuple[Choice, ...] = ()


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the generation took, as the verifier counted it (the sum over verifiers after a failover is not known)."""

    tokens: int = 0
    passes: int = 0
    rows: int = 0
    verified_guesses: int = 0
    accepted_guesses: int = 0
    draft_bytes: int = 0
    verify_ms: float = 0.0
    prefill_ms: float = 0.0
    cached_tokens: int = 0
    resumed: int = 0

    @property
    def acceptance_length(self) -> float:
        """Committed tokens per verify pass, the verifier's own included."""
        return self.tokens / self.passes if self.passes else 0.0


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and how long apart, a broken connection is tried again."""

    attempts: int = 8
    first_delay_s: float = 0.1
    longest_delay_s: float = 2.0

    def delays_s(self) -> tuple[float, ...]:
        """The pause before each further attempt."""
        return tuple(min(self.first_delay_s * 2**i, self.longest_delay_s) for i in range(self.attempts))


class Generation:
    """Iterate over it for `Piece`s; afterwards `tokens`, `text`, `finish_reason`, `seed` and `statistics` are complete.

    Leaving the iteration early cancels the generation at the verifier; `aclose` does so explicitly.
    """

    def __init__(
        self,
        stub: verifier_pb2_grpc.VerifierStub,
        address: str,
        request: Request,
        *,
        vocabulary: Vocabulary | None = None,
        worker: DraftWorker | None = None,
        handshake: pb.Handshake | None = None,
        metadata: tuple[tuple[str, str], ...] = (),
        retry: Retry = Retry(),
        observe: Callable[[pb.SessionEvent], None] | None = None,
        rtt_s: float = 0.0,
    ) -> None:
        """`observe` sees every event as it comes, before it is acted on. `rtt_s` is how far `stub` is, for `worker`."""
        if request.stop and vocabulary is None:
            raise InvalidArgument("stop strings need the model's tokenizer; give the client one", param="stop")
        self.request = request
        self.tokens: list[int] = []
        self.guessed_by: list[int] = []
        self.choices: list[Choice] = []
        self.text = ""
        self.seed = request.seed
        self.finish_reason: FinishReason | None = None
        self.statistics = Statistics()
        self.system_fingerprint = ""
        #: Admits a drafter to the session under way; another one after each reconnection.
        self.drafter_ticket = ""
        self._stub = stub
        self._address = address
        # Nobody may draft for plain decoding, not even its owner.
        self._worker = worker if request.speculation is not SpeculationMode.OFF else None
        self._metadata = metadata
        self._handshake = handshake or messages.handshake()
        self._retry = retry
        self._observe = observe
        self._rtt_s = rtt_s
        self._output = OutputText(vocabulary, request.stop) if vocabulary is not None else None
        self._resumed = 0
        self._iterator: AsyncGenerator[Piece, None] | None = None

    def __aiter__(self) -> AsyncIterator[Piece]:
        if self._iterator is None:
            self._iterator = self._pieces()
        return self._iterator

    async def aclose(self) -> None:
        """Ends the generation now; harmless once it has ended."""
        if self._iterator is not None:
            await self._iterator.aclose()

    async def run(self) -> Generation:
        """Reads to the end."""
        async for _ in self:
            pass
        return self

    async def _pieces(self) -> AsyncGenerator[Piece, None]:
        failures = 0
        while self.finish_reason is None:
            known = len(self.tokens)
            try:
                async with contextlib.aclosing(self._stream()) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except Unavailable:
                failures = failures + 1 if len(self.tokens) == known else 1
                if failures > self._retry.attempts:
                    raise
                await asyncio.sleep(self._retry.delays_s()[failures - 1])
                self._resumed += bool(self.tokens)

    async def _stream(self) -> AsyncGenerator[Piece, None]:
        """One connection's worth of the generation."""
        call = self._stub.Session(metadata=self._metadata)
        drafting = _DeviceDrafting(self._worker, call, self._rtt_s)
        ended = False
        try:
            await send(call, pb.SessionRequest(open=self._open()))
            async for event in call:
                if self._observe is not None:
                    self._observe(event)
                match event.WhichOneof("body"):
                    case "opened":
                        self._opened(event.opened, drafting)
                    case "commit":
                        commit = messages.commit_from_wire(event.commit)
                        drafting.committed(commit)
                        piece = self._commit(commit)
                        if piece is not None:
                            yield piece
                        if self._output is not None and self._output.stopped:
                            self.finish_reason = FinishReason.STOP
                            return
                    case "reanchor":
                        drafting.reanchored(Reanchor(event.reanchor.position))
                    case "finished":
                        ended = True
                        piece = self._finished(event.finished)
                        if piece is not None:
                            yield piece
                        return
            raise Unavailable(f"{self._address} ended the stream before the generation was finished")
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure, self._address) from None
        finally:
            await drafting.close()
            if not ended and await send(call, pb.SessionRequest(cancel=pb.Cancel())):
                with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await call.done_writing()
            call.cancel()

    def _open(self) -> pb.Open:
        request = self.request
        message = pb.Open(
            handshake=self._handshake,
            prompt=request.prompt,
            resume=self.tokens,
            sampling=messages.sampling_to_wire(request.sampling),
            completion_index=request.completion_index,
            max_tokens=request.max_tokens,
            stop_ids=request.stop_ids,
            ignore_eos=request.ignore_eos,
            speculation=messages.mode_to_wire(request.speculation),
            label=request.label,
            prediction=request.prediction,
            domain=request.domain,
        )
        if self.seed is not None:
            message.seed = self.seed
        if request.drafters is not None:
            message.drafters = request.drafters
        if request.top_logprobs >= 0:
            message.top_logprobs = request.top_logprobs
        if self._worker is not None and self._worker.learns:
            message.observe = OBSERVED_BEST
        return message

    def _opened(self, opened: pb.Opened, drafting: _DeviceDrafting) -> None:
        if self.seed is None or not self.tokens:
            self.seed = opened.seed
        if self.system_fingerprint and self.system_fingerprint != opened.system_fingerprint:
            raise Internal("the verifier that took over is not the same as the one before; the text cannot go on")
        self.system_fingerprint = opened.system_fingerprint
        self.drafter_ticket = opened.drafter_ticket
        drafting.opened(opened, self.request, tuple(self.tokens))

    def _commit(self, commit: Commit) -> Piece | None:
        known = len(self.request.prompt) + len(self.tokens) - commit.position
        if known < 0:
            raise Internal(f"{self._address} left out tokens before position {commit.position}")
        start = len(self.tokens) - known
        if tuple(self.tokens[start : start + len(commit.tokens)]) != commit.tokens[:known]:
            raise Internal(f"{self._address} changed a token that was already committed")
        tokens, guessed_by = commit.tokens[known:], commit.guessed_by[known:]
        choices = commit.choices[known:]
        if not tokens:
            return None
        text = ""
        if self._output is not None:
            for taken, token in enumerate(tokens, start=1):
                text += self._output.push(token).text
                if self._output.stopped:  # what follows a stop string was never asked for
                    tokens, guessed_by, choices = tokens[:taken], guessed_by[:taken], choices[:taken]
                    break
        self.tokens.extend(tokens)
        self.guessed_by.extend(guessed_by)
        self.choices.extend(choices)
        self.text += text
        return Piece(text, tokens, guessed_by, choices)

    def _finished(self, finished: pb.Finished) -> Piece | None:
        self.finish_reason = messages.reason_from_wire(finished.reason)
        counted = finished.statistics
        self.statistics = replace(
            Statistics(),
            tokens=counted.tokens,
            passes=counted.passes,
            rows=counted.rows,
            verified_guesses=counted.verified_guesses,
            accepted_guesses=counted.accepted_guesses,
            draft_bytes=counted.draft_bytes,
            verify_ms=counted.verify_ms,
            prefill_ms=counted.prefill_ms,
            cached_tokens=counted.cached_tokens,
            resumed=self._resumed,
        )
        rest = self._output.finish().text if self._output is not None else ""
        self.text += rest
        return Piece(rest, (), ()) if rest else None


class _DeviceDrafting:
    """Device mode: a worker in this process guesses on the owner's own stream. Without a worker it does nothing."""

    def __init__(self, worker: DraftWorker | None, call: grpc.aio.StreamStreamCall, rtt_s: float) -> None:
        self._worker = worker
        self._call = call
        self._rtt_s = rtt_s
        self._outgoing = Outgoing()
        self._number: int | None = None
        self._writer: asyncio.Task[None] | None = None

    def opened(self, opened: pb.Opened, request: Request, output: tuple[int, ...]) -> None:
        if self._worker is None:
            return
        context = DraftContext(
            tokens=(*request.prompt, *output),
            prompt_length=len(request.prompt),
            params=messages.sampling_from_wire(opened.sampling),
            key=opened.noise_key,
            prediction=request.prediction,
            domain=opened.domain,
        )
        self._number = self._worker.open(
            context,
            end_position=opened.end_position,
            window_nodes=opened.window_nodes,
            send=self._outgoing.send,
            failed=self._outgoing.fail,
            delivered=self._outgoing.delivered,
            rtt_s=self._rtt_s,
        )
        self._writer = asyncio.create_task(self._write(), name="device-drafts")

    def committed(self, commit: Commit) -> None:
        if self._worker is not None and self._number is not None:
            self._worker.committed(self._number, commit)

    def reanchored(self, reanchor: Reanchor) -> None:
        if self._worker is not None and self._number is not None:
            self._worker.reanchored(self._number, reanchor)

    async def close(self) -> None:
        if self._worker is not None and self._number is not None:
            self._worker.close(self._number)
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)

    async def _write(self) -> None:
        with contextlib.suppress(NacreError):
            await write_drafts(self._call, self._outgoing)
