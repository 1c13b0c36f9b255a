"""Every processor against a hand-worked example, and all together against the literal reference."""

from __future__ import annotations

import numpy as np
import pytest

from nacre.sampling import PROCESSOR_VERSION, History, RowContext, SamplingParams
from nacre.sampling.processors import edit_row, make_plan, plan_of, survivors, truncate_row
from tests.sampling import sampling_reference as reference
from tests.sampling.sampling_cases import random_case

F32 = np.float32
INF = np.inf


def test_the_order_described_is_version_one() -> None:
    assert PROCESSOR_VERSION == 1


def edited(logits: list[float], params: SamplingParams, history: History | None = None, ancestors=()) -> list[float]:
    row = F32(logits)
    edit_row(row, RowContext(params, 0, 0, history or History(), ancestors), make_plan(params))
    return row.tolist()


def test_a_bias_is_added() -> None:
    assert edited([1, 2, 3], SamplingParams(logit_bias=((0, 2.5), (2, -100.0)))) == [3.5, 2, -97]


def test_the_repetition_penalty_shrinks_positive_and_lowers_negative_logits_of_prompt_and_output() -> None:
    params = SamplingParams(repetition_penalty=2.0)
    assert edited([4, -4, 4, 0, 4], params, History(prompt=[0, 1], output=[3]), (2,)) == [2, -8, 2, 0, 4]


def test_presence_and_frequency_look_at_the_output_and_not_at_the_prompt() -> None:
    params = SamplingParams(presence_penalty=0.5, frequency_penalty=0.25)
    history = History(prompt=[0, 1, 1], output=[1, 2, 2])
    assert edited([4, 4, 4, 4], params, history) == [4, 3.25, 3, 4]


def test_a_rows_own_ancestors_are_penalized_like_output() -> None:
    params = SamplingParams(presence_penalty=0.5, frequency_penalty=0.25)
    history = History(prompt=[0], output=[1])
    assert edited([4, 4, 4, 4], params, history, (1, 3, 3)) == [4, 3, 4, 3]
    assert edited([4, 4, 4, 4], params, history) == [4, 3.25, 4, 4]


def test_the_bias_comes_before_the_penalties() -> None:
    params = SamplingParams(logit_bias=((0, 4.0),), repetition_penalty=2.0)
    assert edited([-2, 1], params, History(prompt=[0])) == [1, 1]  # (-2 + 4) / 2, and not -2 * 2 + 4


def test_only_allowed_and_no_banned_ids_are_left() -> None:
    assert edited([1, 2, 3, 4], SamplingParams(allowed_ids=(3, 1, 1))) == [-INF, 2, -INF, 4]
    assert edited([1, 2, 3, 4], SamplingParams(banned_ids=(0, 3))) == [-INF, 2, 3, -INF]
    assert edited([1, 2, 3, 4], SamplingParams(allowed_ids=(0, 1), banned_ids=(1,))) == [1, -INF, -INF, -INF]


def kept(probabilities: list[float], **fields: float) -> list[int]:
    with np.errstate(divide="ignore"):
        x = np.log(np.array(probabilities)).astype(F32)
    return sorted(survivors(x, SamplingParams(**fields)).tolist())  # type: ignore[arg-type]


def test_top_k_keeps_the_best_and_the_lower_id_of_equals() -> None:
    assert kept([0.1, 0.4, 0.1, 0.4], top_k=2) == [1, 3]
    assert kept([0.1, 0.4, 0.1, 0.4], top_k=3) == [0, 1, 3]
    assert kept([0.25] * 4, top_k=1) == [0]
    assert kept([0.25] * 4, top_k=9) == [0, 1, 2, 3]


def test_top_p_keeps_the_id_that_crosses() -> None:
    assert kept([0.5, 0.3, 0.2], top_p=0.49) == [0]
    assert kept([0.5, 0.3, 0.2], top_p=0.51) == [0, 1]
    assert kept([0.5, 0.3, 0.2], top_p=0.81) == [0, 1, 2]
    assert kept([0.5, 0.3, 0.2], top_p=1e-300) == [0]


def test_top_p_takes_the_lower_id_of_equals_first() -> None:
    assert kept([0.25] * 4, top_p=0.5) == [0, 1]
    assert kept([0.25] * 4, top_p=0.5000001) == [0, 1, 2]


def test_top_p_counts_what_top_k_left_as_the_whole() -> None:
    probabilities = [0.4, 0.2, 0.2, 0.2]
    assert kept(probabilities, top_p=0.65) == [0, 1, 2]
    assert kept(probabilities, top_p=0.65, top_k=2) == [0]  # 0.4 of 0.6 is 0.667


def test_min_p_is_relative_to_the_best() -> None:
    assert kept([0.5, 0.26, 0.24], min_p=0.5) == [0, 1]
    assert kept([0.5, 0.26, 0.24], min_p=0.45) == [0, 1, 2]
    assert kept([0.4, 0.4, 0.2], min_p=1.0) == [0, 1]


def test_min_p_comes_after_top_p() -> None:
    # Alone, min-p would leave 0 and 1; were it first, top-p would see 0.5 / 0.8 and be content with id 0.
    assert kept([0.5, 0.3, 0.1, 0.1], min_p=0.5, top_p=0.6) == [0, 1]


def test_impossible_ids_never_survive() -> None:
    assert kept([0.5, 0, 0.5, 0], top_k=3) == [0, 2]
    assert kept([0.5, 0, 0.5, 0], top_p=1 - 2**-53) == [0, 2]
    assert kept([0.5, 0, 0.5, 0], min_p=1e-300) == [0, 2]


def test_truncation_follows_the_temperature_and_leaves_the_survivors_unscaled() -> None:
    row = F32([2.0, 1.0, 0.0])
    cold, hot = row.copy(), row.copy()
    params = SamplingParams(top_p=0.8)
    truncate_row(cold, params, F32(1 / 0.5))  # 0.867, 0.117, 0.016
    truncate_row(hot, params, F32(1 / 2.0))  # 0.506, 0.307, 0.186
    assert cold.tolist() == [2.0, -INF, -INF]
    assert hot.tolist() == [2.0, 1.0, -INF]


@pytest.mark.parametrize("seed", range(4))
def test_all_processors_together_equal_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        for _ in range(60):
            case = random_case(rng, int(rng.integers(1, 150)))
            row = case.logits.copy()
            edit_row(row, case.row, make_plan(case.row.params))
            expected = reference.edited(case.logits, case.row, case.prompt, case.output)
            assert row.view(np.uint32).tolist() == F32(expected).view(np.uint32).tolist()
            x = row * F32(1.0 / max(case.row.params.temperature, 1e-5))
            assert kept_by(x, case.row.params) == sorted(reference.survivors(list(x), case.row))


def kept_by(x: np.ndarray, params: SamplingParams) -> list[int]:
    ids = survivors(x, params)
    return sorted(t for t in ids.tolist() if x[t] > -INF)


@pytest.mark.parametrize("seed", range(3))
def test_truncation_of_a_large_vocabulary_equals_sorting_it(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    for scale in (0.0, 0.01, 1.0, 4.0, 20.0):
        x = (rng.standard_normal(30_000) * scale).astype(F32)
        if seed == 2:
            x = np.round(x * 4) / F32(4)  # many ties
        order = np.lexsort((np.arange(len(x)), -x))
        for p in (0.01, 0.5, 0.9, 0.99, 0.9999999):
            for k in (0, 3000):
                whole = order[:k] if k else order
                mass = np.array([reference.mass(v) for v in F32([0, -1])])  # keeps the reference honest
                assert mass.tolist() == [2**40, round(2**40 * 0.36787944)] or abs(mass[1] / 2**40 - 0.36787944) < 1e-7
                kept_ids = survivors(x, SamplingParams(top_k=k, top_p=p))
                weights = np.exp(x[whole].astype(np.float64) - float(x.max()))
                before = np.cumsum(weights) - weights
                # fp64 knows where the crossing is but for a few parts in 10^7 of the mass.
                at_least = int(np.sum(before < (p - 1e-6) * weights.sum()))
                at_most = int(np.sum(before < (p + 1e-6) * weights.sum()))
                assert at_least <= len(kept_ids) <= at_most
                assert set(kept_ids.tolist()) == set(whole[: len(kept_ids)].tolist())


def test_a_plan_is_made_once_and_belongs_to_its_params() -> None:
    first, second = SamplingParams(temperature=0.5), SamplingParams(temperature=0.25)
    assert plan_of(first) is plan_of(first)
    assert plan_of(second).inverse_temperature == 4
    assert plan_of(first).inverse_temperature == 2


def test_plans_stay_bounded_and_right_over_many_short_lived_params() -> None:
    for i in range(5000):
        assert plan_of(SamplingParams(temperature=1 + i)).inverse_temperature == F32(1 / (1 + i))
