"""What the simulator says of a run: the shipped rules on the times and the guesses that the run itself has measured.

Dials come from the run: V(rows) from the passes of the baseline that is predicted, scaled to those of the very cell;
what lies between two passes from `ar`; the draft step from the drafter's own count with its messages and bookkeeping.
Acceptance is the run's trace, of the same texts (`nacre.bench.trace`). So what is predicted is how these times and
guesses play together: the protocol.

Efficiency is counted from a drafter without bookkeeping: its step is what the proposer itself took (`propose_ms`).
Where a run has not counted that, the whole step stands for it, and efficiency comes out too high.

V and d are taken as they were while the other side was working, too: where both share memory, that is what they cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from nacre.bench.samples import Sample, tokens_per_s
from nacre.scheduling import PassCosts
from nacre.sim.acceptance import RecordedAcceptance
from nacre.sim.capacity import ideal_throughput, predict
from nacre.sim.dials import Dials, with_dials

#: A row count seen less often than this says nothing about its pass time.
LEAST_PASSES = 5
#: A node beyond the first adds this share of a step (`python -m nacre.engine.draft_bench`).
NODE_SHARE = 0.12
#: What can be predicted: baselines and the simulator's policies of the same rules.
POLICIES = {"nacre": "nacre", "sync": "sync", "pearl": "pearl"}


@dataclass(frozen=True, slots=True)
class Predictor:
    """The samples of one scenario at T = 1 as dials, and what was guessed along their texts."""

    samples: tuple[Sample, ...]
    overhead_ms: float
    acceptance: RecordedAcceptance
    known: tuple[tuple[int, float], ...]

    def dials(self, baseline: str, rtt_ms: float, *, proposer_only: bool = False) -> Dials | None:
        """The deployment that a cell was; None where too little of it was measured.

        `proposer_only`: a draft step takes what its proposer took, where that was counted.
        """
        cell = self.cell(baseline, rtt_ms)
        steps = sum(s.counts.get("draft_steps", 0) for s in cell)
        points = pass_times(s for s in self.samples if s.baseline == baseline)
        if points and points[0][0] > 1:
            alone = pass_times(s for s in self.samples if s.baseline == "ar")[0]
            points = [alone, *((rows, max(ms, alone[1])) for rows, ms in points)]
        points = scaled(beyond(points, self.known), cell)
        if not steps or len(points) < 2:
            return None
        counted = "propose_ms" if proposer_only and all("propose_ms" in s.counts for s in cell) else "draft_ms"
        step_ms = sum(s.counts[counted] for s in cell) / steps
        changes: dict[str, Any] = {
            "policy": POLICIES[baseline],
            "draft_ms": [[1, step_ms]],
            "gamma": int(cell[0].settings.get("gamma", 4)),
            "pass_ms": points,
            "overhead_ms": self.overhead_ms,
            "output_tokens": len(cell[0].tokens),
            "requests": len(self.acceptance.texts),
            "concurrency": 1,
            "rtt_ms": rtt_ms,
        }
        if baseline == "nacre":  # its steps are of several nodes, nearly always
            nodes = Dials().batch_nodes
            changes["draft_ms"] = [[1, step_ms / (1 + NODE_SHARE * (nodes - 1))], [nodes, step_ms]]
        return with_dials(Dials(), changes)

    def cell(self, baseline: str, rtt_ms: float) -> list[Sample]:
        return [s for s in self.samples if (s.baseline, s.rtt_ms) == (baseline, rtt_ms)]

    def efficiency(self, rtt_ms: float) -> float | None:
        """Measured tokens/s of `nacre` over what is possible with these passes, draft steps and guesses."""
        dials = self.dials("nacre", rtt_ms, proposer_only=True)
        if dials is None:
            return None
        return tokens_per_s(self.cell("nacre", rtt_ms)) / ideal_throughput(self.acceptance, dials)

    def predictions(self) -> list[tuple[str, float, float, float]]:
        """(baseline, RTT in ms, predicted tokens/s, measured tokens/s) of every cell that can be predicted."""
        told = []
        for baseline in POLICIES:
            for rtt_ms in sorted({s.rtt_ms for s in self.samples if s.baseline == baseline}):
                dials = self.dials(baseline, rtt_ms)
                if dials is not None:
                    predicted = predict(dials, self.acceptance).session_tokens_per_s
                    told.append((baseline, rtt_ms, predicted or 0.0, tokens_per_s(self.cell(baseline, rtt_ms))))
        return told

    def farthest(self) -> float | None:
        """Over all cells: the largest factor between what is predicted and what was measured."""
        apart = [
            max(predicted / measured, measured / predicted)
            for _, _, predicted, measured in self.predictions()
            if predicted > 0 and measured > 0
        ]
        return max(apart, default=None)


def predictor(
    samples: Iterable[Sample],
    scenario: str,
    acceptance: RecordedAcceptance | None,
    known: Sequence[tuple[int, float]] = (),
) -> Predictor | None:
    """None where the run has not measured enough. `known`: V as the verifier has measured it at its start."""
    here = tuple(s for s in samples if s.scenario == scenario and s.temperature == 1.0)
    plain = [s for s in here if s.baseline == "ar" and len(s.pass_ms) > 1]
    if acceptance is None or not plain:
        return None
    return Predictor(here, between_passes_ms(plain), acceptance, tuple((rows, ms) for rows, ms in known))


def between_passes_ms(plain: Iterable[Sample]) -> float:
    """What decoding alone takes beside its passes, each time: sampling, messages, the way through two event loops."""
    between = [(1e3 * s.decode_s - sum(s.pass_ms[1:])) / (len(s.pass_ms) - 1) for s in plain]
    return max(0.0, median(between))


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


def scaled(points: list[tuple[int, float]], cell: Iterable[Sample]) -> list[tuple[int, float]]:
    """V at the time of the cell: a shared machine is slower at one time than at another, for all rows alike."""
    costs = PassCosts(points)
    taken = expected = 0.0
    for sample in cell:
        for rows, ms in zip(sample.pass_rows[1:], sample.pass_ms[1:], strict=True):
            if rows > 0 and ms > 0:
                taken += ms
                expected += costs.seconds(rows)
    return [(rows, ms * taken / expected) for rows, ms in points] if expected else points


def beyond(points: list[tuple[int, float]], known: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Goes on where no pass of the run has been, as steeply as `known` says, which begins with 1 row."""
    if not points or not known:
        return points
    (last, ms), (below_rows, below_ms) = points[-1], max(point for point in known if point[0] <= points[-1][0])
    above = next((point for point in known if point[0] > last), None)
    if above is None:
        return points
    at_last = below_ms + (above[1] - below_ms) * (last - below_rows) / (above[0] - below_rows)
    return [*points, *((rows, known_ms * ms / at_last) for rows, known_ms in known if rows > last)]
