"""From what lies in Redis to rows: what is not covered under our key, or is no row, is counted and skipped.

Rule: others run after each block, bucket and output that was decoded, and no more rows of a block or a bucket are
looked at than a writer of ours puts there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import Any

from nacre.store.packing import key_in, split, unpack, unpack_tokens
from nacre.store.redis_layout import BLOCK, MAX_FIELDS, Generation, Layout
from nacre.store.redis_link import execute
from nacre.store.rows import Row
from nacre.store.store import StoreCounters
from nacre.store.write_queue import FLUSH_KEYS

#: The most rows of a bucket, in both generations, and of a block.
BUCKET_ROWS = 2 * MAX_FIELDS
BLOCK_ROWS = FLUSH_KEYS

#: Of a stream: its name, and its fields.
Entry = tuple[bytes, dict[bytes, bytes]]


async def rows_of_buckets(
    client: Any,
    layout: Layout,
    numbers: Sequence[int],
    generation: Generation,
    counters: StoreCounters,
    room: int | None = None,
) -> tuple[dict[bytes, Row], int]:
    """The rows of some buckets, and of how many of them: of as many, in order, as surely fit into `room`.

    Where both generations have a row the young one holds, which was merged from the old.
    """
    pipe = client.pipeline(transaction=False)
    for number in numbers:
        pipe.hgetall(layout.bucket(number, generation.before))
        pipe.hgetall(layout.bucket(number, generation.letter))
    found = await execute(pipe)
    rows: dict[bytes, Row] = {}
    read = 0
    for bucket in zip(found[::2], found[1::2], strict=True):
        if room is not None and len(rows) + BUCKET_ROWS > room:
            break
        for fields in bucket:
            rows.update(_rows_of_fields(layout, fields, counters))
            if fields:
                await asyncio.sleep(0)
        read += 1
    return rows, read


def _rows_of_fields(layout: Layout, fields: dict[bytes, bytes], counters: StoreCounters) -> dict[bytes, Row]:
    rows: dict[bytes, Row] = {}
    for field, value in islice(fields.items(), MAX_FIELDS):
        packed = layout.seal.uncover(field, value)
        try:
            if packed is None:
                raise ValueError("covered under another key")
            rows[key_in(packed)] = unpack(packed)
        except ValueError:
            counters.rows_corrupt += 1
    counters.rows_corrupt += max(0, len(fields) - MAX_FIELDS)
    return rows


async def newest_rows(layout: Layout, entries: Sequence[Entry], counters: StoreCounters, room: int) -> dict[bytes, Row]:
    """At most `room` rows of entries of the delta stream, newest first: what came later is what holds."""
    rows: dict[bytes, Row] = {}
    for _, fields in entries:
        for key, row in _rows_of_block(layout, fields, counters, room - len(rows)).items():
            rows.setdefault(key, row)
        if len(rows) >= room:
            break
        await asyncio.sleep(0)
    return rows


async def next_rows(
    layout: Layout, entries: Sequence[Entry], counters: StoreCounters, room: int
) -> tuple[dict[bytes, Row], int]:
    """The rows of entries of the delta stream, oldest first, and of how many: of as many as surely fit into `room`."""
    rows: dict[bytes, Row] = {}
    read = 0
    for _, fields in entries:
        if len(rows) + BLOCK_ROWS > room:
            break
        rows.update(_rows_of_block(layout, fields, counters, BLOCK_ROWS))
        read += 1
        await asyncio.sleep(0)
    return rows, read


def _rows_of_block(layout: Layout, fields: dict[bytes, bytes], counters: StoreCounters, room: int) -> dict[bytes, Row]:
    block = layout.seal.uncover_block(b"delta", fields.get(BLOCK, b""))
    try:
        if block is None:
            raise ValueError("covered under another key")
        return {key_in(packed): unpack(packed) for packed in islice(split(block), room)}
    except ValueError:
        counters.rows_corrupt += 1
        return {}


async def outputs_of(
    layout: Layout, entries: Sequence[Entry], counters: StoreCounters, room: int | None = None
) -> list[tuple[int, ...]]:
    """The outputs of entries of the log, in their order, up to `room` tokens; without those that are none of ours."""
    outputs: list[tuple[int, ...]] = []
    tokens = 0
    for _, fields in entries:
        output = _output(layout, fields, counters)
        tokens += len(output)
        if room is not None and tokens > room:
            break
        if output:
            outputs.append(output)
        await asyncio.sleep(0)
    return outputs


def _output(layout: Layout, fields: dict[bytes, bytes], counters: StoreCounters) -> tuple[int, ...]:
    """Empty if it is none of ours."""
    block = layout.seal.uncover_block(b"log", fields.get(BLOCK, b""))
    try:
        if block is None:
            raise ValueError("covered under another key")
        return unpack_tokens(block)
    except ValueError:
        counters.rows_corrupt += 1
        return ()
