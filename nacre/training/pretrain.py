"""Train a model on text: next-token cross-entropy over windows that grow from 256 to 2,048 tokens.

Short windows first (most of what can be learned is near, and they are cheap), long ones while the learning
rate falls, so that the model knows the positions it will serve.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from nacre.training.corpus import Windows
from nacre.training.lean_llama import LeanLlama
from nacre.training.loop import Plan, Report, run_steps, silent
from nacre.training.optimizer import MuonAdam
from nacre.training.parallel import SHARDS, Workers


@dataclass(frozen=True, slots=True)
class Phase:
    """Windows of `length` tokens, `rows` to a step, until the fraction `until` of the run."""

    until: float
    length: int
    rows: int


PHASES = (Phase(0.55, 256, 12), Phase(0.94, 512, 6), Phase(1.0, 2048, 2))


class Curriculum:
    """The batch of every step, by phase; the steps of a phase count on within its own shuffled sequence."""

    def __init__(self, stream: Tensor, steps: int, phases: tuple[Phase, ...], seed: int) -> None:
        self._steps, self._phases = steps, phases
        self._windows = [Windows(stream, phase.length, seed + i) for i, phase in enumerate(phases)]

    def batch(self, step: int) -> Tensor:  # [rows, length + 1]
        for phase, windows in zip(self._phases, self._windows, strict=True):
            if step < phase.until * self._steps or phase is self._phases[-1]:
                return windows.batch(step * phase.rows, phase.rows)
        raise AssertionError("the last phase takes every remaining step")


def next_token_loss(model: LeanLlama, batch: Tensor) -> Tensor:
    logits = model.logits(model(batch[:, :-1]))
    return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def train_on_text(
    model: LeanLlama,
    stream: Tensor,
    *,
    stage: str,
    steps: int,
    checkpoint: Path,
    seed: int,
    workers: Workers,
    phases: tuple[Phase, ...] = PHASES,
    report: Report = silent,
    stop_after: int | None = None,
) -> None:
    """Train `model` in place to the end of its schedule, continuing from `checkpoint` where it exists."""
    curriculum = Curriculum(stream, steps, phases, seed)
    run_steps(
        Plan(stage, steps),
        model,
        MuonAdam(list(model.named_parameters())),
        lambda step: [partial(next_token_loss, model, part) for part in curriculum.batch(step).chunk(SHARDS)],
        checkpoint,
        workers,
        report=report,
        stop_after=stop_after,
    )
