"""Answers a job over HTTP, whole or as server-sent events, and calls everything off when the client leaves.

Rule: the status line is sent once the first token is there, so that every earlier failure has a proper status; one
after that is the last event of the stream. A stream that has been silent for a while gets a comment line, never an
event with nothing in it: empty choices crash clients.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from dataclasses import replace
from typing import Any

from starlette.types import Receive, Scope, Send

from gateway.failover import DRAWN_SEED_BITS
from gateway.openai import answers, errors
from gateway.openai.generation import Figures, Generation, Piece
from gateway.openai.job import Job
from gateway.plane import Plane, cause_of
from nacre.errors import Unavailable

_PING = b": ping\n\n"
_DONE = b"data: [DONE]\n\n"
#: Pieces waiting for a client that reads slowly; beyond it the generations wait for it.
_MAX_QUEUED_PIECES = 64


class JobResponse:
    """An ASGI application that answers one job."""

    def __init__(self, plane: Plane, job: Job) -> None:
        self._plane = plane
        self._job = job
        self._figures = Figures()
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self._answer(send))
            gone = group.create_task(_disconnected(receive))
            over = group.create_task(self._plane.over.wait())
            await asyncio.wait((work, gone, over), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
                if gone.done():
                    self._plane.metrics.client_left()
                else:
                    await self._fail(send, Unavailable("this gateway is shutting down; send the request again"))
            gone.cancel()
            over.cancel()

    async def _answer(self, send: Send) -> None:
        try:
            await (self._stream(send) if self._job.stream else self._whole(send))
        except Exception as failure:  # noqa: BLE001  whatever it is, the client is told in the shape it knows
            await self._fail(send, cause_of(failure))

    async def _fail(self, send: Send, failure: BaseException) -> None:
        error = errors.described(failure)
        if self._started:
            await send({"type": "http.response.body", "body": b"data: " + errors.body(error) + b"\n\n"})
        else:
            await send({"type": "http.response.start", "status": error.status, "headers": errors.headers(error)})
            await send({"type": "http.response.body", "body": errors.body(error)})

    # -- whole ---------------------------------------------------------------------------------------------------

    async def _whole(self, send: Send) -> None:
        pieces: dict[int, list[Piece]] = {index: [] for index in range(self._job.choices)}

        async def emit(piece: Piece) -> None:
            pieces[piece.index].append(piece)

        await self._generate(emit)
        job = self._job
        content = {
            **answers.envelope(job, chunk=False),
            "choices": [answers.whole_choice(job, index, pieces[index]) for index in range(job.choices)],
            "usage": answers.usage(job, self._figures),
            "metrics": answers.metrics(self._figures),
        }
        self._started = True
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": _json(content)})

    # -- streamed ------------------------------------------------------------------------------------------------

    async def _stream(self, send: Send) -> None:
        queue: asyncio.Queue[Piece | None] = asyncio.Queue(_MAX_QUEUED_PIECES)

        async def generate() -> None:
            await self._generate(queue.put)
            await queue.put(None)

        async with asyncio.TaskGroup() as group:
            group.create_task(generate())
            opened: set[int] = set()
            while True:
                try:
                    async with asyncio.timeout(self._plane.settings.ping_s):
                        piece = await queue.get()
                except TimeoutError:
                    await self._send(send, _PING)
                    continue
                if piece is None:
                    break
                for choice in self._choices(piece, opened):
                    await self._send(send, self._event({"choices": [choice]}))
        if self._job.include_usage:
            final = {
                "choices": [],
                "usage": answers.usage(self._job, self._figures),
                "metrics": answers.metrics(self._figures),
            }
            await self._send(send, self._event(final))
        await self._send(send, _DONE)
        await send({"type": "http.response.body", "body": b""})

    def _choices(self, piece: Piece, opened: set[int]) -> list[dict[str, Any]]:
        """The chunks of one piece: what opens a choice before its first text, text apart from the finish reason."""
        job, choices = self._job, []
        if piece.index not in opened:
            opened.add(piece.index)
            if job.chat:
                choices.append(answers.role_choice(piece.index))
            elif job.echo:
                choices.append(answers.chunk_choice(job, Piece(piece.index, answers.echoed(job, piece.index))))
        if piece.finish_reason is None or piece.text or piece.entries:
            choices.append(answers.chunk_choice(job, replace(piece, finish_reason=None)))
        if piece.finish_reason is not None:
            choices.append(answers.chunk_choice(job, Piece(piece.index, finish_reason=piece.finish_reason)))
        return choices

    def _event(self, content: dict[str, Any]) -> bytes:
        usage = {"usage": None} if self._job.include_usage else {}
        return b"data: " + _json({**answers.envelope(self._job, chunk=True), **usage, **content}) + b"\n\n"

    async def _send(self, send: Send, data: bytes) -> None:
        if not self._started:
            self._started = True
            headers = [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-cache"),
                (b"x-accel-buffering", b"no"),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data, "more_body": True})

    # -- both ----------------------------------------------------------------------------------------------------

    async def _generate(self, emit: Any) -> None:
        """All choices at the same time; the first failure ends the others."""
        job, plane = self._job, self._plane
        begun = time.monotonic()
        # One seed for all choices: their noise differs by their index.
        drawn = plane.settings.seed or secrets.randbits(DRAWN_SEED_BITS)
        seed = job.request.seed if job.request.HasField("seed") else drawn

        with plane.admission.places(job.choices) as places:

            async def run(index: int) -> None:
                async with places.turn():
                    await Generation(plane, job, index, seed, emit).run(self._figures, begun)

            async with asyncio.TaskGroup() as group:
                for index in range(job.choices):
                    group.create_task(run(index))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _json(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
