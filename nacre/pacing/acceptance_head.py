"""A small network that says how likely a guess is to come true, from what the draft model knew.

SpecDec++ (Huang et al. 2024) puts one on the draft model's last hidden state: residual blocks x + SiLU(W x + b), then a
linear layer. Ours takes the features a drafter tells instead, because an engine hands out logits and no hidden states;
for guesses coupled by the race the score gap is among them, which no hidden state knows. With no blocks it is a
logistic regression, as DISCO's classifier.

`nacre/training/acceptance_head.py` makes the file, `acceptance_head.json` beside a draft model's weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nacre.errors import FailedPrecondition, NotFound
from nacre.models import located
from nacre.pacing.round_tree import Features

FILE_NAME = "acceptance_head.json"

Array = npt.NDArray[np.float64]

#: Smallest probability that a logarithm is taken of.
_LEAST = 1e-6
_DEEPEST = 20
_TOP = 10


def all_features(features: Features, survival: float, depth: int) -> list[float]:
    """The head of SpecDec++: logarithms of probabilities, the gap, the entropy, log odds of survival, depth.  [15]"""
    odds = min(max(survival, _LEAST), 1.0 - _LEAST)
    return [
        math.log(max(features.q, _LEAST)),
        min(max(features.gap, -10.0), 10.0),
        features.entropy,
        math.log(odds / (1.0 - odds)),
        float(min(depth, _DEEPEST)),
        *(math.log(max(value, _LEAST)) for value in _padded(features.top)),
    ]


def disco_features(features: Features, survival: float, depth: int) -> list[float]:
    """DISCO's: the ten largest probabilities, the entropy, the position in the draft.  [12]"""
    return [*_padded(features.top), features.entropy, float(min(depth, _DEEPEST))]


#: What a head of this name reads, and how many numbers that is.
INPUTS: Mapping[str, tuple[Callable[[Features, float, int], list[float]], int]] = {
    "specdec++": (all_features, 5 + _TOP),
    "disco": (disco_features, 2 + _TOP),
}


class AcceptanceHead:
    """Weights as plain lists: mean and scale of the inputs, layers [[W, b], …], the first of which widens, the last of
    which yields one number; those between are residual blocks."""

    def __init__(self, name: str, weights: Mapping[str, Any]) -> None:
        self._inputs, count = INPUTS[name]
        self._mean: Array = np.asarray(weights["mean"], dtype=np.float64)
        self._scale: Array = np.asarray(weights["scale"], dtype=np.float64)
        self._layers: list[tuple[Array, Array]] = [
            (np.asarray(matrix, dtype=np.float64), np.asarray(bias, dtype=np.float64))
            for matrix, bias in weights["layers"]
        ]
        width = count
        for matrix, bias in self._layers:
            if matrix.ndim != 2 or matrix.shape[1] != width or bias.shape != matrix.shape[:1]:
                raise ValueError(f"a layer of shape {matrix.shape} does not follow a width of {width}")
            width = len(matrix)
        if width != 1 or self._mean.shape != (count,) or self._scale.shape != (count,):
            raise ValueError(f"the head must take {count} numbers and yield one")

    def acceptance(self, features: Features, survival: float, depth: int) -> float:
        """The probability that a guess comes true, given that its parent does; `depth` is 1 just below the tip."""
        return self.of_vector(np.array(self._inputs(features, survival, depth)))

    def of_vector(self, inputs: Array) -> float:
        """The same for inputs as `INPUTS` makes them."""
        x = (inputs - self._mean) * self._scale
        last = len(self._layers) - 1
        for place, (matrix, bias) in enumerate(self._layers):
            y = matrix @ x + bias
            if place == last:
                x = y
            else:
                y = y / (1.0 + np.exp(-y))
                x = y if place == 0 else x + y
        return float(1.0 / (1.0 + np.exp(-x[0])))


@cache
def load_head(name: str, source: str) -> AcceptanceHead:
    """The head `name` of a draft model: a bundled model's name or a directory.

    Raises NotFound if there is none, FailedPrecondition if the file does not hold what it should.
    """
    path = Path(located(source)) / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        raise NotFound(
            f"{source} has no {FILE_NAME}; train one with `nacre train acceptance-head`, or name a model that has one",
            param="head",
        ) from None
    try:
        return AcceptanceHead(name, json.loads(text)[name])
    except (ValueError, KeyError, TypeError) as wrong:
        raise FailedPrecondition(
            f"{path} holds no sound head {name!r} ({wrong}); train it again with `nacre train acceptance-head`",
            param="head",
        ) from None


def _padded(top: Sequence[float]) -> list[float]:
    return [*top[:_TOP], *([0.0] * (_TOP - len(top)))]
