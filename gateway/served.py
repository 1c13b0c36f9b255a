"""What the verifiers behind this gateway serve: one model, one tokenizer, one fingerprint.

Rule: text is only exact across replicas that agree in everything a token depends on. The first verifier that answers
sets the identity; one that differs is refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from gateway.chat import ChatTemplate
from nacre.errors import FailedPrecondition
from nacre.text import Vocabulary, domain_of
from nacre.v1 import session_pb2 as pb
from nacre.v1 import verifier_pb2
from nacre.wire.errors import error_of

#: A tokenizer file larger than this is not read.
MAX_TOKENIZER_BYTES = 64 << 20
#: Tokens whose text tells what it is like.
TAIL_TOKENS = 512


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model as clients see it. `name` is its name over HTTP, `created` when it was first seen (Unix seconds)."""

    name: str
    model: verifier_pb2.GetModelResponse
    vocabulary: Vocabulary
    tokenizer_json: bytes
    chat: ChatTemplate | None
    created: int

    @property
    def handshake(self) -> pb.Handshake:
        return self.model.handshake

    def domain(self, tokens: Sequence[int]) -> str:
        """What a text is like that ends in these tokens: one of `nacre.text.DOMAINS`."""
        return domain_of(self.vocabulary.decode(tokens[-TAIL_TOKENS:]))

    @property
    def fingerprint(self) -> str:
        return self.model.system_fingerprint

    @property
    def vocab_size(self) -> int:
        return self.model.vocab_size

    @property
    def max_positions(self) -> int:
        return self.model.max_positions


def difference(ours: verifier_pb2.GetModelResponse, theirs: verifier_pb2.GetModelResponse) -> str | None:
    """What keeps a verifier from standing in for another, both values named; None if it can."""
    pairs: list[tuple[str, Any, Any]] = [
        (field.name.replace("_", " "), getattr(ours.handshake, field.name), getattr(theirs.handshake, field.name))
        for field in pb.Handshake.DESCRIPTOR.fields
    ]
    pairs += [
        ("system fingerprint", ours.system_fingerprint, theirs.system_fingerprint),
        ("vocabulary size", ours.vocab_size, theirs.vocab_size),
        ("context", ours.max_positions, theirs.max_positions),
        ("end-of-sequence ids", list(ours.eos_ids), list(theirs.eos_ids)),
    ]
    for what, here, there in pairs:
        if here != there:
            return f"its {what} is {there!r}, the others serve {here!r}"
    return None


async def fetch(
    stub: Any,
    address: str,
    model: verifier_pb2.GetModelResponse,
    *,
    name: str,
    chat_source: Callable[[str], str],
    timeout_s: float,
) -> ServedModel:
    """Reads the tokenizer of a verifier and checks it against the handshake. Raises NacreError."""
    chunks: list[bytes] = []
    size = 0
    try:
        async for response in stub.GetTokenizer(verifier_pb2.GetTokenizerRequest(), timeout=timeout_s):
            chunks.append(response.chunk)
            size += len(response.chunk)
            if size > MAX_TOKENIZER_BYTES:
                raise FailedPrecondition(f"{address} sends a tokenizer of more than {MAX_TOKENIZER_BYTES} bytes")
    except grpc.aio.AioRpcError as failure:
        raise error_of(failure, address) from None
    tokenizer_json = b"".join(chunks)
    vocabulary = await asyncio.to_thread(Vocabulary, tokenizer_json)
    promised = model.handshake.tokenizer_fingerprint
    if promised and promised != vocabulary.fingerprint:
        raise FailedPrecondition(
            f"{address} sends a tokenizer with fingerprint {vocabulary.fingerprint}, its handshake says {promised}"
        )
    template = chat_source(model.chat_template)
    specials = {
        "bos_token": vocabulary.leading_special(),
        "eos_token": vocabulary.spelling_of_special(model.eos_ids[0]) if model.eos_ids else "",
    }
    return ServedModel(
        name=name or model.handshake.model_id or "nacre",
        model=model,
        vocabulary=vocabulary,
        tokenizer_json=tokenizer_json,
        chat=ChatTemplate(template, specials) if template else None,
        created=int(time.time()),
    )
