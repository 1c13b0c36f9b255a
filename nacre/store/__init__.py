"""What drafters learnt, kept for the next session: in this process, or shared through Redis.

`Store` is the interface; `LocalStore` is the default; `RedisStore` (in `nacre.store.redis_store`, which needs the
`redis` extra) serves a fleet. A store costs speed when it fails, never a token: guesses are only ever guesses.
"""

from nacre.store.local import LocalStore
from nacre.store.rows import PUBLIC, Namespace, Row, merged
from nacre.store.store import Cursor, Reading, Store, StoreCounters, StoreStats

__all__ = [
    "PUBLIC",
    "Cursor",
    "LocalStore",
    "Namespace",
    "Reading",
    "Row",
    "Store",
    "StoreCounters",
    "StoreStats",
    "merged",
]
