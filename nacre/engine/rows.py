"""What goes into one pass of the engine and what comes out of it.

Rule: a block names rows of *one* sequence, and a row is named by an id that its sequence counts up and never
reuses; so a late or repeated request can never hit another row by mistake.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from nacre.errors import NacreError

TIP = -1
"""As a parent: the last committed token of the sequence."""


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Rows of one sequence for one pass.

    Row i gets the sequence's next row id. `parents[i]` is TIP or the row id of an earlier uncommitted row of
    this sequence, one of this block included; `parents=()` is short for a chain that starts at the tip. Rows
    from `logits_from` on get logits. `commit=True` is a prompt chunk: a chain from the tip that is committed
    at once (all uncommitted rows of the sequence are freed: they hung below an older tip).
    """

    sequence: int
    tokens: tuple[int, ...]
    parents: tuple[int, ...] = ()
    logits_from: int = 0
    commit: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class StepResult:
    """Logits of the rows that wanted them, in block order, and the row ids each block got."""

    logits: torch.Tensor  # float32 [rows with logits, vocab]
    row_ids: tuple[range, ...]
    hidden: torch.Tensor | None = None  # float32 [rows with logits, hidden], after `Engine.keep_hidden`


@dataclass(frozen=True, slots=True)
class Admission:
    """Which blocks one pass can take together, and why it cannot take the others."""

    accepted: tuple[RowBlock, ...]
    refused: tuple[tuple[RowBlock, NacreError], ...]
