"""Perturbed scores for drafters: the best ids by brute force, and the coupling with the sampler."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nacre.sampling import (
    History,
    ReducedVocabulary,
    RowContext,
    SamplingParams,
    choose_rows,
    draft_scores,
    race_scores,
)
from nacre.sampling.race import MAX_REMEMBERED_IDS
from tests.sampling import sampling_reference as reference
from tests.sampling.sampling_cases import Case, random_case

F32 = np.float32


def ranked(scores: dict[int, np.float32], top_m: int) -> tuple[list[int], list[float]]:
    order = sorted(scores, key=lambda t: (-scores[t], t))[:top_m]
    missing = top_m - len(order)
    return [*order, *[-1] * missing], [*(float(scores[t]) for t in order), *[-np.inf] * missing]


@pytest.mark.parametrize("seed", range(4))
def test_the_best_ids_and_scores_equal_the_literal_reference(seed: int) -> None:
    rng = np.random.default_rng(40 + seed)
    with np.errstate(all="ignore"):
        for _ in range(40):
            case = random_case(rng, int(rng.choice([1, 3, 32, 33, 100])))
            top_m = int(rng.choice([1, 2, 7, 40]))
            ids, scores = draft_scores(case.logits[None], [case.row], top_m)
            expected = ranked(reference.final_scores(case.logits, case.row, case.prompt, case.output), top_m)
            assert (ids[0].tolist(), scores[0].tolist()) == expected, case
            assert scores.dtype == F32


@pytest.mark.parametrize("vocab", [4096, MAX_REMEMBERED_IDS + 17, 30_000])
@pytest.mark.parametrize("top_m", [1, 4, 16])
def test_the_best_ids_of_several_rows_equal_the_scores_of_all(vocab: int, top_m: int) -> None:
    rng = np.random.default_rng(vocab + top_m)
    scales = F32([0, 0.5, 3, 8, 3])[:, None]
    logits = (rng.standard_normal((5, vocab)) * scales).astype(F32)
    params = SamplingParams(temperature=0.8)
    rows = [RowContext(params, 7, position) for position in (3, 3, 4, 900, 2**35)]
    ids, scores = draft_scores(logits, rows, top_m)
    for values, row, row_ids, row_scores in zip(logits, rows, ids, scores, strict=True):
        full = race_scores(values, row.key, row.position, F32(1 / 0.8))
        order = np.lexsort((np.arange(vocab), -full))[:top_m]
        assert row_ids.tolist() == order.tolist()
        assert row_scores.tolist() == full[order].tolist()


def test_race_scores_of_chosen_ids_are_those_of_the_whole_row() -> None:
    logits = np.random.default_rng(1).standard_normal(200).astype(F32)
    ids = np.array([150, 3, 64, 199])
    whole = race_scores(logits, 11, 12, 2.0)
    assert race_scores(logits[ids], 11, 12, 2.0, ids).tolist() == whole[ids].tolist()


def test_at_temperature_zero_the_scores_are_the_processed_logits() -> None:
    params = SamplingParams(temperature=0, top_k=1, logit_bias=((2, 1.0),), banned_ids=(0,))
    ids, scores = draft_scores(F32([[9, 1, 2, 3, 3]]), [RowContext(params, 0, 0)], 4)
    assert ids.tolist() == [[2, 3, 4, 1]]
    assert scores.tolist() == [[3, 3, 3, 1]]


def cases(seed: int, vocab: int, count: int) -> list[Case]:
    rng = np.random.default_rng(seed)
    return [random_case(rng, vocab) for _ in range(count)]


@pytest.mark.parametrize("vocab", [50, 4096, 9000])
def test_with_the_targets_own_logits_the_best_guess_is_always_the_targets_choice(vocab: int) -> None:
    batch = cases(vocab, vocab, 60)
    logits = np.stack([case.logits for case in batch])
    rows = [case.row for case in batch]
    ids, _ = draft_scores(logits, rows, 3)
    assert ids[:, 0].tolist() == [choice.token for choice in choose_rows(logits, rows)]


def test_the_second_guess_is_the_choice_if_the_first_is_banned() -> None:
    rng = np.random.default_rng(8)
    logits = (rng.standard_normal((200, 300)) * 2).astype(F32)
    rows = [RowContext(SamplingParams(), 3, position) for position in range(200)]
    ids, _ = draft_scores(logits, rows, 2)
    without = [
        dataclasses.replace(row, params=SamplingParams(banned_ids=(int(best),)))
        for row, best in zip(rows, ids[:, 0], strict=True)
    ]
    assert ids[:, 1].tolist() == [choice.token for choice in choose_rows(logits, without)]


def test_shared_noise_agrees_far_more_often_than_private_noise() -> None:
    rng = np.random.default_rng(10)
    target = (rng.standard_normal((3000, 100)) * 2).astype(F32)
    draft = (target + rng.standard_normal(target.shape) * 0.3).astype(F32)
    rows = [RowContext(SamplingParams(), 5, position) for position in range(3000)]
    private = [dataclasses.replace(row, key=6) for row in rows]
    chosen = np.array([choice.token for choice in choose_rows(target, rows)])
    shared = float(np.mean(draft_scores(draft, rows, 1)[0][:, 0] == chosen))
    apart = float(np.mean(draft_scores(draft, private, 1)[0][:, 0] == chosen))
    p, q = (np.exp(v.astype(np.float64)) / np.exp(v.astype(np.float64)).sum(1, keepdims=True) for v in (target, draft))
    distance = 0.5 * np.abs(p - q).sum(axis=1)
    assert shared > float(np.mean((1 - distance) / (1 + distance))) - 0.03  # the bound of Daliri et al.
    assert apart == pytest.approx(float(np.mean((p * q).sum(axis=1))), abs=0.03)
    assert shared > apart + 0.4


@pytest.mark.parametrize("seed", range(3))
def test_a_reduced_vocabulary_equals_the_full_one_with_the_rest_impossible(seed: int) -> None:
    rng = np.random.default_rng(60 + seed)
    vocab = 500
    reduced = ReducedVocabulary(rng.permutation(vocab)[:80].astype(np.int64), vocab)
    rows, full, narrow = [], np.full((20, vocab), -np.inf, dtype=F32), np.empty((20, 80), dtype=F32)
    for i in range(20):
        case = random_case(rng, vocab)
        narrow[i] = rng.standard_normal(80) * 3
        full[i, reduced.ids] = narrow[i]
        rows.append(dataclasses.replace(case.row, params=dataclasses.replace(case.row.params, allowed_ids=None)))
    got, expected = draft_scores(narrow, rows, 5, reduced), draft_scores(full, rows, 5)
    assert got[0].tolist() == expected[0].tolist()
    assert got[1].tobytes() == expected[1].tobytes()
    assert set(got[0].ravel().tolist()) <= {*reduced.ids.tolist(), -1}


def test_broken_draft_logits_offer_nothing_and_harm_no_other_row() -> None:
    logits = F32([[1, np.nan, 2], [-np.inf] * 3, [1, 2, np.inf], [1, 2, 3]])
    for params in (SamplingParams(), SamplingParams(temperature=0), SamplingParams(top_p=0.9)):
        rows = [RowContext(params, 1, 1, History())] * 4
        ids, scores = draft_scores(logits, rows, 2)
        assert ids[:3].tolist() == [[-1, -1]] * 3
        assert scores[:3].tolist() == [[-np.inf] * 2] * 3
        assert ids[3].tolist() == draft_scores(logits[3:], rows[3:], 2)[0][0].tolist()
        assert ids[3, 0] >= 0


def test_no_rows_give_empty_arrays() -> None:
    ids, scores = draft_scores(np.zeros((0, 9), dtype=F32), [], 4)
    assert ids.shape == scores.shape == (0, 4)
