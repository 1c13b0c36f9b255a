"""Read, merge, compare and set: how rows reach Redis.

A first pipeline reads the rows concerned from both generations; they are merged here, because Redis cannot read them;
a second sets each row whose nonce is still the one that was read. Both are one script per cluster slot, so a flush is
some thirty commands, however many buckets it touches. A second writer that was faster makes a conflict, which is
merged again; whoever reads meanwhile sees one row or the other, never half of one. The rows as merged also go to the
delta stream, as one block.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nacre.store.packing import join, pack, pack_tokens, unpack
from nacre.store.redis_layout import (
    BLOCK,
    DELTA_ENTRIES,
    LOG_ENTRIES,
    LOG_MS,
    MAX_FIELDS,
    READ,
    SPREAD,
    WRITE,
    Generation,
    Layout,
)
from nacre.store.redis_link import execute, forgot_script
from nacre.store.rows import Row, merged
from nacre.store.sealing import FIELD_BYTES, NONCE_BYTES
from nacre.store.write_queue import Coalesced

_SLICE = 128
_PLACE = struct.Struct(f"<H{FIELD_BYTES}s")
_ROW = struct.Struct(f"<H{FIELD_BYTES}sB{NONCE_BYTES}sH")
_PRESENT = 1
#: What the client library computes for a row and for a command, on top of what is measured: packing, parsing, waking.
CLIENT_S_PER_ROW, CLIENT_S_PER_COMMAND = 15e-6, 60e-6


@dataclass(slots=True)
class _Slot:
    """The rows of one flush whose buckets share a cluster slot; lists run along the rows but `buckets`."""

    buckets: dict[int, int] = field(default_factory=dict)
    keys: list[bytes] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    found: list[bytes] = field(default_factory=list)  # the nonces that were read; b"" for none

    def add(self, key: bytes, row: Row, number: int, name: bytes) -> None:
        self.keys.append(key)
        self.rows.append(row)
        self.places.append(self.buckets.setdefault(number, len(self.buckets)))
        self.names.append(name)


@dataclass(frozen=True, slots=True)
class _Call:
    keys: list[bytes]
    arguments: list[Any]


class RedisWriter:
    """`spent` is told how long computing took."""

    def __init__(self, spent: Callable[[float], None]) -> None:
        self._spent = spent
        self._scripts: dict[str, str] = {}

    async def write(self, client: Any, layout: Layout, rows: Coalesced, generation: Generation) -> Coalesced:
        """Stores rows; returns those that conflicted, as they were given. Raises what the client raises."""
        slots = await self._sort(layout, rows)
        reads = [_read(layout, slot, generation) for slot in slots]
        await self._merge(layout, slots, await self._run(client, READ, reads))
        writes, packed = await self._cover(layout, slots, generation)
        done = await self._run(client, WRITE, writes)
        pipe = client.pipeline(transaction=False)
        block = layout.seal.cover_block(b"delta", join(packed))
        pipe.xadd(layout.delta, {BLOCK: block}, maxlen=DELTA_ENTRIES, approximate=True)
        pipe.pexpireat(layout.delta, generation.expires_ms)
        await execute(pipe)
        commands = len(reads) + len(writes) + 2
        self._spent(CLIENT_S_PER_ROW * len(rows) + CLIENT_S_PER_COMMAND * commands)
        return {
            key: rows[key]
            for slot, ones in zip(slots, done, strict=True)
            for key, one in zip(slot.keys, ones, strict=True)
            if not one
        }

    async def log(self, client: Any, layout: Layout, outputs: Sequence[tuple[int, ...]]) -> None:
        pipe = client.pipeline(transaction=False)
        for tokens in outputs:
            block = layout.seal.cover_block(b"log", pack_tokens(tokens))
            pipe.xadd(layout.log, {BLOCK: block}, maxlen=LOG_ENTRIES, approximate=True)
        pipe.pexpire(layout.log, LOG_MS)
        await execute(pipe)

    async def _run(self, client: Any, script: str, calls: Sequence[_Call]) -> list[Any]:
        """One answer per call. What a restarted Redis forgot is loaded again."""
        for _ in range(2):
            if script not in self._scripts:
                self._scripts[script] = await client.script_load(script)
            pipe = client.pipeline(transaction=False)
            for call in calls:
                # By its name: a cluster's pipeline has no method for it, although it can do it.
                pipe.execute_command("EVALSHA", self._scripts[script], len(call.keys), *call.keys, *call.arguments)
            answers = await execute(pipe)
            if not forgot_script(answers):
                return answers
            del self._scripts[script]
        raise ConnectionError("it forgets scripts as soon as they are loaded")

    async def _sort(self, layout: Layout, rows: Coalesced) -> list[_Slot]:
        slots: dict[int, _Slot] = {}
        items = list(rows.items())
        for at in range(0, len(items), _SLICE):
            started = time.thread_time()
            for key, row in items[at : at + _SLICE]:
                number, name = layout.locate(row)
                slots.setdefault(number % SPREAD, _Slot()).add(key, row, number, name)
            self._spent(time.thread_time() - started)
            await asyncio.sleep(0)  # sessions come first
        return list(slots.values())

    async def _merge(self, layout: Layout, slots: list[_Slot], answers: list[Any]) -> None:
        """Each row becomes what is stored with what was seen."""
        for slot, values in zip(slots, answers, strict=True):
            started = time.thread_time()
            at = 0
            for index, name in enumerate(slot.names):
                mark, value = values[at], b""
                at += 1
                if mark:
                    size = values[at] | values[at + 1] << 8
                    value = values[at + 2 : at + 2 + size]
                    at += 2 + size
                slot.found.append(value[:NONCE_BYTES] if mark == _PRESENT else b"")
                before = _row(layout, name, value)
                if before is not None:
                    slot.rows[index] = merged(before, slot.rows[index])
            self._spent(time.thread_time() - started)
            await asyncio.sleep(0)

    async def _cover(
        self, layout: Layout, slots: list[_Slot], generation: Generation
    ) -> tuple[list[_Call], list[bytes]]:
        calls, packed = [], []
        for slot in slots:
            started = time.thread_time()
            rows = []
            for place, name, nonce, row in zip(slot.places, slot.names, slot.found, slot.rows, strict=True):
                packed.append(pack(row))
                value = layout.seal.cover(name, packed[-1])
                rows.append(_ROW.pack(place + 1, name, len(nonce) > 0, nonce, len(value)) + value)
            keys = [layout.bucket(number, generation.letter) for number in slot.buckets]
            calls.append(_Call(keys, [generation.expires_ms, MAX_FIELDS, b"".join(rows)]))
            self._spent(time.thread_time() - started)
            await asyncio.sleep(0)
        return calls, packed


def _read(layout: Layout, slot: _Slot, generation: Generation) -> _Call:
    keys = [
        layout.bucket(number, letter) for number in slot.buckets for letter in (generation.letter, generation.before)
    ]
    rows = [_PLACE.pack(2 * place + 1, name) for place, name in zip(slot.places, slot.names, strict=True)]
    return _Call(keys, [b"".join(rows)])


def _row(layout: Layout, name: bytes, value: bytes | None) -> Row | None:
    packed = layout.seal.uncover(name, value) if value else None
    if packed is None:
        return None
    try:
        return unpack(packed)
    except ValueError:
        return None
