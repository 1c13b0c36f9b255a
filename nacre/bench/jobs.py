"""Jobs for a child process: one JSON object a line over a socket in a private folder, one answer each, in order.

A child that cannot do a job answers with one line of why; a child that ends breaks the connection.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from nacre.errors import Internal, InvalidArgument, NacreError, Unavailable
from nacre.runtime.service import announce_ready

#: A line holds a whole prompt or a whole sample.
MAX_LINE_BYTES = 8 * 1024 * 1024


async def serve_jobs(path: str, work: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]], **ready: Any) -> None:
    """Announces the child and answers jobs until it is ended."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            try:
                answer: dict[str, Any] = {"done": await work(json.loads(line))}
            except NacreError as error:
                answer = {"failed": error.message, "internal": isinstance(error, Internal)}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(serve, path, limit=MAX_LINE_BYTES) as server:
        announce_ready(**ready)
        await server.serve_forever()


class Jobs:
    """The parent's end. One job at a time."""

    def __init__(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._name = name
        self._reader = reader
        self._writer = writer

    @staticmethod
    async def connect(name: str, path: str) -> Jobs:
        return Jobs(name, *await asyncio.open_unix_connection(path, limit=MAX_LINE_BYTES))

    async def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """Raises Unavailable if the child is gone.

        With its words: InvalidArgument if it cannot do the job, Internal if what it did was wrong.
        """
        try:
            self._writer.write(json.dumps(job).encode() + b"\n")
            await self._writer.drain()
            line = await self._reader.readline()
        except OSError:
            line = b""
        if not line:
            raise Unavailable(f"{self._name} has ended; its last words are above")
        answer = json.loads(line)
        if "failed" in answer:
            kind = Internal if answer["internal"] else InvalidArgument
            raise kind(f"{self._name}: {answer['failed']}")
        done: dict[str, Any] = answer["done"]
        return done

    def close(self) -> None:
        self._writer.close()
