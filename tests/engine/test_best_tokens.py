"""The best tokens of rows: those of a search through all, whatever the vocabulary's size."""

from __future__ import annotations

import math

import pytest
import torch

from nacre.engine.scores import best_tokens


@pytest.mark.parametrize("vocab", [3, 63, 64, 640, 1000, 4096])
@pytest.mark.parametrize("count", [1, 8, 16])
def test_they_are_those_of_a_search_through_all(vocab: int, count: int) -> None:
    logits = torch.randn(5, vocab, generator=torch.Generator().manual_seed(vocab + count))
    values, ids = torch.topk(torch.log_softmax(logits, dim=1), min(count, vocab), dim=1)
    for found, row_ids, row_values in zip(best_tokens(logits, count), ids.tolist(), values.tolist(), strict=True):
        assert [token for token, _ in found] == row_ids
        assert [logprob for _, logprob in found] == pytest.approx(row_values, abs=1e-5)


def test_all_of_them_may_lie_in_one_block_or_at_the_very_end() -> None:
    logits = torch.zeros(2, 700)
    logits[0, 64:80] = torch.arange(16.0) + 1
    logits[1, 690:] = torch.arange(10.0) + 1
    first, second = best_tokens(logits, 8)
    assert [token for token, _ in first] == list(range(79, 71, -1))
    assert [token for token, _ in second] == list(range(699, 691, -1))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_row_that_is_not_finite_has_none(bad: float) -> None:
    logits = torch.randn(2, 1000)
    logits[1, 700] = bad
    first, second = best_tokens(logits, 4)
    assert len(first) == 4
    assert second == ()
