"""Clients of one Redis and of a cluster, made from an address, and the few calls in which the two differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from nacre.errors import InvalidArgument

#: To one server; twice what the link asks for at once, because a question that was given up may let go of its
#: connection a little later. The client does not wait for one: more would be an error.
MAX_CONNECTIONS = 16
#: Ends the scheme of a cluster's address; the rest is any of its servers.
CLUSTER = "+cluster"
_SCHEMES = ("redis", "rediss")
#: What may follow the `?` of an address begins so: how TLS is checked. All else is set here.
_OPTIONS = "ssl_"


def shown(url: str) -> str:
    """The address without its password. Raises InvalidArgument for what is no such address."""
    try:
        parts = urlsplit(url)
        options = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
        stray = [name for name in options if not (name.startswith(_OPTIONS) and parts.scheme.startswith("rediss"))]
        if stray:
            raise InvalidArgument(
                f"the store's url has the option {stray[0]!r}; only those of TLS may stand there, such as ssl_ca_certs "
                "with rediss://",
                param="url",
            )
        if parts.scheme == "unix" and parts.path:
            return parts.path
        if parts.scheme in _SCHEMES and parts.hostname and (parts.path in ("", "/") or parts.path[1:].isdecimal()):
            return f"{parts.hostname}:{parts.port or 6379}"
        if parts.scheme.removesuffix(CLUSTER) in _SCHEMES and parts.hostname and parts.path in ("", "/", "/0"):
            return f"the cluster of {parts.hostname}:{parts.port or 6379}"
    except ValueError:  # a port that is no number, or not one of a port
        pass
    raise InvalidArgument(
        "the store's url cannot be used; write redis://host:6379/0, rediss:// for TLS, redis+cluster:// or "
        "rediss+cluster:// with any server of a cluster (which has no database but 0), or unix:///path/of/socket",
        param="url",
    )


def client_of(url: str, connect_s: float, socket_s: float) -> Any:
    """A client that connects when it is first asked. `url` is one that `shown` takes. Raises InvalidArgument."""
    scheme, _, rest = url.partition("://")
    kind = redis.asyncio.RedisCluster if scheme.endswith(CLUSTER) else redis.asyncio.Redis
    try:
        return kind.from_url(
            f"{scheme.removesuffix(CLUSTER)}://{rest}",
            socket_connect_timeout=connect_s,
            socket_timeout=socket_s,
            # Its own retries would multiply the timeout; ours is the breaker.
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            max_connections=MAX_CONNECTIONS,
            decode_responses=False,
        )
    except (ValueError, TypeError, RedisError) as error:
        raise InvalidArgument(
            f"the store's url cannot be used ({error}); check what follows its ?", param="url"
        ) from None


@dataclass(frozen=True, slots=True)
class ServerTotals:
    """Of one server, or of all primaries of a cluster together."""

    server: str  # redis, or valkey
    version: str
    keys: int
    used_bytes: int
    most_bytes: int
    evicted_keys: int


async def totals(client: Any) -> ServerTotals:
    """Raises what the client raises."""
    if isinstance(client, redis.asyncio.RedisCluster):
        servers = client.get_primaries() or [client.get_default_node()]
        abouts = [await client.info(target_nodes=server) for server in servers]
        keys = sum([await client.dbsize(target_nodes=server) for server in servers])
    else:
        abouts, keys = [await client.info()], await client.dbsize()
    server = str(abouts[0].get("server_name", "redis"))
    return ServerTotals(
        server=server,
        version=str(abouts[0].get(f"{server}_version", "")),
        keys=keys,
        used_bytes=sum(int(about.get("used_memory", 0)) for about in abouts),
        most_bytes=sum(int(about.get("maxmemory", 0)) for about in abouts),
        evicted_keys=sum(int(about.get("evicted_keys", 0)) for about in abouts),
    )


async def unlink_all(client: Any, pattern: bytes) -> int:
    """Removes every key that matches; returns how many. Raises what the client raises."""
    gone = 0
    found: list[bytes] = []
    async for key in client.scan_iter(match=pattern, count=1000):
        found.append(key)
        if len(found) == 1000:
            gone += await client.unlink(*found)
            found.clear()
    return gone + (await client.unlink(*found) if found else 0)
