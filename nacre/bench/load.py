"""Many sessions at a time: how many tokens a second the verifier writes for all of them.

Closed loop (the default): as many requests as sessions, begun together, their prompts read before. Counted is the time
in which all of them decode: from the moment the last one has its first token to the moment the first one has its last.
Open loop (`request_rate`): requests come at random times, gamma-distributed gaps of coefficient 1/sqrt(burstiness) (1:
Poisson), at most `max_concurrency` at a time; counted is everything, waiting included. *Goodput* is the rate of
requests whose TTFT and TPOT kept the bounds asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np

from nacre.bench.baselines import Baseline, runs_in
from nacre.bench.one_session import Asked, Told, generate
from nacre.bench.rig import until_idle
from nacre.bench.runners import Runners
from nacre.errors import Internal


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """`request_rate` is requests per second; 0: closed loop. Bounds are milliseconds; 0: none."""

    request_rate: float = 0.0
    max_concurrency: int = 0
    burstiness: float = 1.0
    requests: int = 0
    goodput_ttft_ms: float = 0.0
    goodput_tpot_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """One run of many sessions. `digest` is of all texts, in the order of the requests; the results keep only that."""

    baseline: str
    rtt_ms: float
    temperature: float
    sessions: int
    repeat: int
    tokens_per_s: float
    whole_tokens_per_s: float  # from the first request to the last token
    seconds: float
    tokens: int
    ttft_p50_ms: float
    ttft_p99_ms: float
    tpot_p50_ms: float
    itl_p99_ms: float
    goodput_per_s: float | None = None
    digest: str = ""
    counts: Mapping[str, float] = field(default_factory=dict)
    texts: tuple[tuple[int, ...], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "texts"}


async def run_load(
    runners: Runners,
    baseline: Baseline,
    prompts: Sequence[tuple[int, ...]],
    seeds: Sequence[int],
    *,
    tokens: int,
    temperature: float,
    rtt_ms: float,
    sessions: int,
    repeat: int,
    options: LoadOptions,
) -> Load:
    """Request i continues `prompts[i]` with `seeds[i]`. Raises NacreError."""
    if baseline.way == "batching":
        load = await _batching(runners, baseline, prompts, seeds, tokens, temperature, sessions, repeat)
        return replace(load, rtt_ms=rtt_ms)  # it has no network: it stands beside what it is compared with
    assert runs_in(baseline, "throughput"), f"{baseline.name} would be measured as something else"
    rig = runners.rig
    address = await rig.verifier_for(baseline)
    wire, served = await rig.wire(address, rtt_ms), await rig.served(address)
    drafter = await rig.drafter(baseline.drafter) if baseline.drafter is not None else None
    tenant = "load"  # every run finds the prompts read

    async def one(index: int, length: int = tokens) -> Told:
        asked = Asked(tuple(prompts[index]), length, temperature, seeds[index], tenant, baseline.mode)
        return await generate(rig, asked, wire, served, drafter=drafter if length > 1 else None)

    for index in range(len(prompts)):
        await one(index, length=1)
    if options.request_rate > 0:
        gaps = _gaps(len(prompts), options, seeds[0])
        room = asyncio.Semaphore(options.max_concurrency or len(prompts))
        clock = asyncio.get_running_loop().time

        async def in_time(index: int) -> Told:
            due = clock() + gaps[index]
            await asyncio.sleep(gaps[index])
            async with room:
                told = await one(index)
            told.started_s = due  # waiting for room is waiting too
            return told

        all_told = await asyncio.gather(*(in_time(index) for index in range(len(prompts))))
    else:
        all_told = await asyncio.gather(*(one(index) for index in range(len(prompts))))
    await until_idle()
    counts: dict[str, float] = {}
    for told in all_told:
        for name, value in told.counts.items():
            if not name.startswith("wire"):
                counts[name] = counts.get(name, 0) + value
    figures = load_figures(all_told, options)
    texts = tuple(told.tokens for told in all_told)
    digest = hashlib.sha256(repr(list(texts)).encode()).hexdigest()[:16]
    return Load(
        baseline.name, rtt_ms, temperature, sessions, repeat, digest=digest, counts=counts, texts=texts, **figures
    )


def load_figures(all_told: Sequence[Told], options: LoadOptions) -> dict[str, Any]:
    """The figures of a run from when each request began and each of its messages came."""
    started = min(told.started_s for told in all_told)
    ended = max(told.arrivals_s[-1] for told in all_told)
    tokens = sum(sum(told.arrival_tokens) for told in all_told)
    whole = tokens / (ended - started)
    ttft = [1e3 * (told.arrivals_s[0] - told.started_s) for told in all_told]
    tpot = [
        1e3 * (told.arrivals_s[-1] - told.arrivals_s[0]) / max(1, sum(told.arrival_tokens) - 1) for told in all_told
    ]
    gaps = np.concatenate([np.diff(told.arrivals_s) for told in all_told])
    together = None if options.request_rate > 0 else _together(all_told)
    kept = sum(
        (options.goodput_ttft_ms <= 0 or first <= options.goodput_ttft_ms)
        and (options.goodput_tpot_ms <= 0 or each <= options.goodput_tpot_ms)
        for first, each in zip(ttft, tpot, strict=True)
    )
    bounded = options.goodput_ttft_ms > 0 or options.goodput_tpot_ms > 0
    return {
        "tokens_per_s": whole if together is None else together,
        "whole_tokens_per_s": whole,
        "seconds": ended - started,
        "tokens": tokens,
        "ttft_p50_ms": float(np.median(ttft)),
        "ttft_p99_ms": float(np.percentile(ttft, 99)),
        "tpot_p50_ms": float(np.median(tpot)),
        "itl_p99_ms": float(np.percentile(gaps, 99)) * 1e3 if len(gaps) else 0.0,
        "goodput_per_s": kept / (ended - started) if bounded else None,
    }


def _together(all_told: Sequence[Told]) -> float | None:
    """Tokens per second while all sessions decode; None if that time is too short to tell."""
    begin = max(told.arrivals_s[0] for told in all_told)
    end = min(told.arrivals_s[-1] for told in all_told)
    tokens = sum(
        count
        for told in all_told
        for moment, count in zip(told.arrivals_s, told.arrival_tokens, strict=True)
        if begin < moment <= end
    )
    return tokens / (end - begin) if end > begin and tokens >= 8 * len(all_told) else None


def check_texts(loads: Sequence[Mapping[str, Any]], reference: str) -> None:
    """Raises Internal where a load wrote other texts than the reference did for the same requests."""

    def requests(load: Mapping[str, Any]) -> tuple[Any, ...]:
        return (load["temperature"], load["sessions"], load["repeat"])

    known = {requests(load): load["digest"] for load in loads if load["baseline"] == reference}
    for load in loads:
        expected = known.get(requests(load))
        if load["digest"] and expected and load["digest"] != expected:
            raise Internal(
                f"{load['baseline']} wrote other texts than {reference} with {load['sessions']} sessions at "
                f"{load['rtt_ms']:g} ms: exactness is broken"
            )


def first_repeats(loads: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry per baseline and cell: the mean throughput of its repeats, the other figures of the first."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for load in loads:
        same = [other for other in loads if _cell(other) == _cell(load)]
        mean = sum(other["tokens_per_s"] for other in same) / len(same)
        found.setdefault(_cell(load), {**load, "tokens_per_s": mean, "repeats": len(same)})
    return list(found.values())


def load_ratio(
    loads: Sequence[Mapping[str, Any]], load: Mapping[str, Any], reference: str = "ar", metric: str = "tokens_per_s"
) -> dict[str, Any] | None:
    """How many times the reference's throughput, repeat by repeat: the median, the least and the most.

    The two runs of a repeat follow one another within seconds, and what falls upon one of them on a machine that others
    use, too, is no property of either: hence not a ratio of means.
    """
    repeats = {other["repeat"]: other[metric] for other in loads if _cell(other) == _cell(load)}
    wanted = _cell({**load, "baseline": reference})
    against = {other["repeat"]: other[metric] for other in loads if _cell(other) == wanted}
    ratios = [repeats[repeat] / against[repeat] for repeat in repeats if repeat in against]
    if not ratios:
        return None
    return {"value": median(ratios), "low": min(ratios), "high": max(ratios), "repeats": len(ratios)}


def _cell(load: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(load[key] for key in ("scenario", "baseline", "rtt_ms", "temperature", "sessions"))


async def _batching(
    runners: Runners,
    baseline: Baseline,
    prompts: Sequence[tuple[int, ...]],
    seeds: Sequence[int],
    tokens: int,
    temperature: float,
    sessions: int,
    repeat: int,
) -> Load:
    jobs = await runners.yardsticks()
    job = {"way": "batching", "prompts": prompts, "max_tokens": tokens, "temperature": temperature, "seed": seeds[0]}
    answer = await jobs.do(job)
    all_told = [Told(arrivals_s=times, arrival_tokens=[1] * len(times)) for times in answer["timestamps"]]
    return Load(baseline.name, 0.0, temperature, sessions, repeat, **load_figures(all_told, LoadOptions()))


def _gaps(count: int, options: LoadOptions, seed: int) -> list[float]:
    """When each request comes, in seconds from the start."""
    random = np.random.default_rng(seed)
    shape = options.burstiness
    gaps = random.gamma(shape, 1.0 / (options.request_rate * shape), count)
    return [float(moment) for moment in np.cumsum(gaps) - gaps[0]]
