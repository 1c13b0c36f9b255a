"""The dials of the rivals, tuned on warm-up prompts: nobody is compared at a bad setting.

A search has two stages: a coarse grid, then the neighbours of its best. All settings write the same texts, so their
times compare prompt by prompt. Speed over length has one peak, so the least length of a grid (the slowest to measure
on a long link) is only tried where the next one is the best of the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from nacre.bench.baselines import Baseline

Settings = dict[str, Any]
#: Lengths of the coarse grid for drafting in lock-step.
LENGTHS = (2, 4, 8, 14)
MOST_LENGTH = 48
#: What a path is run with once before anything is tuned or measured.
WARM_UP_TOKENS = 24
#: What transformers does where nobody says anything.
HF_DEFAULT: Settings = {"schedule": "constant", "length": 20, "confidence": 0.4}
#: Dials of pacing policies whose released defaults were chosen for other machines.
POLICY_DIALS: dict[str, list[Settings]] = {
    "banditspec": [{"arms": [1, 2, 3, 4]}, {"arms": [2, 4, 6, 8, 10]}],
    "eagle2": [{"nodes": 7}, {"nodes": 15}, {"nodes": 59}],
    "hf-confidence": [{"threshold": 0.2}, {"threshold": 0.4}],
    "opt-tree": [{"nodes": 7}, {"nodes": 15}, {"nodes": 60}],
    "sequoia": [{"nodes": 7}, {"nodes": 15}, {"nodes": 32}],
    "specdec++": [{"threshold": 0.5}, {"threshold": 0.7}],
    "svip": [{"threshold": 0.3}, {"threshold": 0.6}],
}


def first_settings(baseline: Baseline, *, ratio: float | None = None) -> list[Settings]:
    """The coarse grid; empty where there is nothing to tune. `ratio`: duration of a pass over that of a draft step."""
    if baseline.policy:
        return POLICY_DIALS.get(baseline.policy, [])
    if baseline.kind == "lockstep":
        lengths = set(LENGTHS)
        if baseline.style == "pearl" and ratio is not None:  # the length its authors choose
            lengths.add(max(1, min(MOST_LENGTH, round(ratio))))
        return [{"gamma": length} for length in sorted(lengths)]
    if baseline.way == "assisted":
        constant = [{"schedule": "constant", "length": length} for length in (2, 4, 8)]
        confident = [{"schedule": "constant", "length": 12, "confidence": bound} for bound in (0.3, 0.6)]
        return [*constant, {"schedule": "heuristic", "length": 4}, *confident, HF_DEFAULT]
    if baseline.way == "lookup":
        return [{"length": length, "ngram": ngram} for length in (3, 10) for ngram in (2, 3)]
    return []


def neighbours(settings: Settings, tried: Sequence[Settings]) -> list[Settings]:
    """Settings around the best that have not been tried: one dial is moved."""
    for dial in ("gamma", "length"):
        if dial in settings:
            length = settings[dial]
            step = max(1, length // 4)
            around = [length - step, length + step]
            return [
                {**settings, dial: value}
                for value in around
                if 1 <= value <= MOST_LENGTH and {**settings, dial: value} not in tried
            ]
    return []


async def best_settings(
    first: Sequence[Settings], speeds: Callable[[Sequence[Settings]], Awaitable[Sequence[float]]]
) -> tuple[Settings, list[dict[str, Any]]]:
    """The fastest settings and all that were tried with what they gave. `speeds` measures settings in turns, tokens/s.

    The second stage measures the best of the first once more, beside its neighbours.
    """
    held_back = list(first[:1]) if len(first) > 3 and "gamma" in first[0] else []
    others = first[len(held_back) :]
    found = list(zip(await speeds(others), others, strict=True))
    best = max(found, key=lambda item: item[0])[1]
    if held_back and best is others[0]:
        found += zip(await speeds(held_back), held_back, strict=True)
        best = max(found, key=lambda item: item[0])[1]
    around = neighbours(best, first)
    if around:
        again = [best, *around]
        second = list(zip(await speeds(again), again, strict=True))
        best = max(second, key=lambda item: item[0])[1]
        found += second
    return best, [{"tokens_per_s": round(tokens_per_s, 2), **settings} for tokens_per_s, settings in found]
