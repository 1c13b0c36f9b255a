"""The training loop that both stages share: steps, schedule, checkpoints, progress.

Rule: a run is a sequence of numbered steps; what a step does depends on its number, the seed and the
weights, never on the clock. So a paused run is the same run, and a run that was killed and resumed ends in
the same weights.

The learning rate warms up, stays level, and falls to zero over the last part (`decay`): until the fall
begins, a run may be resumed with another number of steps. A checkpoint is one safetensors file, replaced
atomically.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from nacre.errors import FailedPrecondition, InvalidArgument
from nacre.training.optimizer import MuonAdam
from nacre.training.parallel import Workers

#: Most steps of a stage.
MAX_STEPS = 1_000_000

Report = Callable[[str, int, int, float], None]
"""Called as (stage, steps done, steps in all, smoothed loss)."""


def silent(stage: str, done: int, steps: int, loss: float) -> None:
    """The report of those who want none."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a stage runs and how its learning rate moves."""

    stage: str
    steps: int
    warmup: float = 0.02
    decay: float = 0.45
    checkpoint_every: int = 50

    def scale(self, step: int) -> float:
        """The factor on the learning rates at a step (the last step is just above zero)."""
        warm = (step + 1) / max(1.0, self.warmup * self.steps)
        fall = (self.steps - step) / max(1.0, self.decay * self.steps)
        return min(1.0, warm, fall)


def run_steps(
    plan: Plan,
    model: nn.Module,
    optimizer: MuonAdam,
    losses_of_step: Callable[[int], Sequence[Callable[[], Tensor]]],
    checkpoint: Path,
    workers: Workers,
    *,
    report: Report = silent,
    extra: dict[str, Tensor] | None = None,
    stop_after: int | None = None,
) -> None:
    """Run a stage from its checkpoint (or from the start) to its end, or to step `stop_after`.

    A step's loss is the mean of `losses_of_step(step)`, which are computed in parallel. `extra` tensors
    are the caller's own state (generated text); they are saved and restored with the weights.
    """
    extra = {} if extra is None else extra
    first, smoothed = load_checkpoint(checkpoint, model, optimizer, extra)
    last = plan.steps if stop_after is None else min(plan.steps, stop_after)
    for step in range(first, last):
        value = workers.backward(model, losses_of_step(step))
        optimizer.step(step, plan.scale(step), workers)
        smoothed = value if step == 0 else smoothed + 0.05 * (value - smoothed)
        report(plan.stage, step + 1, plan.steps, smoothed)
        if (step + 1) % plan.checkpoint_every == 0 or step + 1 == last:
            save_checkpoint(checkpoint, model, optimizer, extra, step + 1, smoothed)


def checked_steps(name: str, steps: int | None, default: int) -> int:
    """The steps of a stage, the recipe's where none are asked for. Raises InvalidArgument."""
    if steps is None:
        return default
    if not 10 <= steps <= MAX_STEPS:
        raise InvalidArgument(f"{name} is {steps}, must be 10 to {MAX_STEPS:,}", param=name)
    return steps


def keep_plan(path: Path, **plan: int) -> None:
    """Write the plan of a new run (`out`/training/plan.json); refuse to continue a run under another plan."""
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != plan:
            raise FailedPrecondition(
                f"{path.parent.parent} holds a run planned as {before}, not {plan}; repeat its flags "
                "or choose another directory",
                param="out",
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: MuonAdam, extra: dict[str, Tensor], step: int, smoothed: float
) -> None:
    tensors = {f"model/{name}": weight.detach() for name, weight in model.named_parameters()}
    tensors |= {f"optimizer/{name}": value for name, value in optimizer.state.items()}
    tensors |= {f"extra/{name}": value for name, value in extra.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    progress = json.dumps({"step": step, "smoothed": smoothed})
    save_file({k: v.contiguous() for k, v in tensors.items()}, unfinished, metadata={"progress": progress})
    os.replace(unfinished, path)


def load_checkpoint(path: Path, model: nn.Module, optimizer: MuonAdam, extra: dict[str, Tensor]) -> tuple[int, float]:
    """Restore all state in place; returns (steps done, smoothed loss), (0, 0.0) where there is no
    checkpoint.
    """
    if not path.exists():
        return 0, 0.0
    weights = dict(model.named_parameters())
    with safe_open(path, framework="pt") as file, torch.no_grad():
        for key in file.keys():  # noqa: SIM118 - a safetensors handle, not a dict
            kind, _, name = key.partition("/")
            tensor = file.get_tensor(key)
            if kind == "model":
                weights[name].copy_(tensor)
            elif kind == "optimizer":
                optimizer.state[name].copy_(tensor)
            else:
                extra[name] = tensor
        progress = json.loads(file.metadata()["progress"])
    return int(progress["step"]), float(progress["smoothed"])
