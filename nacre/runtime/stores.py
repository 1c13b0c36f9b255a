"""Builds the store that the settings ask for. Loads the Redis client only for a store that is in Redis.

Rule: a service has a store if its settings say where: a url, or a snapshot. Else nothing is kept and nothing is asked.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from nacre.errors import FailedPrecondition, InvalidArgument
from nacre.runtime.settings import StoreSettings
from nacre.store import LocalStore, Namespace, Store
from nacre.store.keys import TenantKeys, read_keys

logger = logging.getLogger("nacre.store")


@asynccontextmanager
async def opened_store(settings: StoreSettings | None, *, writes: bool) -> AsyncIterator[Store | None]:
    """The store of a service, started; what it has queued at the end is written. None if there is to be none.

    A service that `writes` nothing leaves a snapshot as it is.

    Raises NacreError for settings that cannot be right. A store that cannot be reached is none of them.
    """
    if settings is None or not (settings.url or settings.snapshot):
        yield None
        return
    store = build_store(settings, writes=writes)
    try:
        await store.start()
        yield store
    finally:
        await store.close()


def build_store(settings: StoreSettings, *, writes: bool = True) -> Store:
    """Connects to nothing yet. Raises NacreError naming the setting that cannot be right."""
    if not settings.url:
        return local_store(settings, writes=writes)
    if settings.snapshot:
        raise InvalidArgument(
            f"snapshot is {settings.snapshot!r} and url is set too; a shared store needs no snapshot: leave one out",
            param="snapshot",
        )
    keys = tenant_keys(settings)
    try:
        from nacre.store.redis_store import RedisStore
    except ModuleNotFoundError:
        raise FailedPrecondition("redis is not installed; run: pip install 'nacre[redis]'") from None
    return RedisStore(
        settings.url,
        keys,
        ttl_s=settings.ttl_s,
        timeout_s=settings.timeout_s,
        log_tenants=settings.log_tenants,
    )


def local_store(settings: StoreSettings, *, writes: bool = True) -> LocalStore:
    """The store in this process."""
    return LocalStore(
        max_rows=settings.max_rows,
        max_log_tokens=settings.max_log_tokens,
        snapshot=Path(settings.snapshot).expanduser() if settings.snapshot else None,
        saves=writes,
        log_tenants=settings.log_tenants,
    )


async def warn_if_of_others(store: Store, served: Namespace) -> None:
    """Says so if a local store, which has its snapshot, has rows of other models only: nobody would notice otherwise.

    To be called once it is known which model is served; whose rows they are does not matter.
    """
    if not isinstance(store, LocalStore):
        return
    kept = {_model_in(space) for space, rows in (await store.stats()).namespaces if rows}
    if kept and _model_in(served) not in kept:
        logger.warning(
            "the snapshot has rows of %s and none of %s, which is served: they are not used; `nacre store import "
            "--other-models adopt` takes exported rows of the same tokenizer as another model's",
            ", ".join(sorted(kept)),
            _model_in(served),
        )


def _model_in(space: Namespace) -> str:
    """A namespace without its tenant."""
    return f"{space.target}@{space.revision or '-'}/{space.tokenizer_fingerprint}"


def tenant_keys(settings: StoreSettings) -> TenantKeys:
    if not settings.key_file:
        raise InvalidArgument(
            "url is set and key_file is not; rows in Redis are hidden by tenant keys: make some with "
            "`nacre store key FILE` and set key_file",
            param="key_file",
        )
    return read_keys(Path(settings.key_file).expanduser())
