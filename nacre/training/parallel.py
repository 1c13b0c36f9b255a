"""Work on several cores by halves, not by parallel loops: each worker thread computes alone, with one torch thread.

Rule: what is computed does not depend on how many workers there are or which one is faster: the pieces are fixed by the
caller and results are combined in order. On a machine shared with other work this is also much faster than parallel
loops inside each operation, where every loop waits for the core that was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor, nn

Item = TypeVar("Item")
Result = TypeVar("Result")

SHARDS = 2
"""Into how many pieces a batch is cut: a constant, so that results do not depend on the worker count."""


class Workers:
    """A pool of `threads` workers; torch computes single-threaded while it is open."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "train", initializer=lambda: torch.set_num_threads(1))
        self._before = torch.get_num_threads()

    def __enter__(self) -> Workers:
        torch.set_num_threads(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._before)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        return list(self._pool.map(function, items))

    def backward(self, model: nn.Module, losses: Sequence[Callable[[], Tensor]]) -> float:
        """Set every parameter's gradient to that of the mean of `losses`; returns that mean."""
        weights = [weight for weight in model.parameters() if weight.requires_grad]

        def gradients(loss_of: Callable[[], Tensor]) -> tuple[float, tuple[Tensor, ...]]:
            loss = loss_of() / len(losses)
            return float(loss.detach()), torch.autograd.grad(loss, weights)

        results = self.map(gradients, losses)
        for index, weight in enumerate(weights):
            total = results[0][1][index]
            for _, others in results[1:]:
                total = total + others[index]
            weight.grad = total
        return sum(value for value, _ in results)
