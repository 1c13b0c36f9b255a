"""Samples in the format of Spec-Bench's model answers (Xia et al. 2024), one JSON object a line.

Spec-Bench's `speed.py` divides new tokens by wall time and averages `accept_lengths`; both are per turn: one here. It
picks lines by `category`, which is the scenario here. A question is a prompt of a scenario: those of two scenarios may
be other texts, so they never share an id.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from nacre.bench.results import write_whole
from nacre.bench.samples import Sample


def write_spec_bench(path: Path, samples: Sequence[Sample]) -> None:
    """One line per sample. `wall_time` is seconds from the request, the prompt's own time included."""
    questions = sorted({_question(sample) for sample in samples})
    ids = {question: number for number, question in enumerate(questions)}
    lines = [
        {
            "question_id": ids[_question(sample)],
            "category": sample.scenario,
            "answer_id": uuid.uuid5(uuid.NAMESPACE_OID, repr(sample.key)).hex,
            "model_id": f"{sample.baseline}-rtt{sample.rtt_ms:g}-temperature-{sample.temperature:g}",
            "choices": [
                {
                    "index": 0,
                    "seed": sample.seed,
                    "turns": [list(sample.tokens)],
                    "decoding_steps": [int(sample.counts.get("passes", len(sample.arrival_tokens)))],
                    "new_tokens": [len(sample.tokens)],
                    "wall_time": [sample.arrivals_ms[-1] / 1e3],
                    "accept_lengths": list(sample.arrival_tokens),
                }
            ],
            "tstamp": time.time(),
        }
        for sample in samples
    ]
    write_whole(path, "".join(json.dumps(line) + "\n" for line in lines))


def _question(sample: Sample) -> tuple[str, int]:
    return (sample.scenario, sample.prompt)
