"""What the simulator says of useless drafters and of many sessions, beside what the run has measured.

Dials are those of `nacre.bench.prediction`. Useless drafters: V and what lies between two passes come from `ar` in the
same cell, the rules from what ships, with no drafter, one that never guesses, or one that never is right; so what is
predicted is that those rules lose nothing to them. Many sessions: the verifier's own V, scaled to the passes of the
load; draft steps and guesses as measured with one session.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from nacre.bench.baselines import REFERENCE
from nacre.bench.prediction import Predictor, between_passes_ms, pass_times
from nacre.bench.samples import Sample, tokens_per_s
from nacre.bench.trace import load_trace
from nacre.scheduling import PassCosts
from nacre.sim.acceptance import Acceptance, DialledAcceptance
from nacre.sim.capacity import predict
from nacre.sim.dials import Dials, with_dials

#: Drafters that help nobody: what they guess, and dials of the simulator.
_NOTHING, _WRONG = DialledAcceptance(()), DialledAcceptance((0.001,))
_USELESS: dict[str, tuple[Acceptance, dict[str, Any]]] = {
    "none": (_NOTHING, {"drafters_per_session": 0}),
    "silent": (_NOTHING, {"draft_ms": [[1, 0.1]]}),
    "random": (_WRONG, {"draft_ms": [[1, 0.1]]}),
}
#: A row beyond the first, where nothing but passes of one row was measured: a share of the pass.
_ROW_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Prediction:
    """One cell: `at` is its RTT in ms, or its sessions. Tokens per second, of all sessions together."""

    baseline: str
    at: float
    predicted: float
    measured: float

    @property
    def apart(self) -> float:
        return max(self.predicted / self.measured, self.measured / self.predicted)


def useless_drafters(samples: Iterable[Sample], scenario: str) -> list[Prediction]:
    """For every cell of a baseline that helps nobody."""
    here = [s for s in samples if s.scenario == scenario and s.temperature == 1.0]
    told = []
    for baseline, (acceptance, changes) in _USELESS.items():
        for rtt_ms in sorted({s.rtt_ms for s in here if s.baseline == baseline}):
            mine = [s for s in here if (s.baseline, s.rtt_ms) == (baseline, rtt_ms)]
            plain = [s for s in here if (s.baseline, s.rtt_ms) == (REFERENCE, rtt_ms) and len(s.pass_ms) > 1]
            points = pass_times(plain)
            if not points:
                continue
            alone_ms = points[0][1]
            dials = with_dials(
                Dials(),
                {
                    **changes,
                    "policy": "nacre",
                    "pass_ms": [[1, alone_ms], [2, alone_ms * (1 + _ROW_SHARE)]],
                    "overhead_ms": between_passes_ms(plain),
                    "output_tokens": len(mine[0].tokens),
                    "rtt_ms": rtt_ms,
                    "requests": len(mine),
                },
            )
            predicted = predict(dials, acceptance).session_tokens_per_s
            told.append(Prediction(baseline, rtt_ms, predicted or 0.0, tokens_per_s(mine)))
    return told


def many_sessions(loads: Sequence[Mapping[str, Any]], one: Predictor, kept: Mapping[str, Any]) -> list[Prediction]:
    """For every number of sessions, with and without speculation; means over repeats.

    `one` knows draft steps at that RTT, `kept` what is guessed along the texts.
    """
    told: dict[tuple[str, float], list[Prediction]] = {}
    for load in loads:
        dials = _load_dials(load, one)
        acceptance = load_trace(kept, load)
        if dials is None or acceptance is None:
            continue
        predicted = predict(dials, acceptance).session_tokens_per_s or 0.0
        item = Prediction(load["baseline"], load["sessions"], predicted * load["sessions"], load["tokens_per_s"])
        told.setdefault((item.baseline, item.at), []).append(item)
    return [
        Prediction(baseline, at, fmean(item.predicted for item in here), fmean(item.measured for item in here))
        for (baseline, at), here in told.items()
    ]


def _load_dials(load: Mapping[str, Any], one: Predictor) -> Dials | None:
    sessions, rtt_ms, counts = load["sessions"], load["rtt_ms"], load["counts"]
    alone = one.dials("nacre", rtt_ms)
    if not counts.get("passes") or not one.known or alone is None:
        return None
    # Every session counts the passes it is in, and its share of their time.
    per_pass_ms, rows_per_pass = (counts[name] * sessions / counts["passes"] for name in ("verify_ms", "rows"))
    scale = per_pass_ms / PassCosts(one.known).seconds(round(rows_per_pass))
    return with_dials(
        Dials(),
        {
            "policy": "plain" if load["baseline"] == REFERENCE else "nacre",
            "pass_ms": [[count, known_ms * scale] for count, known_ms in one.known],
            "draft_ms": [list(point) for point in alone.draft_ms],
            "overhead_ms": one.overhead_ms,
            "prompt_tokens": 1,  # they have been read before
            "output_tokens": load["tokens"] // sessions,
            "requests": sessions,
            "concurrency": sessions,
            "drafter_pool": 1,
            "rtt_ms": rtt_ms,
        },
    )


def farthest(told: Iterable[Prediction]) -> float | None:
    """Over all cells: the largest factor between what is predicted and what was measured."""
    return max((item.apart for item in told if item.predicted > 0 and item.measured > 0), default=None)
