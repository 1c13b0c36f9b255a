"""What the simulator says of a run: the same rules on the pass times and the draft step that the run itself measured.

Dials come from the run: V(rows) from the passes of `ar` and `nacre`, what lies between two passes from `ar`, the draft
step from the micro-benchmark. How the draft model guesses comes from the recorded trace of the bundled pair on held-out
text at T = 1, so other models and temperatures are not predicted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from nacre.bench.baselines import folder
from nacre.bench.samples import Sample, tokens_per_s
from nacre.sim.acceptance import Acceptance, load_acceptance
from nacre.sim.capacity import ideal_throughput, predict
from nacre.sim.dials import Dials, with_dials

TRACE = "simulations/bundled-pair.json"
#: A row count seen less often than this says nothing about its pass time.
LEAST_PASSES = 5
#: A node beyond the first adds this share of a step (`python -m nacre.engine.draft_bench`).
NODE_SHARE = 0.12


@dataclass(frozen=True, slots=True)
class MeasuredRig:
    """The run's machine as dials."""

    dials: Dials
    acceptance: Acceptance


def measured_rig(samples: Sequence[Sample], scenario: str, draft_ms: float | None) -> MeasuredRig | None:
    """None where the run has not measured enough."""
    here = [s for s in samples if s.scenario == scenario and s.temperature == 1.0]
    plain = [s for s in here if s.baseline == "ar"]
    points = pass_times(s for s in here if s.baseline in ("ar", "nacre"))
    if draft_ms is None or not plain or len(points) < 2:
        return None
    between = [
        (1e3 * s.decode_s - sum(s.pass_ms[1:])) / max(1, len(s.pass_ms) - 1) for s in plain if len(s.pass_ms) > 1
    ]
    changes: dict[str, Any] = {
        "pass_ms": points,
        "overhead_ms": max(0.0, median(between)) if between else 0.0,
        "draft_ms": [[1, draft_ms], [4, draft_ms * (1 + 3 * NODE_SHARE)]],
        "output_tokens": len(plain[0].tokens),
        "requests": 24,
        "concurrency": 1,
    }
    return MeasuredRig(with_dials(Dials(), changes), load_acceptance(folder() / TRACE))


def pass_times(samples: Iterable[Sample]) -> list[tuple[int, float]]:
    """(rows, median ms) of decoding passes, rows ascending; never falling, as the simulator wants it."""
    times: dict[int, list[float]] = {}
    for sample in samples:
        # The first pass has read the prompt.
        for rows, ms in zip(sample.pass_rows[1:], sample.pass_ms[1:], strict=True):
            if rows > 0 and ms > 0:
                times.setdefault(rows, []).append(ms)
    points: list[tuple[int, float]] = []
    for rows in sorted(times):
        if len(times[rows]) >= LEAST_PASSES:
            points.append((rows, max(median(times[rows]), points[-1][1] if points else 0.0)))
    return points


def efficiency(rig: MeasuredRig, samples: Sequence[Sample], scenario: str, rtt_ms: float) -> float | None:
    """Measured tokens/s of `nacre` over what is possible with these passes, draft steps and guesses."""
    found = _cell(samples, scenario, "nacre", rtt_ms)
    if not found:
        return None
    return tokens_per_s(found) / ideal_throughput(rig.acceptance, with_dials(rig.dials, {"rtt_ms": rtt_ms}))


def farthest(rig: MeasuredRig, samples: Sequence[Sample]) -> float | None:
    """Over all cells of nacre, sync and pearl: the largest factor between what is predicted and what was measured."""
    apart = [
        max(predicted / measured, measured / predicted)
        for _, _, predicted, measured in predictions(rig, samples)
        if predicted > 0 and measured > 0
    ]
    return max(apart, default=None)


def predictions(
    rig: MeasuredRig, samples: Sequence[Sample], scenario: str = "rtt"
) -> list[tuple[str, float, float, float]]:
    """(baseline, RTT in ms, predicted tokens/s, measured tokens/s) of every cell that can be predicted."""
    told = []
    for name, policy in (("nacre", "nacre"), ("sync", "sync"), ("pearl", "pearl")):
        for rtt_ms in sorted({s.rtt_ms for s in samples if s.scenario == scenario and s.baseline == name}):
            found = _cell(samples, scenario, name, rtt_ms)
            if not found:
                continue
            changes: dict[str, Any] = {"policy": policy, "rtt_ms": rtt_ms}
            if policy != "nacre":
                changes["gamma"] = int(found[0].settings.get("gamma", 4))
            predicted = predict(with_dials(rig.dials, changes), rig.acceptance).session_tokens_per_s
            told.append((name, rtt_ms, predicted or 0.0, tokens_per_s(found)))
    return told


def _cell(samples: Sequence[Sample], scenario: str, baseline: str, rtt_ms: float) -> list[Sample]:
    wanted = (scenario, baseline, rtt_ms, 1.0)
    return [s for s in samples if (s.scenario, s.baseline, s.rtt_ms, s.temperature) == wanted]
