"""The race in C has numpy's bits: ids, scores, ties, what is missing."""

from __future__ import annotations

import numpy as np
import pytest
from nacre_kernels import library
from nacre_kernels.race import race_top

from nacre.sampling import History, RowContext, SamplingParams
from nacre.sampling.drafts import draft_scores

KEYS = (1, 2**63 + 12345, 77)
POSITIONS = (5, 2**33 + 1, 900)


def in_c(logits: np.ndarray, temperature: float, top: int) -> tuple[np.ndarray, np.ndarray]:
    inverse = np.full(len(logits), 1 / temperature if temperature else 0, np.float32)
    streams = (np.array(values[: len(logits)], np.uint64) for values in (KEYS, POSITIONS))
    return race_top(logits, inverse, *streams, top)


def in_numpy(logits: np.ndarray, temperature: float, top: int) -> tuple[np.ndarray, np.ndarray]:
    params = SamplingParams(temperature=temperature)
    rows = [
        RowContext(params=params, key=key, position=position, history=History())
        for key, position in zip(KEYS, POSITIONS, strict=True)
    ]
    return draft_scores(logits, rows[: len(logits)], top)


def same_bits(mine: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]) -> bool:
    return np.array_equal(mine[0], theirs[0]) and mine[1].tobytes() == theirs[1].tobytes()


@pytest.mark.parametrize("vocab", [1, 5, 32, 33, 97, 1000, 4096, 4100, 20_000])
@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 5.0])
def test_ids_and_scores_have_numpys_bits_on_every_instruction_set(
    vocab: int, temperature: float, isas: tuple[str, ...]
) -> None:
    draw = np.random.default_rng(vocab)
    logits = (3 * draw.standard_normal((3, vocab))).astype(np.float32)
    logits[0, : vocab // 3] = -np.inf
    logits[1, vocab // 2 :] = logits[1, vocab // 2]
    for isa in isas:
        library.set_isa(isa)
        for top in (1, 16, 40):
            assert same_bits(in_c(logits, temperature, top), in_numpy(logits, temperature, top))


def test_rows_of_one_position_are_as_if_alone() -> None:
    logits = (3 * np.random.default_rng(1).standard_normal((5, 300))).astype(np.float32)
    keys, positions = np.array([1, 1, 2, 2, 1], np.uint64), np.array([7, 7, 7, 8, 7], np.uint64)
    inverse = np.ones(5, np.float32)
    together = race_top(logits, inverse, keys, positions, 8)
    for r in range(5):
        alone = race_top(*(values[r : r + 1] for values in (logits, inverse, keys, positions)), 8)
        assert same_bits((together[0][r], together[1][r]), (alone[0][0], alone[1][0]))


def test_a_row_that_is_broken_offers_nothing_and_harms_no_other() -> None:
    logits = np.random.default_rng(0).standard_normal((3, 200)).astype(np.float32)
    whole = in_c(logits, 1.0, 4)
    for value in (np.nan, np.inf):
        logits[1, 190] = value
        ids, scores = in_c(logits, 1.0, 4)
        assert (ids[1] == -1).all()
        assert np.isneginf(scores[1]).all()
        assert np.array_equal(ids[[0, 2]], whole[0][[0, 2]])
    logits[1] = -np.inf
    assert same_bits(in_c(logits, 1.0, 4), in_numpy(logits, 1.0, 4))


def test_rows_may_lie_apart() -> None:
    wide = np.random.default_rng(0).standard_normal((3, 320)).astype(np.float32)
    narrow = wide[:, :300]
    assert same_bits(in_c(narrow, 1.0, 8), in_c(np.ascontiguousarray(narrow), 1.0, 8))


def test_wrong_arguments_are_refused() -> None:
    logits = np.zeros((2, 8), np.float32)
    keys, inverse = np.zeros(2, np.uint64), np.ones(2, np.float32)
    with pytest.raises(ValueError, match="logits"):
        race_top(logits.astype(np.float64), inverse, keys, keys, 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="logits"):
        race_top(logits[:, ::2], inverse, keys, keys, 1)
    with pytest.raises(ValueError, match="keys"):
        race_top(logits, inverse, keys[:1], keys, 1)
    with pytest.raises(ValueError, match="positions"):
        race_top(logits, inverse, keys, keys.astype(np.int32), 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="top"):
        race_top(logits, inverse, keys, keys, 0)
