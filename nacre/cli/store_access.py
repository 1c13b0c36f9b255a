"""Which store a command means, and how it works in it: Redis, or the snapshot of a local store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from nacre.cli import options as flags

if TYPE_CHECKING:
    from nacre.store import Namespace, Row, Store

T = TypeVar("T")

Url = Annotated[
    str | None, flags.word("--url", "Redis: redis://host:port/db, rediss://, redis+cluster:// or unix://.", "URL")
]
KeyFile = Annotated[str | None, flags.word("--key-file", "Tenant keys; needed for Redis.", "FILE")]
Snapshot = Annotated[str | None, flags.word("--snapshot", "Snapshot of a local store, instead of Redis.", "FILE")]

#: Rows handed to the store at a time: what a progress bar moves by.
_PART = 4096


def store_settings(url: str | None, key_file: str | None, snapshot: str | None, config: str | None) -> Any:
    """The section [store] with a command's flags over it. Raises InvalidArgument."""
    from nacre.runtime.settings import StoreSettings, load_settings

    given = {"--url": url, "--key-file": key_file, "--snapshot": snapshot, "--config": config}
    arguments = [word for flag, value in given.items() if value is not None for word in (flag, value)]
    return load_settings(StoreSettings, "store", arguments, prog="nacre store").settings


def in_store(
    settings: Any, work: Callable[[Store], Awaitable[T]], *, changes: bool = False, creates: bool = False
) -> T:
    """What `work` returns, done in the store; a snapshot that it `changes` is written back, and need not exist yet if
    it `creates` one.
    """
    import asyncio

    async def all_of_it() -> T:
        async with _opened(settings, changes or creates, creates) as store:
            return await work(store)

    return asyncio.run(all_of_it())


async def put_rows(store: Store, namespace: Namespace, rows: Sequence[Row], text: str) -> None:
    """Merges rows part by part, in order, below a bar that is called `text`."""
    from nacre.cli.output import Steps

    with Steps().step(text, len(rows)) as advance:
        for at in range(0, len(rows), _PART):
            part = rows[at : at + _PART]
            await store.put(namespace, part)
            advance(len(part))


def tenants_of(store: Store, settings: Any, tenant: str | None) -> Sequence[str]:
    """Those asked for, or all there are. Raises InvalidArgument where that cannot be known."""
    from nacre.errors import InvalidArgument
    from nacre.runtime.stores import tenant_keys
    from nacre.store import PUBLIC, LocalStore

    if tenant is not None:
        return (tenant,)
    if isinstance(store, LocalStore):
        return store.tenants()
    listed = tenant_keys(settings).tenants
    if not listed:
        raise InvalidArgument("the key file names no tenant and Redis tells none; say which with --tenant")
    return (*listed, PUBLIC)


@asynccontextmanager
async def _opened(settings: Any, changes: bool, creates: bool) -> AsyncIterator[Store]:
    """Redis, or the snapshot of a local store; that is written back whole if it was to be changed."""
    from nacre.errors import InvalidArgument, NotFound
    from nacre.runtime.stores import build_store, local_store

    if settings.url:
        store = build_store(settings)
        try:
            yield store
        finally:
            await store.close()
        return
    if not settings.snapshot:
        raise InvalidArgument(
            "the store is inside the processes that use it; set url or snapshot in [store] of nacre.toml, or --url"
        )
    local = local_store(settings)
    with local.claimed() if changes else nullcontext():
        try:
            local.load()
        except NotFound:
            if not creates:
                raise InvalidArgument(
                    f"there is no snapshot {settings.snapshot} yet; a service writes it when it stops, and every minute"
                ) from None
        yield local
        if changes:
            await local.save()
