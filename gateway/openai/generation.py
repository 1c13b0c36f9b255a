"""Runs the generations of one request: tokens in order of position become pieces of text.

Rule: what is shown, counted and logged ends at the token that completes a stop string or at an end token, however the
verifier cut its commits; what was committed past it is dropped and the rest of the work called off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway.failover import RoutedSession
from gateway.openai.job import Job
from gateway.plane import Plane
from nacre.drafting.prediction import appeared
from nacre.errors import NacreError
from nacre.text import OutputText, Released, TokenEntry
from nacre.v1 import session_pb2 as pb

#: How long a finished answer waits for the verifier's last figures.
FIGURES_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Piece:
    """What became certain at once in one choice; `finish_reason` on the last one."""

    index: int
    text: str = ""
    entries: tuple[TokenEntry, ...] = ()
    token_ids: tuple[int, ...] = ()
    finish_reason: str | None = None


@dataclass(slots=True)
class Figures:
    """What a request took, over all its choices."""

    completion_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0
    cached_tokens: int = 0
    failovers: int = 0
    seed: int = 0
    statistics: pb.SessionStatistics = field(default_factory=pb.SessionStatistics)

    def add(self, session: RoutedSession, tokens: int, *, first_of_prompt: bool) -> None:
        statistics = session.statistics
        self.completion_tokens += tokens
        if first_of_prompt:  # the others find what it has computed, and a prompt counts once
            self.cached_tokens += statistics.cached_tokens
        self.failovers += session.failovers
        self.seed = session.seed
        for item in pb.SessionStatistics.DESCRIPTOR.fields:
            total = getattr(self.statistics, item.name) + getattr(statistics, item.name)
            setattr(self.statistics, item.name, total)


Emit = Callable[[Piece], Awaitable[None]]


class Generation:
    """One choice of a job."""

    def __init__(self, plane: Plane, job: Job, index: int, seed: int, emit: Emit) -> None:
        self._plane = plane
        self._job = job
        self._index = index
        self._emit = emit
        request = job.open_for(index)
        request.seed = seed
        self._prompt_tokens = len(request.prompt)
        self._session = RoutedSession(plane, request, drafters=job.drafters, tenant=job.tenant)
        self._text = OutputText(job.served.vocabulary, job.stops)
        self._tokens = 0
        self._ended_by: str | None = None

    async def run(self, figures: Figures, begun: float) -> None:
        """Generates to the end and adds to `figures`. Raises NacreError; cancelled, it gives the session up."""
        try:
            await self._session.start()
            await self._listen(begun)
            self._session.close()
            await self._session.settled(FIGURES_WAIT_S)
            await self._judge_prediction(figures)
            figures.add(self._session, self._tokens, first_of_prompt=self._index % self._job.n == 0)
            self._plane.metrics.speculated(self._session.statistics)
        except NacreError as error:
            self._plane.metrics.failed(error.grpc_status)
            raise
        finally:
            self._session.close()

    async def _judge_prediction(self, figures: Figures) -> None:
        """How much of the client's prediction the answer turned out to contain."""
        prediction = self._job.request.prediction
        if prediction:  # in a thread: two long texts would hold up everyone's tokens
            output = self._session.output[: self._tokens]
            accepted = await asyncio.to_thread(appeared, prediction, output)
            figures.accepted_prediction_tokens += accepted
            figures.rejected_prediction_tokens += len(prediction) - accepted

    async def _listen(self, begun: float) -> None:
        metrics = self._plane.metrics
        first_token_s: float | None = None
        last = begun
        while self._ended_by is None:
            event = await self._session.next()
            if isinstance(event, pb.Commit):
                now = time.monotonic()
                if first_token_s is None:
                    first_token_s = now - begun
                    metrics.first_token(first_token_s)
                else:
                    metrics.next_tokens(now - last)
                last = now
                await self._committed(event)
            elif isinstance(event, pb.Finished):
                self._ended_by = "length" if event.reason == pb.FINISH_REASON_LENGTH else "stop"
        released = self._text.finish()
        if self._text.stopped:
            self._ended_by = "stop"
        await self._emit(Piece(self._index, released.text, released.entries, finish_reason=self._ended_by))
        total_s = time.monotonic() - begun
        metrics.finished(
            self._ended_by,
            prompt_tokens=self._prompt_tokens,
            tokens=self._tokens,
            first_token_s=first_token_s or total_s,
            total_s=total_s,
        )

    async def _committed(self, commit: pb.Commit) -> None:
        text: list[str] = []
        entries: list[TokenEntry] = []
        ids: list[int] = []
        for index, token in enumerate(commit.tokens):
            ids.append(token)
            if token in self._job.end_ids:
                self._ended_by = "stop"
                break
            released = self._push(token, commit.logprobs[index] if index < len(commit.logprobs) else None)
            text.append(released.text)
            entries.extend(released.entries)
            if self._text.stopped:
                self._ended_by = "stop"
                break
        self._tokens += len(ids)
        piece = Piece(self._index, "".join(text), tuple(entries), tuple(ids))
        if piece.text or piece.entries or self._job.return_token_ids:
            await self._emit(piece)

    def _push(self, token: int, logprobs: pb.PositionLogprobs | None) -> Released:
        if logprobs is None:
            return self._text.push(token)
        return self._text.push(token, logprobs.logprob, tuple((top.id, top.logprob) for top in logprobs.top))
