"""Something that answers where a Redis is expected."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable

_COMMAND = re.compile(rb"\*\d+\r\n\$\d+\r\n(\w+)\r\n")


@contextlib.asynccontextmanager
async def impostor(answer: Callable[[bytes], bytes]) -> AsyncIterator[str]:
    """Gives its address. `answer` has what it says to a command of a name in capitals; nothing is silence."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while asked := await reader.read(65536):
                writer.write(b"".join(answer(name.upper()) for name in _COMMAND.findall(asked)))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


def info(text: str) -> bytes:
    """An answer to INFO."""
    return f"${len(text)}\r\n{text}\r\n".encode()
