"""The way out for models that cannot run packed: every row computes its whole text from scratch.

No keys or values are kept, so there is nothing that a model with unusual attention, recurrent state or its
own idea of positions could get wrong; and since a row's logits come from a pass over its own path alone, they
cannot depend on anything else: exact by construction, at a cost that grows with the text. Speculation does
not pay here; the engine says so in `EngineInfo.tree_mode`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from nacre.engine.kv_pool import Held, Placement
from nacre.engine.rows import TIP

_TOKEN_BYTES = 8  # the pool only keeps a token id and a slot number
_MAX_SLOTS = 1 << 22


class RecomputeForward:
    """Same shape as `PackedForward`, no KV tensors."""

    def __init__(self, model: PreTrainedModel, *, kv_bytes: int) -> None:
        self.model = model
        self.slot_bytes = _TOKEN_BYTES
        self.slots = min(kv_bytes // _TOKEN_BYTES, _MAX_SLOTS)

    def __call__(self, placed: Sequence[Placement]) -> torch.Tensor:
        """Runs one pass. Returns float32 [rows with logits, vocab] in block order."""
        device = next(self.model.parameters()).device
        rows: list[torch.Tensor] = []
        with torch.inference_mode():
            for placement in placed:
                for index in range(placement.block.logits_from, len(placement.block.tokens)):
                    text = torch.tensor([_text(placement, index)], device=device)
                    rows.append(self.model(input_ids=text, use_cache=False).logits[0, -1].float())
            if not rows:
                return torch.empty(0, self.model.config.get_text_config().vocab_size, device=device)
            return torch.stack(rows)


def _text(placement: Placement, index: int) -> list[int]:
    """All tokens from the sequence's start down to row `index` of the block."""
    held, block = placement.held, placement.block
    committed = held.tokens[: held.length].tolist()
    if block.commit:
        return committed + list(block.tokens[: index + 1])
    return committed + _branch(held, placement.row_ids[index])


def _branch(held: Held, row_id: int) -> list[int]:
    tokens: list[int] = []
    while row_id != TIP:
        row = held.rows[row_id]
        tokens.append(row.token)
        row_id = row.parent
    tokens.reverse()
    return tokens
