"""The blocking client: the asyncio client on a loop of its own thread.

with Client("127.0.0.1:8001") as client:
    for piece in client.generate("def fibonacci(n):", max_tokens=64):
        print(piece.text, end="")
    answer = client.complete("import ", max_tokens=8)
    print(answer.text, answer.statistics.acceptance_length)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Sequence
from types import TracebackType
from typing import Any, TypeVar

from nacre.client.asynchronous import AsyncClient
from nacre.client.generation import Generation, Piece
from nacre.v1 import verifier_pb2

T = TypeVar("T")


class Client:
    """Same arguments as `AsyncClient`. Use it as a context manager; it may be shared between threads."""

    def __init__(self, address: str = "127.0.0.1:8001", **options: Any) -> None:
        self._address = address
        self._options = options
        self._client: AsyncClient | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nacre-client", daemon=True)

    def __enter__(self) -> Client:
        self._thread.start()
        self._call(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._call(self._client.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def model(self) -> verifier_pb2.GetModelResponse:
        return self._call(self._entered.model())

    def generate(self, prompt: str | Sequence[int], **options: Any) -> Iterator[Piece]:
        """Streams the pieces of one generation; leaving the loop early cancels it."""
        generation = self._call(self._entered.start(prompt, **options))
        iterator = aiter(generation)
        try:
            while (piece := self._call(_next(iterator))) is not None:
                yield piece
        finally:
            self._call(generation.aclose())

    def complete(self, prompt: str | Sequence[int], **options: Any) -> Generation:
        """Runs one generation to its end."""
        return self._call(self._complete(prompt, options))

    @property
    def _entered(self) -> AsyncClient:
        assert self._client is not None, "use the client with `with`"
        return self._client

    async def _open(self) -> None:
        self._client = await AsyncClient(self._address, **self._options).__aenter__()

    async def _complete(self, prompt: str | Sequence[int], options: dict[str, Any]) -> Generation:
        generation = await self._entered.start(prompt, **options)
        return await generation.run()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _next(iterator: Any) -> Piece | None:
    return await anext(iterator, None)
