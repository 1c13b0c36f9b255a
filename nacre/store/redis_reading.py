"""From what lies in Redis to rows: what is not covered under our key, or is no row, is counted and skipped."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from nacre.store.packing import key_in, split, unpack, unpack_tokens
from nacre.store.redis_layout import BLOCK, BUCKET_BITS, Generation, Layout
from nacre.store.redis_link import execute
from nacre.store.rows import Row
from nacre.store.store import StoreCounters


def places(bits: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """All buckets of a namespace, in the order in which they are read."""
    return tuple((kind, number) for kind, most in bits.items() for number in range(1 << most))


PLACES = places(BUCKET_BITS)


async def rows_of_buckets(
    client: Any,
    layout: Layout,
    places: Sequence[tuple[str, int]],
    generation: Generation,
    counters: StoreCounters,
) -> dict[bytes, Row]:
    """All rows of some buckets; where both generations have one, the young holds (it was merged from the old)."""
    pipe = client.pipeline(transaction=False)
    for kind, number in places:
        pipe.hgetall(layout.bucket(kind, number, generation.before))
        pipe.hgetall(layout.bucket(kind, number, generation.letter))
    rows: dict[bytes, Row] = {}
    for fields in await execute(pipe):
        for field, value in fields.items():
            packed = layout.seal.uncover(field, value)
            try:
                if packed is None:
                    raise ValueError("covered under another key")
                rows[key_in(packed)] = unpack(packed)
            except ValueError:
                counters.rows_corrupt += 1
        if fields:
            await asyncio.sleep(0)  # sessions come first
    return rows


def rows_of_block(
    layout: Layout, fields: dict[bytes, bytes], counters: StoreCounters, most: int | None = None
) -> dict[bytes, Row]:
    """One entry of the delta stream; no more than `most` rows of it."""
    block = layout.seal.uncover_block(b"delta", fields.get(BLOCK, b""))
    try:
        if block is None:
            raise ValueError("covered under another key")
        return {key_in(packed): unpack(packed) for packed in islice(split(block), most)}
    except ValueError:
        counters.rows_corrupt += 1
        return {}


def output_of(layout: Layout, fields: dict[bytes, bytes], counters: StoreCounters) -> tuple[int, ...]:
    """One entry of the log; empty if it is none of ours."""
    block = layout.seal.uncover_block(b"log", fields.get(BLOCK, b""))
    try:
        if block is None:
            raise ValueError("covered under another key")
        return unpack_tokens(block)
    except ValueError:
        counters.rows_corrupt += 1
        return ()
