"""Muon for the matrices, Adam for the rest: what a few million tokens can teach a few million parameters.

Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"): the update of a matrix
is its Nesterov momentum, orthogonalised by five Newton-Schulz iterations, so that all directions move
alike. Embeddings and norms have no such geometry and take Adam steps. State is a flat dict of tensors so
that a checkpoint is plain safetensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nacre.training.parallel import Workers

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor, iterations: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices of a batch [n, rows, columns], singular values roughly in 0.7 to
    1.2.
    """
    a, b, c = _NEWTON_SCHULZ
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class MuonAdam:
    """One optimizer over named parameters; `parts` says into how many stacked matrices a weight falls (qkv:
    3).
    """

    def __init__(
        self,
        parameters: Sequence[tuple[str, Tensor]],
        *,
        matrix_rate: float = 0.02,
        other_rate: float = 0.004,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.98),
        weight_decay: float = 0.01,
    ) -> None:
        self.rates = (matrix_rate, other_rate)
        self.momentum, self.betas, self.weight_decay = momentum, betas, weight_decay
        self.matrices: list[tuple[str, Tensor, int]] = []
        self.others: list[tuple[str, Tensor]] = []
        self.state: dict[str, Tensor] = {}
        for name, weight in parameters:
            leaf = name.rsplit(".", 1)[-1]
            if weight.ndim == 2 and leaf != "embedding":
                self.matrices.append((name, weight, {"qkv": 3, "gate_up": 2}.get(leaf, 1)))
                self.state[f"{name}.momentum"] = torch.zeros_like(weight)
            else:
                self.others.append((name, weight))
                self.state[f"{name}.mean"] = torch.zeros_like(weight)
                self.state[f"{name}.square"] = torch.zeros_like(weight)

    def step(self, number: int, scale: float, workers: Workers) -> None:
        """Apply and clear the gradients; `number` counts from 0, `scale` multiplies both learning rates."""
        workers.map(lambda matrix: self._matrix_step(*matrix, scale), self.matrices)
        workers.map(lambda other: self._other_step(*other, number, scale), self.others)

    @torch.no_grad()
    def _matrix_step(self, name: str, weight: Tensor, parts: int, scale: float) -> None:
        gradient = _take_gradient(weight)
        velocity = self.state[f"{name}.momentum"].lerp_(gradient, 1 - self.momentum)
        look_ahead = gradient.lerp_(velocity, self.momentum)
        stacked = look_ahead.view(parts, -1, look_ahead.shape[1])
        update = orthogonalise(stacked)
        gain = max(1.0, stacked.shape[1] / stacked.shape[2]) ** 0.5
        weight.mul_(1 - self.rates[0] * scale * self.weight_decay)
        weight.add_(update.reshape(weight.shape), alpha=-self.rates[0] * scale * gain)

    @torch.no_grad()
    def _other_step(self, name: str, weight: Tensor, number: int, scale: float) -> None:
        gradient = _take_gradient(weight)
        low, high = self.betas
        mean = self.state[f"{name}.mean"].lerp_(gradient, 1 - low)
        square = self.state[f"{name}.square"].lerp_(gradient.square(), 1 - high)
        root = (square / (1 - high ** (number + 1))).sqrt_().add_(1e-10)
        weight.addcdiv_(mean, root, value=-self.rates[1] * scale / (1 - low ** (number + 1)))


def _take_gradient(weight: Tensor) -> Tensor:
    gradient = weight.grad
    assert gradient is not None
    weight.grad = None
    return gradient
