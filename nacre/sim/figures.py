"""What a simulated deployment achieved: the metrics of the bench, and what a fleet costs.

Definitions as in `nacre bench`: a session's speed counts tokens after its first message over the time after it; ITL is
the gap between messages at the client; acceptance length is tokens per pass. `tokens_per_s` is the whole fleet's:
all tokens over the time from the first request to the last token. `rolled_back_share` is of guesses made, sent or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean, median, stdev
from typing import Any

from nacre.sim.dials import Dials
from nacre.sim.fleet import Generation, Seen
from nacre.sim.hosted import Tally

#: Half-width of the 95 % interval in standard errors, by degrees of freedom up to ten; beyond them 2 is close enough.
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)


@dataclass(frozen=True, slots=True)
class Figures:
    """One deployment under one load. Shares lie in 0 to 1; None where there is nothing to measure.

    `tokens_per_s_interval` is the 95 % interval over the simulated parts where only some of a fleet were simulated.
    """

    tokens: int
    seconds: float
    tokens_per_s: float
    tokens_per_s_interval: tuple[float, float] | None
    session_tokens_per_s: float | None
    ttft_p50_ms: float
    ttft_p99_ms: float
    itl_p50_ms: float | None
    itl_p99_ms: float | None
    acceptance_length: float
    acceptance_rate: float | None
    rows_per_token: float
    wasted_rows_share: float
    rolled_back_share: float | None
    verifier_s_per_token: float
    payload_up_bytes_per_token: float
    drafts_per_token: float
    verifier_idle_share: float
    drafter_idle_share: float | None
    dollars_per_million_tokens: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def figures(dials: Dials, parts: Sequence[Seen]) -> Figures:
    """Of a fleet whose simulated `parts` stand for all of it."""
    generations = [generation for seen in parts for generation in seen.generations]
    tokens = sum(_tokens(generation) for generation in generations)
    simulated = sum(seen.verifiers for seen in parts)
    scale = dials.verifiers / simulated
    speeds = [sum(_tokens(g) for g in seen.generations) / seen.seconds for seen in parts]
    speed = sum(speeds) * scale
    tally = Tally()
    for seen in parts:
        for name in Tally.__slots__:
            setattr(tally, name, getattr(tally, name) + getattr(seen.tally, name))
    gaps = sorted(
        1e3 * (after - before)
        for generation in generations
        for (before, _), (after, _) in zip(generation.received, generation.received[1:], strict=False)
    )
    firsts = sorted(1e3 * (generation.received[0][0] - generation.asked_s) for generation in generations)
    decode_s = sum(generation.received[-1][0] - generation.received[0][0] for generation in generations)
    decoded = sum(_tokens(generation) - generation.received[0][1] for generation in generations)
    right = sum(seen.totals.right for seen in parts)
    lost = sum(seen.totals.lost for seen in parts)
    there_s = sum(seen.drafter_there_s for seen in parts)
    machine_s = sum(seen.seconds * seen.verifiers for seen in parts)
    return Figures(
        tokens=round(tokens * scale),
        seconds=max(seen.seconds for seen in parts),
        tokens_per_s=speed,
        tokens_per_s_interval=_interval(speeds, len(speeds) * scale) if scale > 1 and len(speeds) > 1 else None,
        session_tokens_per_s=decoded / decode_s if decode_s > 0 else None,
        ttft_p50_ms=median(firsts),
        ttft_p99_ms=_percentile(firsts, 0.99),
        itl_p50_ms=median(gaps) if gaps else None,
        itl_p99_ms=_percentile(gaps, 0.99) if gaps else None,
        acceptance_length=tokens / max(1, tally.passes),
        acceptance_rate=tally.accepted_guesses / tally.verified_guesses if tally.verified_guesses else None,
        rows_per_token=tally.rows / tokens,
        wasted_rows_share=max(0.0, tally.rows - tokens) / max(1, tally.rows),
        rolled_back_share=lost / (right + lost) if right + lost else None,
        verifier_s_per_token=sum(seen.pass_s for seen in parts) / tokens,
        payload_up_bytes_per_token=sum(seen.totals.payload_bytes for seen in parts) / tokens,
        drafts_per_token=sum(seen.totals.messages for seen in parts) / tokens,
        verifier_idle_share=max(0.0, 1 - sum(seen.verifier_busy_s for seen in parts) / machine_s),
        drafter_idle_share=max(0.0, 1 - sum(seen.drafter_busy_s for seen in parts) / there_s) if there_s > 0 else None,
        dollars_per_million_tokens=_dollars(dials, machine_s, there_s, tokens),
    )


def _tokens(generation: Generation) -> int:
    return sum(count for _, count in generation.received)


def _dollars(dials: Dials, verifier_s: float, drafter_s: float, tokens: int) -> float | None:
    """A drafter is paid for while it serves a session, one of a pool all the time."""
    rates = (dials.verifier_dollars_per_hour, dials.drafter_dollars_per_hour)
    if not any(rates):
        return None
    return (rates[0] * verifier_s + rates[1] * drafter_s) / 3600 / tokens * 1e6


def _percentile(ordered: Sequence[float], share: float) -> float:
    """Linear between the order statistics, as numpy's default."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _interval(samples: Sequence[float], times: float) -> tuple[float, float]:
    """95 % interval of `times` the mean, by Student's t."""
    degrees = len(samples) - 1
    width = (_STUDENT[degrees - 1] if degrees <= len(_STUDENT) else 2.0) * stdev(samples) / math.sqrt(len(samples))
    return times * (mean(samples) - width), times * (mean(samples) + width)
