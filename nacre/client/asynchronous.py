"""The asyncio client: text or tokens in, a stream of committed tokens and text out.

    async with AsyncClient("127.0.0.1:8001") as client:
        async for piece in client.generate("def fibonacci(n):", max_tokens=64, seed=7):
            print(piece.text, end="")

With a `proposer` the client drafts for itself (device mode): guesses are made in this process and travel up the one
stream the tokens come down on.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar

import grpc

from nacre.client.generation import Generation, Piece, Request, Retry
from nacre.drafting import Proposer
from nacre.errors import InvalidArgument, Unavailable
from nacre.runtime.draft_worker import DraftWorker
from nacre.runtime.grpc_options import CHANNEL_OPTIONS
from nacre.session import DrafterLimits
from nacre.text import Vocabulary
from nacre.v1 import verifier_pb2, verifier_pb2_grpc
from nacre.wire import messages
from nacre.wire.errors import error_of

T = TypeVar("T")

#: A tokenizer file larger than this is not believed.
MAX_TOKENIZER_BYTES = 128 * 1024 * 1024
#: Calls made at once to find out how far the other side is: the fastest counts.
_DISTANCE_CALLS = 3


class AsyncClient:
    """A connection to a gateway or a verifier. Use it as an async context manager."""

    def __init__(
        self,
        address: str = "127.0.0.1:8001",
        *,
        proposer: Proposer | None = None,
        drafting: DrafterLimits = DrafterLimits(),  # noqa: B008  a frozen value
        batch_nodes: int = 4,
        retry: Retry = Retry(),  # noqa: B008  a frozen value
        timeout_s: float = 30.0,
        api_key: str | None = None,
    ) -> None:
        """`api_key` is what a gateway with keys asks for; default: the environment's NACRE_API_KEY."""
        key = os.environ.get("NACRE_API_KEY", "") if api_key is None else api_key
        self._metadata = (("authorization", f"Bearer {key}"),) if key else ()
        self.address = address
        self._proposer = proposer
        self._drafting = drafting
        self._batch_nodes = batch_nodes
        self._retry = retry
        self._timeout_s = timeout_s
        self._channel: grpc.aio.Channel | None = None
        self._worker: DraftWorker | None = None
        self._worker_task: asyncio.Task[None] | None = None
        self._vocabulary: Vocabulary | None = None
        self._rtt_s: float | None = None

    async def __aenter__(self) -> AsyncClient:
        self._channel = grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        if self._proposer is not None:
            self._worker = DraftWorker(self._proposer, self._drafting, batch_nodes=self._batch_nodes)
            self._worker_task = asyncio.create_task(self._worker.run(), name="device-drafter")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._worker_task is not None:
            self._worker_task.cancel()
            await asyncio.gather(self._worker_task, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    @property
    def _stub(self) -> verifier_pb2_grpc.VerifierStub:
        if self._channel is None:
            raise InvalidArgument("the client is not open; use it with `async with`")
        return verifier_pb2_grpc.VerifierStub(self._channel)

    async def model(self) -> verifier_pb2.GetModelResponse:
        """What is served: ids, limits, fingerprint."""
        return await self._patiently(
            lambda: self._stub.GetModel(
                verifier_pb2.GetModelRequest(), timeout=self._timeout_s, metadata=self._metadata
            )
        )

    async def vocabulary(self) -> Vocabulary:
        """The target's tokenizer, fetched once."""
        if self._vocabulary is None:
            self._vocabulary = Vocabulary(await self._patiently(self._tokenizer_json))
        return self._vocabulary

    async def _distance_s(self) -> float:
        """How far the other side is, there and back, for a drafter in this process; measured once, when connected."""
        if self._worker is None:
            return 0.0
        if self._rtt_s is None:
            calls = (self._asked_s() for _ in range(_DISTANCE_CALLS))
            took = [seconds for seconds in await asyncio.gather(*calls) if seconds is not None]
            self._rtt_s = min(took, default=None)
        return self._rtt_s or 0.0

    async def _asked_s(self) -> float | None:
        """Seconds that a small call takes; None if it fails: whatever is wrong, the generation will say."""
        asked = time.monotonic()
        try:
            await self._stub.GetModel(verifier_pb2.GetModelRequest(), timeout=self._timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError:
            return None
        return time.monotonic() - asked

    async def _tokenizer_json(self) -> bytes:
        data = bytearray()
        request = verifier_pb2.GetTokenizerRequest()
        async for piece in self._stub.GetTokenizer(request, timeout=self._timeout_s, metadata=self._metadata):
            data += piece.chunk
            if len(data) > MAX_TOKENIZER_BYTES:
                raise InvalidArgument(f"{self.address} sends a tokenizer of more than {MAX_TOKENIZER_BYTES} bytes")
        return bytes(data)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """A call that is tried again while the other side is coming up or going over to another."""
        for delay_s in (*self._retry.delays_s(), None):
            try:
                return await call()
            except grpc.aio.AioRpcError as failure:
                error = error_of(failure, self.address)
                if delay_s is None or not isinstance(error, Unavailable):
                    raise error from None
            await asyncio.sleep(delay_s)
        raise AssertionError("the last attempt returns or raises")

    async def start(
        self, prompt: str | Sequence[int], *, prediction: str | Sequence[int] = (), **options: Any
    ) -> Generation:
        """A generation of `prompt` (text, or token ids); `options` are the other fields of `Request`.

        `prediction` (likewise) is what the output is expected to be, for drafters that can use it.
        """
        vocabulary = await self.vocabulary()
        if isinstance(prompt, str):
            prompt = vocabulary.encode(prompt, add_special_tokens=True)
        if isinstance(prediction, str):
            prediction = vocabulary.encode(prediction, add_special_tokens=False)
        return Generation(
            self._stub,
            self.address,
            Request(prompt=tuple(prompt), prediction=tuple(prediction), **options),
            vocabulary=vocabulary,
            worker=self._worker,
            handshake=messages.handshake(tokenizer_fingerprint=vocabulary.fingerprint),
            metadata=self._metadata,
            retry=self._retry,
            rtt_s=await self._distance_s(),
        )

    async def generate(self, prompt: str | Sequence[int], **options: Any) -> AsyncGenerator[Piece, None]:
        """Streams the pieces of one generation; see `start` for one whose statistics are wanted too."""
        generation = await self.start(prompt, **options)
        try:
            async for piece in generation:
                yield piece
        finally:
            await generation.aclose()
