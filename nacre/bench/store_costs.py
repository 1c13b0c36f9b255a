"""What a shared store costs: `python -m nacre.bench.store_costs --url redis://127.0.0.1:6379/0`.

Reading: milliseconds from asking for a session's seed to having it, with `--rows` n-grams and 64 outputs stored.
Writing: what a verifier spends so that a store may learn, as a share of its time, with a pass of 8 rows every
`--pass-ms`: finding the best tokens of each row where that is due, handing the pass over, and all the processor time
of the store's own task, client library and event loop included, less that of the same loop without a store.

Everything is written under a tenant and a key made for this run, and purged at its end. Needs no model.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from statistics import median, quantiles

import torch

from nacre.bench.table_drafting import MadeUpText
from nacre.engine.scores import best_tokens
from nacre.errors import NacreError
from nacre.runtime.store_writer import KEPT_BEST, MOST_SAVED_S, StoreWriter
from nacre.session.observed import Observed, ObservedRow
from nacre.store import Namespace, Row
from nacre.store.keys import TenantKeys
from nacre.store.redis_store import RedisStore

TENANT = "store-costs"
NAMES = ("made-up", "1", "f" * 32)
ROWS_OF_PASS = 8
_PUT, _OUTPUTS, _OUTPUT_TOKENS, _SEEDS = 4096, 64, 200, 200


async def filled(store: RedisStore, text: MadeUpText, rows: int) -> None:
    """Stores so many n-grams of a text, and outputs."""
    space = Namespace(TENANT, *NAMES)
    known = (
        Row("ngram", (token, follower), text.rows[follower], 2)
        for token, followers in enumerate(text.followers)
        for follower in followers
    )
    part = list(islice(known, min(rows, _PUT)))
    while part and rows > 0:
        await store.put(space, part)
        rows -= len(part)
        part = list(islice(known, min(rows, _PUT)))
    starts = [place * _OUTPUT_TOKENS % (len(text.tokens) - _OUTPUT_TOKENS) for place in range(_OUTPUTS)]
    await store.put(space, [], [tuple(text.tokens[start : start + _OUTPUT_TOKENS]) for start in starts])


async def seed_ms(store: RedisStore) -> dict[str, float]:
    """Milliseconds of a session's start, and what it got."""
    space = Namespace(TENANT, *NAMES)
    taken = []
    for _ in range(_SEEDS + _SEEDS // 10):
        began = time.perf_counter()
        reading = await store.seed(space)
        taken.append((time.perf_counter() - began) * 1e3)
    del taken[: _SEEDS // 10]  # the first ones warm up
    told = {"median_ms": median(taken), "p95_ms": quantiles(taken, n=20)[-1], "most_ms": max(taken)}
    return {name: round(value, 2) for name, value in told.items()} | {
        "rows": len(reading.rows),
        "outputs": len(reading.outputs),
    }


def best_us(vocabulary: int) -> float:
    """Microseconds of finding the tokens of one pass that are kept."""
    logits = torch.randn(ROWS_OF_PASS, vocabulary).bfloat16()
    taken = []
    for _ in range(300):
        began = time.perf_counter()
        best_tokens(logits, KEPT_BEST)
        taken.append((time.perf_counter() - began) * 1e6)
    return median(taken)


async def passes_cpu_s(
    text: MadeUpText, seconds: float, pass_s: float, tell: Callable[[Observed, list[int]], None]
) -> float:
    """Processor seconds of this process while passes end every `pass_s` and are told of."""
    began_cpu, began = time.process_time(), time.perf_counter()
    passes = 0
    while (now := time.perf_counter()) < began + seconds:
        start = passes * ROWS_OF_PASS % (len(text.tokens) - ROWS_OF_PASS - 3)
        told = text.tokens[start : start + 3 + ROWS_OF_PASS]
        rows = [ObservedRow(place - 1, token, _best(text, token)) for place, token in enumerate(told[2:-1])]
        tell(Observed(3, tuple(rows)), told)
        passes += 1
        await asyncio.sleep(max(0.0, began + passes * pass_s - now))
    return time.process_time() - began_cpu


def _best(text: MadeUpText, token: int) -> tuple[tuple[int, float], ...]:
    return tuple((follower, -0.5 * rank - 0.7) for rank, follower in enumerate(text.followers[token]))


async def write_cost(store: RedisStore, text: MadeUpText, args: argparse.Namespace) -> dict[str, float]:
    """Shares of a verifier's time, in per cent."""
    writer = StoreWriter(store, *NAMES)
    handed: list[float] = []
    pass_s = args.pass_ms / 1e3
    found_us = best_us(args.vocabulary)
    writer.passed(0.0, MOST_SAVED_S)  # as it is after a while

    def tell(observed: Observed, tokens: list[int]) -> None:
        looked = writer.wants
        if looked:
            began = time.perf_counter()
            writer.settled(TENANT, tokens, observed)
            handed.append((time.perf_counter() - began) * 1e6)
        writer.passed(pass_s, found_us / 1e6 if looked else 0.0)

    idle_s = await passes_cpu_s(text, args.seconds, pass_s, lambda observed, tokens: None)
    await store.start()
    busy_s = await passes_cpu_s(text, args.seconds, pass_s, tell)
    own = 100 * (busy_s - idle_s) / args.seconds  # the handing over is in it
    searching = 100 * len(handed) * found_us / 1e6 / args.seconds
    return {
        "passes_looked_at": len(handed),
        "best_tokens_us": round(found_us, 1),
        "handed_over_us": round(median(handed), 1),
        "search_percent": round(searching, 2),
        "task_percent": round(own, 2),
        "percent": round(searching + own, 2),
        "rows_offered": store.counters.rows_offered,
        "rows_written": store.counters.rows_written,
        "rows_dropped": store.counters.rows_dropped,
    }


async def measure(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    text = MadeUpText(max(8 * 64, args.rows))
    keys = TenantKeys({TENANT: secrets.token_bytes(32)})
    store = RedisStore(args.url, keys, timeout_s=5.0)
    try:
        await filled(store, text, args.rows)
        # The made-up text is a million tuples that no service has: the collector is not to look at them.
        gc.collect()
        gc.freeze()
        read = await seed_ms(store)
        return {"seed": read, "write": await write_cost(store, text, args)}
    finally:
        gc.unfreeze()
        await store.close()  # writes what was still queued
        operator = RedisStore(args.url, keys)
        await operator.purge(TENANT)
        await operator.close()


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m nacre.bench.store_costs", description="What a store costs.")
    parser.add_argument("--url", required=True, help="a Redis; what is written there is purged again")
    parser.add_argument("--rows", type=int, default=100_000, help="n-grams stored (default 100000)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of passes, with and without (default 20)")
    parser.add_argument("--pass-ms", type=float, default=25.0, help="from pass to pass (default 25)")
    parser.add_argument("--vocabulary", type=int, default=4096, help="logits of a row (default 4096)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    args = parser.parse_args(argv)
    if min(args.rows, args.seconds, args.pass_ms, args.vocabulary - KEPT_BEST) <= 0:
        parser.error("rows, seconds and pass-ms must be greater than 0, and the vocabulary than what is kept of a row")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parsed(argv)
    torch.set_num_threads(1)
    try:
        results = asyncio.run(measure(args))
    except NacreError as error:
        sys.stderr.write(f"store_costs: {error.message}\n")
        sys.exit(1)
    if args.json:
        sys.stdout.write(json.dumps({"rows": args.rows, "pass_ms": args.pass_ms, "results": results}) + "\n")
        return 0
    for name, figures in results.items():
        for what, value in figures.items():
            sys.stdout.write(f"{name:6} {what:16} {value:>12g}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
