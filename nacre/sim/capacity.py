"""Sizing a deployment: what the shipped rules would achieve on machines, links and drafters that are not here.

    dials = with_dials(Dials(), {"pass_ms": [[1, 27.1], [8, 30.8]], "draft_ms": 2.0, "rtt_ms": 50})
    predict(dials).session_tokens_per_s          what `nacre bench` would measure there as tokens/s
    predict(dials, acceptance)                   with a recorded trace: load_acceptance(path)
    ideal_throughput(acceptance, dials)          tokens/s of a session without any overhead: what efficiency is 1 of
    compare(dials)                               with, without, and the speed-up
    requests_of(dials, sample)                   how much work that is; refuses what cannot be sampled
    sweep(dials, "rtt_ms", [0, 10, 50])          one comparison per value
    saturation(sweep over concurrency)           where more load only makes everyone wait

All times in dials are milliseconds. The same dials and seed give the same figures, always. Where `sample` is less than
the fleet's verifiers, so many verifiers with their share of the load are simulated, independent of each other, and
stand for all: figures say the interval over them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nacre.errors import InvalidArgument
from nacre.sim.acceptance import Acceptance, DialledAcceptance, load_acceptance
from nacre.sim.dials import Dials, with_dials
from nacre.sim.figures import Figures, figures
from nacre.sim.fleet import Fleet, Seen

#: Where machines die, the parts of a sampled fleet are so large that those that are left can take over.
_FAILOVER_VERIFIERS = 5
#: A load is past saturation when of the growth in load less than this share becomes growth in tokens/s.
LEAST_GROWTH = 0.1

#: Called with how many requests have been simulated.
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Figures at some dials, and of decoding alone at the same ones (None if that was not asked for)."""

    dials: Dials
    with_guesses: Figures
    plain: Figures | None

    @property
    def speed_up(self) -> float | None:
        """Of the whole fleet's tokens/s. Where the load is below what it can bear, both do what is asked: 1."""
        return None if self.plain is None else self.with_guesses.tokens_per_s / self.plain.tokens_per_s

    @property
    def session_speed_up(self) -> float | None:
        """Of a session's tokens/s: what a user sees."""
        with_guesses, plain = self.with_guesses.session_tokens_per_s, self.plain and self.plain.session_tokens_per_s
        return with_guesses / plain if with_guesses and plain else None


def acceptance_of(dials: Dials) -> Acceptance:
    """The trace that the dials name, or their dialled acceptance. Raises InvalidArgument."""
    if dials.trace:
        return load_acceptance(Path(dials.trace))
    return DialledAcceptance(dials.acceptance, key=dials.seed)


def predict(
    dials: Dials, acceptance: Acceptance | None = None, *, sample: int = 0, advance: Advance | None = None
) -> Figures:
    """Simulates the deployment. `sample`: how many of the verifiers to simulate (0: all). Raises InvalidArgument."""
    acceptance = acceptance or acceptance_of(dials)
    seen: list[Seen] = []
    done = 0
    for part in _parts(dials, sample):
        seen.append(Fleet(part, acceptance, first=done).run())
        done += part.requests
        if advance is not None:
            advance(part.requests)
    return figures(dials, seen)


def requests_of(dials: Dials, sample: int = 0) -> int:
    """How many requests `predict` would simulate. Raises InvalidArgument where it would."""
    return sum(part.requests for part in _parts(dials, sample))


def ideal_throughput(acceptance: Acceptance, dials: Dials) -> float:
    """Tokens/s of a session if nothing cost time but passes, draft steps and the link: no overhead, no messages' cost,
    no jitter. Measured throughput over this is pipeline efficiency."""
    free = replace(
        dials, overhead_ms=0.0, commit_ms=0.0, verifier_message_ms=0.0, drafter_message_ms=0.0, jitter_ms=0.0
    )
    speed = predict(free, acceptance).session_tokens_per_s
    if speed is None:
        raise InvalidArgument(
            "dial output_tokens is too small: a speed needs more than one message", param="output_tokens"
        )
    return speed


def compare(
    dials: Dials, acceptance: Acceptance | None = None, *, sample: int = 0, advance: Advance | None = None
) -> Comparison:
    """The deployment, and the same one without drafters."""
    acceptance = acceptance or acceptance_of(dials)
    with_guesses = predict(dials, acceptance, sample=sample, advance=advance)
    if dials.policy == "plain":
        return Comparison(dials, with_guesses, None)
    plain = replace(dials, policy="plain")
    return Comparison(dials, with_guesses, predict(plain, acceptance, sample=sample, advance=advance))


def swept(dials: Dials, name: str, values: Sequence[Any]) -> list[Dials]:
    """The dials with one of them at each of the values. Raises InvalidArgument before anything runs."""
    if not values:
        raise InvalidArgument(f"sweep of {name} has no values", param=name)
    return [with_dials(dials, {name: value}) for value in values]


def sweep(
    dials: Dials, name: str, values: Sequence[Any], acceptance: Acceptance | None = None, *, sample: int = 0
) -> list[Comparison]:
    return [compare(point, acceptance, sample=sample) for point in swept(dials, name, values)]


def saturation(points: Sequence[Comparison]) -> int | None:
    """Of a sweep over growing load (`concurrency` or `arrivals_per_s`): the first point where tokens/s have all but
    stopped growing, so that more load only makes everyone wait. None if they grow to the end."""
    for index in range(1, len(points)):
        before, now = points[index - 1], points[index]
        asked = _load(now.dials) / _load(before.dials) - 1
        gained = now.with_guesses.tokens_per_s / before.with_guesses.tokens_per_s - 1
        if gained < LEAST_GROWTH * asked:
            return index
    return None


def _load(dials: Dials) -> float:
    return dials.arrivals_per_s or float(dials.concurrency or dials.requests)


def _parts(dials: Dials, sample: int) -> list[Dials]:
    """The fleet, or independent parts of it with `sample` verifiers in all and their share of the load each."""
    if not 0 <= sample <= dials.verifiers:
        raise InvalidArgument(f"sample is {sample}; it must be 0 to {dials.verifiers}, the number of verifiers")
    if sample in (0, dials.verifiers):
        return [dials]
    size, crash_share = 1, 0.0
    if dials.crash_share:
        size = min(sample, _FAILOVER_VERIFIERS)
        if size == 1 or sample % size:
            raise InvalidArgument(
                f"sample is {sample}; where verifiers die it must be 2 to {_FAILOVER_VERIFIERS}, or a multiple of "
                f"{_FAILOVER_VERIFIERS}: those that are left of a part take over"
            )
        # The last verifier of every part lives, of the whole fleet one: the others die the more often for it.
        crash_share = min(0.9, dials.crash_share * (1 - 1 / dials.verifiers) / (1 - 1 / size))
    count = sample // size
    share = size / dials.verifiers
    for name in ("requests", "concurrency", "drafter_pool"):
        whole = getattr(dials, name)
        if whole and whole * share < 1:
            raise InvalidArgument(
                f"dial {name} is {whole}: too few to share among {dials.verifiers} verifiers", param=name
            )
    part = replace(
        dials,
        verifiers=size,
        requests=round(dials.requests * share),
        concurrency=round(dials.concurrency * share),
        drafter_pool=round(dials.drafter_pool * share),
        arrivals_per_s=dials.arrivals_per_s * share,
        crash_share=crash_share,
    )
    return [part] * count
