"""Read, merge, compare and set: how rows reach Redis.

One pipeline reads the rows concerned from both generations; they are merged here, because Redis cannot read them; one
pipeline of scripts, one per bucket, sets each row whose nonce is still the one that was read. A second writer that was
faster makes a conflict, which is merged again; whoever reads meanwhile sees one row or the other, never half of one.
The rows as merged also go to the delta stream, as one block.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nacre.store.packing import join, pack, pack_tokens, unpack
from nacre.store.redis_layout import (
    BLOCK,
    DELTA_ENTRIES,
    DELTA_MS,
    LOG_ENTRIES,
    LOG_MS,
    MAX_FIELDS,
    SCRIPT,
    Generation,
    Layout,
)
from nacre.store.redis_link import execute, forgot_script
from nacre.store.rows import Row, merged
from nacre.store.sealing import NONCE_BYTES
from nacre.store.write_queue import Coalesced

_SLICE = 32
#: What the client library computes for a row, on top of what is measured: packing commands, parsing answers.
CLIENT_S_PER_ROW = 15e-6


@dataclass(slots=True)
class _Bucket:
    """The rows of one flush that share a bucket."""

    kind: str
    number: int
    keys: list[bytes] = field(default_factory=list)
    fields: list[bytes] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    found: list[bytes] = field(default_factory=list)  # the nonces that were read; b"" for none


class RedisWriter:
    """`spent` is told how long computing took."""

    def __init__(self, spent: Callable[[float], None]) -> None:
        self._spent = spent
        self._script = ""

    async def write(self, client: Any, layout: Layout, rows: Coalesced, generation: Generation) -> Coalesced:
        """Stores rows; returns those that conflicted, as they were given. Raises what the client raises."""
        buckets = await self._sort(layout, rows)
        pipe = client.pipeline(transaction=False)
        for bucket in buckets:
            for letter in (generation.letter, generation.before):
                pipe.hmget(layout.bucket(bucket.kind, bucket.number, letter), bucket.fields)
        answers = await execute(pipe)
        await self._merge(layout, buckets, answers)
        packed = await self._send(client, layout, buckets, generation)
        conflicts = {
            key: rows[key]
            for bucket, done in zip(buckets, packed, strict=True)
            for key, one in zip(bucket.keys, done, strict=True)
            if not one
        }
        self._spent(CLIENT_S_PER_ROW * len(rows))
        return conflicts

    async def log(self, client: Any, layout: Layout, outputs: Sequence[tuple[int, ...]]) -> None:
        pipe = client.pipeline(transaction=False)
        for tokens in outputs:
            block = layout.seal.cover_block(b"log", pack_tokens(tokens))
            pipe.xadd(layout.log, {BLOCK: block}, maxlen=LOG_ENTRIES, approximate=True)
        pipe.pexpire(layout.log, LOG_MS)
        await execute(pipe)

    async def _sort(self, layout: Layout, rows: Coalesced) -> list[_Bucket]:
        buckets: dict[tuple[str, int], _Bucket] = {}
        items = list(rows.items())
        for at in range(0, len(items), 4 * _SLICE):
            started = time.perf_counter()
            for key, row in items[at : at + 4 * _SLICE]:
                number, name = layout.locate(row)
                bucket = buckets.setdefault((row.kind, number), _Bucket(row.kind, number))
                bucket.keys.append(key)
                bucket.fields.append(name)
                bucket.rows.append(row)
            self._spent(time.perf_counter() - started)
            await asyncio.sleep(0)
        return list(buckets.values())

    async def _merge(self, layout: Layout, buckets: list[_Bucket], answers: list[Any]) -> None:
        """Each bucket's rows become what is stored with what was seen."""
        for at in range(0, len(buckets), _SLICE):
            started = time.perf_counter()
            for place in range(at, min(at + _SLICE, len(buckets))):
                bucket = buckets[place]
                present, past = answers[2 * place], answers[2 * place + 1]
                for index, name in enumerate(bucket.fields):
                    bucket.found.append(present[index][:NONCE_BYTES] if present[index] else b"")
                    before = _row(layout, name, present[index] or past[index])
                    if before is not None and before.kind == bucket.kind:
                        bucket.rows[index] = merged(before, bucket.rows[index])
            self._spent(time.perf_counter() - started)
            await asyncio.sleep(0)

    async def _send(
        self, client: Any, layout: Layout, buckets: list[_Bucket], generation: Generation
    ) -> list[list[int]]:
        if not self._script:
            self._script = await client.script_load(SCRIPT)
        packed: list[bytes] = []
        calls: list[tuple[bytes, list[Any]]] = []
        for at in range(0, len(buckets), _SLICE):
            started = time.perf_counter()
            for bucket in buckets[at : at + _SLICE]:
                arguments: list[Any] = [generation.expires_ms, MAX_FIELDS]
                for name, nonce, row in zip(bucket.fields, bucket.found, bucket.rows, strict=True):
                    packed.append(pack(row))
                    arguments += (name, nonce, layout.seal.cover(name, packed[-1]))
                calls.append((layout.bucket(bucket.kind, bucket.number, generation.letter), arguments))
            self._spent(time.perf_counter() - started)
            await asyncio.sleep(0)
        block = layout.seal.cover_block(b"delta", join(packed))
        for _ in range(2):
            pipe = client.pipeline(transaction=False)
            for key, arguments in calls:
                pipe.evalsha(self._script, 1, key, *arguments)
            answers = await execute(pipe)
            if not forgot_script(answers):
                break
            # It was restarted, or its scripts were flushed: nothing of this pipeline happened.
            self._script = await client.script_load(SCRIPT)
        pipe = client.pipeline(transaction=False)
        pipe.xadd(layout.delta, {BLOCK: block}, maxlen=DELTA_ENTRIES, approximate=True)
        pipe.pexpire(layout.delta, DELTA_MS)
        await execute(pipe)
        return answers


def _row(layout: Layout, name: bytes, value: bytes | None) -> Row | None:
    packed = layout.seal.uncover(name, value) if value else None
    if packed is None:
        return None
    try:
        return unpack(packed)
    except ValueError:
        return None
