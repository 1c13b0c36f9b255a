"""From samples to figures: one entry per cell and baseline, each speed-up beside what it is counted from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from nacre.bench.baselines import REFERENCE
from nacre.bench.drafters import drafter_summary
from nacre.bench.load import first_repeats, load_ratio
from nacre.bench.results import Results
from nacre.bench.samples import Sample, figures, ratio


def summary(results: Results) -> dict[str, Any]:
    """`cells`: scenario, temperature, RTT and baseline with their metrics; `loads`: the same for many sessions.

    `drafters`: methods side by side, where some were measured.
    """
    samples = list(results.samples.values())
    cells = []
    for place in dict.fromkeys((s.scenario, s.temperature, s.rtt_ms) for s in samples):
        here = [s for s in samples if (s.scenario, s.temperature, s.rtt_ms) == place]
        reference = of(here, REFERENCE)
        for baseline in dict.fromkeys(s.baseline for s in here):
            mine = of(here, baseline)
            faster = ratio(mine, reference)
            cells.append(
                {
                    **dict(zip(("scenario", "temperature", "rtt_ms"), place, strict=True)),
                    "baseline": baseline,
                    "samples": len(mine),
                    "speedup": asdict(faster) if faster else None,
                    "settings": dict(mine[-1].settings),
                    **figures(mine),
                }
            )
    loads = results.with_prefix("load/")
    return {
        "cells": cells,
        "loads": [{**load, "speedup": load_ratio(loads, load)} for load in first_repeats(loads)],
        "drafters": drafter_summary(results.kept, cells),
    }


def of(samples: Iterable[Sample], baseline: str) -> Sequence[Sample]:
    return [sample for sample in samples if sample.baseline == baseline]
