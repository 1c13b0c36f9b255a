"""The delay proxy: later, in order, unchanged; stalls and resets on demand. No test asserts an upper bound on time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from nacre.errors import InvalidArgument
from nacre.runtime.delay_proxy import CHUNK_BYTES, MAX_UNDER_WAY_BYTES, DelayProxy, Link, Schedule


@contextlib.asynccontextmanager
async def echo_server() -> AsyncIterator[str]:
    """Sends everything back; half-closes when the other side does."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  what is waited for has no event; the test's timeout bounds it
        await asyncio.sleep(0.001)


async def dial(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


def test_a_delay_is_added_to_every_chunk():
    schedule = Schedule(Link(delay_s=0.05))
    assert [schedule.due(now, 100) for now in (1.0, 1.01, 9.0)] == pytest.approx([1.05, 1.06, 9.05])


def test_chunks_queue_behind_one_another_on_a_narrow_wire():
    schedule = Schedule(Link(delay_s=1.0, bytes_per_s=100.0))
    assert [schedule.due(0.0, 50), schedule.due(0.0, 100), schedule.due(10.0, 100)] == pytest.approx([1.5, 2.5, 12.0])


def test_jitter_is_seeded_bounded_and_never_reorders():
    link = Link(delay_s=0.01, jitter_s=0.1)
    times = [0.001 * step for step in range(500)]
    first, again, other = ([schedule.due(t, 1) for t in times] for schedule in map(Schedule, [link] * 3, [7, 7, 8]))
    assert first == again
    assert first != other
    assert first == sorted(first)
    # Waiting for the chunk before may add to a chunk's own delay, but that one's delay was bounded too.
    assert all(t + 0.01 <= due <= t + 0.11 for t, due in zip(times, first, strict=True))
    assert len({round(due - t, 6) for t, due in zip(times, first, strict=True)}) > 10


@pytest.mark.parametrize("link", [{"delay_s": -1}, {"jitter_s": float("nan")}, {"bytes_per_s": float("inf")}])
def test_a_link_that_cannot_be_is_refused(link: dict[str, float]):
    with pytest.raises(InvalidArgument, match="must be at least 0 and finite"):
        Link(**link)


async def test_a_megabyte_comes_back_unchanged_and_in_order():
    data = random.Random(1).randbytes(1_000_003)
    link = Link(delay_s=0.002, jitter_s=0.004, bytes_per_s=50e6)
    async with echo_server() as server, DelayProxy(server, link, seed=3) as proxy:
        reader, writer = await dial(proxy.address)
        writer.write(data)
        writer.write_eof()
        assert await reader.read(-1) == data
        writer.close()
        assert proxy.connections == 1


async def test_a_round_trip_takes_at_least_both_delays():
    async with echo_server() as server, DelayProxy(server, Link(delay_s=0.03)) as proxy:
        reader, writer = await dial(proxy.address)
        clock = asyncio.get_running_loop().time
        for _ in range(3):
            started = clock()
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
            assert clock() - started >= 0.06
        writer.close()


async def test_a_stalled_wire_keeps_its_bytes_and_delivers_them_afterwards():
    async with echo_server() as server, DelayProxy(server, Link()) as proxy:
        reader, writer = await dial(proxy.address)
        writer.write(b"before")
        assert await reader.readexactly(6) == b"before"
        proxy.stall()
        writer.write(b"during")
        await until(lambda: proxy.under_way_bytes == 6)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert proxy.under_way_bytes == 6
        proxy.resume()
        assert await reader.readexactly(6) == b"during"
        writer.close()


async def test_a_reset_breaks_both_ends_and_the_next_connection_works():
    async with echo_server() as server, DelayProxy(server, Link()) as proxy:
        reader, writer = await dial(proxy.address)
        writer.write(b"x")
        await reader.readexactly(1)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
        reader, writer = await dial(proxy.address)
        writer.write(b"y")
        assert await reader.readexactly(1) == b"y"
        writer.close()
        assert proxy.connections == 2


async def test_a_target_that_is_not_there_closes_the_connection():
    async with echo_server() as server:
        pass
    async with DelayProxy(server, Link()) as proxy:
        reader, writer = await dial(proxy.address)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read(1) == b""
        writer.close()


async def test_leaving_the_proxy_ends_what_runs_through_it_without_a_word():
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    async with echo_server() as server:
        async with DelayProxy(server, Link(delay_s=60)) as proxy:
            reader, writer = await dial(proxy.address)
            writer.write(b"never arrives")
            await until(lambda: proxy.under_way_bytes > 0)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read(1) == b""
        writer.close()
    assert complaints == []


async def test_a_port_in_use_is_an_error_that_names_it():
    async with echo_server() as server:
        host, _, port = server.rpartition(":")
        with pytest.raises(InvalidArgument, match=f"cannot listen on {server}"):
            await DelayProxy(server, Link(), host=host, port=int(port)).__aenter__()


async def test_a_full_wire_slows_the_sender_instead_of_filling_memory():
    async with echo_server() as server, DelayProxy(server, Link()) as proxy:
        reader, writer = await dial(proxy.address)
        proxy.stall()
        data = bytes(4 * MAX_UNDER_WAY_BYTES)
        writer.write(data)
        await until(lambda: proxy.under_way_bytes >= MAX_UNDER_WAY_BYTES)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert proxy.under_way_bytes < MAX_UNDER_WAY_BYTES + CHUNK_BYTES
        proxy.resume()
        writer.write_eof()
        assert await reader.read(-1) == data
        writer.close()
