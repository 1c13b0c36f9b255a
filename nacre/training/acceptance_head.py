"""Train the heads by which the policies `specdec++` and `disco` stop, for one pair of models.

The target continues prompts of the training text, drawn with the race noise that serving uses; the draft model reads
the same text. At each place its best guess, under that noise, either is the target's token or is not: that is the
label. (SpecDec++ regresses on min(1, p / q), the chance of acceptance under rejection sampling; coupled by the race the
outcome itself is known.) The inputs are the features a drafter tells when serving, computed by the same code. A
guess's depth is its distance from the last miss.

As in SpecDec++ its head's loss weighs a reject `REJECT_WEIGHT` times an accept, so what it calls acceptance is
pessimistic on purpose; the classifier of DISCO is an unweighted logistic regression. Models stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from nacre.drafting.features import features_of_rows
from nacre.errors import FailedPrecondition, InvalidArgument
from nacre.models.python_text import Module, prompts_from, standard_library
from nacre.pacing.acceptance_head import FILE_NAME, INPUTS, AcceptanceHead
from nacre.sampling import History, RowContext, SamplingParams, draft_scores
from nacre.training.evaluate import continue_prompt
from nacre.training.lean_llama import LeanLlama, load_of_recipe
from nacre.training.loop import Report, silent
from nacre.training.parallel import Workers

REJECT_WEIGHT = 6.0
TEMPERATURES = (1.0, 1.0, 0.7, 0.0)
"""Prompts take these in turn."""

_WIDTH = 16
_BLOCKS = 3
_STEPS = 400
_SCORED = 16
_PROMPT_TOKENS = 96


@dataclass(frozen=True, slots=True)
class HeadFigures:
    """One head on held-out text: `auc` is the chance that it ranks an accepted guess above a rejected one."""

    auc: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class HeadResult:
    """Where the file is, and what was measured at `held_out` places of text that neither model nor head has seen."""

    path: Path
    places: int
    held_out: int
    accepted: float
    heads: dict[str, HeadFigures]


@dataclass(frozen=True, slots=True)
class _Places:
    """For every head its inputs [places, inputs], and whether the guess was the target's token [places]."""

    inputs: dict[str, np.ndarray]
    accepted: np.ndarray


def train_acceptance_head(
    target: Path,
    draft: Path,
    *,
    out: Path | None = None,
    prompts: int = 192,
    continuation: int = 96,
    seed: int = 0,
    threads: int = 2,
    report: Report = silent,
) -> HeadResult:
    """Writes `acceptance_head.json` into `out` (default: the draft model's directory).

    Target and draft are directories that the recipe of the bundled pair made, of one tokenizer. A quarter as many
    prompts of held-out text measure the result. The same interpreter, torch and seed give the same file. Raises
    FailedPrecondition for a model it cannot read, and where every guess had the same outcome.
    """
    for name, value, least in (("prompts", prompts, 8), ("continuation", continuation, 8), ("threads", threads, 1)):
        if value < least:
            raise InvalidArgument(f"{name} is {value}; it must be at least {least}", param=name)
    modules = standard_library()
    seen = [module for module in modules if not module.held_out]
    unseen = [module for module in modules if module.held_out]
    pair = load_of_recipe(target), load_of_recipe(draft)
    race_temperature = _race_temperature(draft)
    tokenizer = Tokenizer.from_file(str(draft / "tokenizer.json"))
    with Workers(threads) as workers:

        def read(stage: str, some: Sequence[Module], count: int, key: int) -> _Places:
            texts = prompts_from(some, count)
            numbered = [(key + i, tokenizer.encode(text).ids[:_PROMPT_TOKENS]) for i, text in enumerate(texts)]
            report(stage, 0, 1, 0.0)
            places = workers.map(partial(_read, *pair, race_temperature, continuation), numbered)
            whole = _Places(
                {name: np.concatenate([p.inputs[name] for p in places]) for name in INPUTS},
                np.concatenate([p.accepted for p in places]),
            )
            report(stage, 1, 1, float(whole.accepted.mean()))
            return whole

        known = read("places", seen, prompts, seed * 1_000_003 + 1)
        fresh = read("held-out places", unseen, max(1, prompts // 4), seed * 1_000_003 + 500_001)
    if known.accepted.all() or not known.accepted.any():
        raise FailedPrecondition("every guess had the same outcome; there is nothing to learn from this pair")
    weights = {
        name: _fit(
            known.inputs[name],
            known.accepted,
            blocks=_BLOCKS if name == "specdec++" else None,
            reject_weight=REJECT_WEIGHT if name == "specdec++" else 1.0,
            seed=seed,
        )
        for name in INPUTS
    }
    heads = {name: _measure(AcceptanceHead(name, weights[name]), fresh.inputs[name], fresh.accepted) for name in INPUTS}
    path = (draft if out is None else out) / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(weights, separators=(",", ":")) + "\n", encoding="utf-8")
    return HeadResult(path, len(known.accepted), len(fresh.accepted), float(fresh.accepted.mean()), heads)


@torch.no_grad()
def _read(
    target: LeanLlama,
    draft: LeanLlama,
    race_temperature: float,
    continuation: int,
    numbered: tuple[int, Sequence[int]],
) -> _Places:
    key, prompt = numbered
    temperature = TEMPERATURES[key % len(TEMPERATURES)]
    text = continue_prompt(target, prompt, temperature, continuation, key)
    first = text.prompt_length
    logits = draft.logits(draft(text.tokens[None]))[0, first - 1 : -1].float().numpy()
    params, history = SamplingParams(temperature=temperature), History((), ())
    rows = [RowContext(params, key, position, history) for position in range(first, first + continuation)]
    ids, scores = draft_scores(logits, rows, _SCORED)
    weights = np.exp((scores - scores[:, :1]) / race_temperature)
    survival = weights[:, 0] / weights.sum(axis=1)
    features = features_of_rows(logits, rows, ids[:, :1], scores)
    accepted = ids[:, 0] == text.tokens[first:].numpy()
    depth, depths = 0, []
    for right in accepted:
        depth += 1
        depths.append(depth)
        depth = depth if right else 0
    told = [(row[0], chance, depth) for row, chance, depth in zip(features, survival.tolist(), depths, strict=True)]
    inputs = {name: np.array([vector(*place) for place in told]) for name, (vector, _) in INPUTS.items()}
    return _Places(inputs, accepted)


class _Head(nn.Module):
    """The same function as `AcceptanceHead`, on standardised inputs; without blocks, one linear layer."""

    def __init__(self, inputs: int, blocks: int | None) -> None:
        super().__init__()
        widths = [(inputs, 1)] if blocks is None else [(inputs, _WIDTH), *[(_WIDTH, _WIDTH)] * blocks, (_WIDTH, 1)]
        self.layers = nn.ModuleList(nn.Linear(*width) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        for place, layer in enumerate(self.layers):
            y = layer(x)
            if place == len(self.layers) - 1:
                return y.squeeze(-1)
            x = F.silu(y) if place == 0 else x + F.silu(y)
        raise AssertionError("a head has a last layer")


def _fit(
    inputs: np.ndarray, accepted: np.ndarray, *, blocks: int | None, reject_weight: float, seed: int
) -> dict[str, object]:
    """Full-batch Adam on the weighted cross-entropy; the weights rounded as they are written."""
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0)
    scale = 1.0 / np.maximum(spread, 1e-6)
    x = torch.from_numpy(((inputs - mean) * scale).astype(np.float32))
    y = torch.from_numpy(accepted.astype(np.float32))
    weight = torch.where(y > 0, 1.0, reject_weight)
    torch.manual_seed(seed)
    head = _Head(inputs.shape[1], blocks)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(head(x), y, weight) + 1e-4 * sum(
            parameter.square().sum() for parameter in head.parameters()
        )
        loss.backward()
        optimizer.step()
        schedule.step()
    return {
        "mean": _rounded(mean),
        "scale": _rounded(scale),
        "layers": [[_rounded(layer.weight), _rounded(layer.bias)] for layer in head.layers],  # type: ignore[arg-type]
    }


def _rounded(values: np.ndarray | Tensor) -> object:
    """Nested lists of numbers with five significant digits."""
    array = values.detach().numpy() if isinstance(values, Tensor) else values
    return np.vectorize(lambda value: float(f"{value:.5g}"), otypes=[float])(array).tolist()


def _measure(head: AcceptanceHead, inputs: np.ndarray, accepted: np.ndarray) -> HeadFigures:
    scores = np.array([head.of_vector(row) for row in inputs])
    order = scores.argsort(kind="stable")
    places = np.empty(len(scores))
    places[order] = np.arange(1, len(scores) + 1)
    right, wrong = int(accepted.sum()), int((~accepted).sum())
    above = places[accepted].sum() - right * (right + 1) / 2
    return HeadFigures(float(above / max(1, right * wrong)), float(((scores >= 0.5) == accepted).mean()))


def _race_temperature(draft: Path) -> float:
    config = json.loads((draft / "config.json").read_text(encoding="utf-8"))
    return float(config.get("nacre_race_temperature", 0.5))
