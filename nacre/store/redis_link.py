"""One Redis, or a cluster of them, asked with a deadline: whatever it does, the caller gets an answer or None in time.

Slow, hung, gone, restarted, full, of another version, behind another password or no Redis at all: each is a failure
with a reason. Five failures in a row open the breaker; while it is open nobody waits at all, and one probe a second
finds out when it is over. An episode, from the opening to the first success, is one warning and one line at its end.
The warning gives what the server said last, if it said anything: silence and lost connections do not hide a refusal.
If it says why only later in the episode, that is one more warning.

At most eight questions are asked at once. Others wait for their turn, for half of their timeout at most: the other half
is for the answer, else a crowd would ask only what is too late to be answered. Rule: who had no turn is no failure of
the server's, nor who had one late and no answer in time, if anybody had an answer meanwhile. If nobody had, it is: a
server that hangs opens the breaker, however many ask.

A Redis that answers but takes no writes (full, a replica, a full disk) is an episode of its own: reading goes on, and
writing is tried again every second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import redis.exceptions
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    MovedError,
    NoPermissionError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

from nacre.errors import FailedPrecondition, NacreError, Unauthenticated, Unavailable
from nacre.store.breaker import CircuitBreaker
from nacre.store.redis_clients import client_of, shown
from nacre.store.store import StoreCounters

logger = logging.getLogger("nacre.store")

T = TypeVar("T")
Work = Callable[[Any], Awaitable[T]]

LEAST_VERSION = (6, 2)
CONNECT_S = 0.1
WRITE_PAUSE_S = 1.0
#: Several pipelines and the computing between them, where no session waits.
PATIENCE = 10
#: What an operator's command waits for one answer.
PATIENT_S = 5.0
#: Questions at once. Each takes one connection at a time, of a cluster one to each server.
MAX_ASKED = 8

_NOT_ADMITTED = (AuthenticationError, AuthorizationError, NoPermissionError)


class RefusesWrites(Exception):
    """It answers, and does not take what is written."""


class RedisLink:
    """`timeout_s` bounds a whole call, connecting included. Nothing is connected before it is needed."""

    def __init__(self, url: str, *, timeout_s: float, counters: StoreCounters) -> None:
        self.shown = shown(url)
        self._timeout_s = timeout_s
        self._counters = counters
        self._client = client_of(url, min(timeout_s, CONNECT_S), timeout_s)
        self._patient = client_of(url, PATIENT_S, PATIENT_S)
        self._turns = asyncio.Semaphore(MAX_ASKED)
        self._answers = 0  # since the start
        self._breaker = CircuitBreaker()
        self._known_good = False
        self._episode_s: float | None = None
        self._said: str | None = None  # by the server itself, since it last answered as it should
        self._warned: str | None = None  # of what was said, in this episode
        self._writes_refused_s: float | None = None

    @property
    def healthy(self) -> bool:
        return self._breaker.state == "closed" and self._writes_refused_s is None

    @property
    def state(self) -> str:
        return self._breaker.state

    def takes_writes(self) -> bool:
        """False for a moment after writes were refused."""
        return self._writes_refused_s is None or time.monotonic() >= self._writes_refused_s

    async def ask(self, work: Work[T], *, background: bool = False) -> T | None:
        """What `work(client)` returns, or None: never raises, never takes longer than the timeout.

        In the background, where nobody waits, that holds for each answer and the whole may take PATIENCE times as long.
        `work` must not ask again: it has its turn already.
        """
        if not self._breaker.allows(time.monotonic()):
            self._counters.skipped += 1
            return None
        limit_s = self._timeout_s * (PATIENCE if background else 1)
        crowded, answers = self._turns.locked(), self._answers
        turn = False
        try:
            async with asyncio.timeout(limit_s):
                turn = await self._turn(limit_s / 2)
                if not turn:
                    self._spared()
                    return None
                try:
                    if not self._known_good:
                        await _require_redis(self._client)
                    answer = await work(self._client)
                finally:
                    self._turns.release()
        except asyncio.CancelledError:
            self._breaker.abandoned()
            raise
        except RefusesWrites as refusal:  # it answered
            self._succeeded()
            self._refused(str(refusal))
            return None
        except Exception as error:  # noqa: BLE001  a peer that is no Redis can make the client raise anything
            if not turn or (crowded and isinstance(error, TimeoutError) and self._answers != answers):
                self._spared()
            else:
                self._failed(error)
            return None
        self._succeeded()
        return answer

    def wrote(self) -> None:
        """A write went through."""
        if self._writes_refused_s is not None:
            self._writes_refused_s = None
            logger.info("the store at %s takes writes again", self.shown)

    async def must(self, work: Work[T]) -> T:
        """For operators: patient, past the breaker. Raises NacreError saying what is wrong."""
        try:
            async with asyncio.timeout(PATIENT_S):
                await _require_redis(self._patient)
            return await work(self._patient)
        except NacreError as error:
            raise type(error)(f"the store at {self.shown} {error.message}") from None
        except RefusesWrites as refusal:
            raise Unavailable(f"the store at {self.shown} takes no writes ({refusal}); make room in it") from None
        except (RedisError, RedisClusterException, OSError, TimeoutError, ValueError, TypeError) as found:
            cause = _cause(found)
            kind = Unauthenticated if isinstance(cause, _NOT_ADMITTED) else Unavailable
            raise kind(f"the store at {self.shown} {_reason(cause, PATIENT_S)}") from None

    async def close(self) -> None:
        for client in (self._client, self._patient):
            try:
                await client.aclose()
            except (RedisError, OSError) as error:
                logger.debug("closing the store's connections: %s", error)

    async def _turn(self, within_s: float) -> bool:
        """Whether it came; then it must be given back."""
        try:
            async with asyncio.timeout(within_s):
                await self._turns.acquire()
        except TimeoutError:
            return False
        return True

    def _spared(self) -> None:
        """Too many asked: this one learnt nothing about the server."""
        self._breaker.abandoned()
        self._counters.skipped += 1

    def _succeeded(self) -> None:
        self._answers += 1
        self._known_good = True
        self._said = self._warned = None
        self._breaker.succeeded()
        if self._episode_s is not None:
            logger.info("the store at %s is back after %.1f s", self.shown, time.monotonic() - self._episode_s)
            self._episode_s = None

    def _failed(self, error: Exception) -> None:
        error = _cause(error)
        reason = _reason(error, self._timeout_s)
        if not (_is_late(error) or _is_lost(error)):
            self._said = reason
        self._counters.failures += 1
        self._known_good = False
        self._breaker.failed(time.monotonic())
        if self._breaker.state != "open":
            return
        if self._episode_s is None:
            self._episode_s = time.monotonic()
            self._counters.episodes += 1
            self._warned = self._said
            logger.warning(
                "the store at %s %s; going on without it, which costs speed only, until it is back",
                self.shown,
                self._said or reason,
            )
        elif self._said is not None and self._warned is None:
            self._warned = self._said
            logger.warning("the store at %s %s; that is what keeps us from it", self.shown, self._said)

    def _refused(self, reason: str) -> None:
        self._counters.full += 1
        if self._writes_refused_s is None:
            self._counters.episodes += 1
            logger.warning("the store at %s takes no writes (%s); reading goes on", self.shown, reason)
        self._writes_refused_s = time.monotonic() + WRITE_PAUSE_S


async def execute(pipe: Any) -> list[Any]:
    """All answers of a pipeline. Raises RefusesWrites, or the first other error; NOSCRIPT stays in its place."""
    answers = await pipe.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception) and not _is_no_script(answer):
            refusal = _refusal(answer)
            if refusal is None:
                raise answer
            raise RefusesWrites(refusal)
    return answers


def forgot_script(answers: Sequence[Any]) -> bool:
    return any(isinstance(answer, Exception) for answer in answers)


async def _require_redis(client: Any) -> None:
    """Raises FailedPrecondition for a Redis too old, or something else that answered."""
    version = str((await client.info("server")).get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if len(numbers) < 2:
        raise FailedPrecondition("answers, but is no Redis; check the port in the store's url")
    if numbers < LEAST_VERSION:
        wanted = ".".join(map(str, LEAST_VERSION))
        raise FailedPrecondition(f"is Redis {version} and {wanted} or newer is needed; upgrade it, or use Valkey")


def _cause(error: Exception) -> Exception:
    """Behind a cluster that cannot be connected is what became of the connections."""
    cause = error.__cause__
    return cause if isinstance(error, RedisClusterException) and isinstance(cause, Exception) else error


def _is_late(error: Exception) -> bool:
    return isinstance(error, (TimeoutError, redis.exceptions.TimeoutError))


def _is_lost(error: Exception) -> bool:
    if isinstance(error, RuntimeError):  # what uvloop says of a connection that was lost
        return "closed" in str(error)
    return isinstance(error, (OSError, redis.exceptions.ConnectionError)) and not isinstance(error, _NOT_ADMITTED)


def _is_no_script(error: Exception) -> bool:
    return type(error).__name__ == "NoScriptError"


def _refusal(error: Exception) -> str | None:
    text = str(error)
    if "OOM" in text or type(error).__name__ == "OutOfMemoryError":
        return "its memory is full: raise maxmemory, or choose maxmemory-policy allkeys-lfu"
    if type(error).__name__ == "ReadOnlyError" or "READONLY" in text:
        return "it is a read-only replica: give the address of the primary"
    if "MISCONF" in text:
        return "it cannot save to its disk"
    return None


def _reason(error: Exception, timeout_s: float) -> str:
    if isinstance(error, NacreError):
        return error.message
    text = " ".join(str(error).split())
    if isinstance(error, RedisClusterException) and "not enabled" in text:
        return "is no cluster; write redis:// in the store's url"
    text = text[:120]
    if isinstance(error, NoPermissionError):
        return f"forbids what we need ({text}); give our user the commands and keys that docs/store.md lists"
    if isinstance(error, _NOT_ADMITTED) or (
        isinstance(error, ResponseError) and ("NOAUTH" in text or "WRONGPASS" in text or "invalid password" in text)
    ):
        return "refuses our password; check user and password in the store's url"
    if _is_late(error):
        return f"gives no answer within {timeout_s:g} s"
    if isinstance(error, MovedError):
        return "is one of a cluster; write redis+cluster:// in the store's url"
    if isinstance(error, ResponseError):
        return f"answers with an error ({text})"
    if _is_lost(error):
        return f"cannot be reached ({text or type(error).__name__})"
    return f"answers, but not as Redis does ({text or type(error).__name__}); check the port in the store's url"
