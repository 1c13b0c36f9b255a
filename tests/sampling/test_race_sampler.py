"""The race sampler: its definition, independence of rows, temperature 0, log-probabilities and unusable logits."""

from __future__ import annotations

import ast
import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nacre.sampling
from nacre.errors import Internal
from nacre.sampling import Choice, History, RowContext, SamplingParams, UnusableLogits, choose_rows, race_scores
from tests.sampling import sampling_reference as reference
from tests.sampling.sampling_cases import random_case

F32 = np.float32
PLAIN = SamplingParams()
GREEDY = SamplingParams(temperature=0)


def row(params: SamplingParams = PLAIN, key: int = 1, position: int = 1, **fields: object) -> RowContext:
    return RowContext(params, key, position, History(), **fields)  # type: ignore[arg-type]


def same(got: Choice, expected: Choice) -> bool:
    """Equal to the bit; -0 and 0 differ, for a client would see it."""
    return repr(got) == repr(expected)


@pytest.mark.parametrize("seed", range(6))
def test_the_sampler_equals_the_literal_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        for _ in range(50):
            case = random_case(rng, int(rng.choice([1, 2, 5, 31, 32, 33, 64, 100, 150])), int(rng.integers(-1, 7)))
            expected = reference.choose(case.logits, case.row, case.prompt, case.output)
            assert same(choose_rows(case.logits[None], [case.row])[0], expected), case


@pytest.mark.parametrize("vocab", [31, 4096, 5003, 40_000])
def test_the_race_among_candidates_ends_like_the_race_among_all(vocab: int) -> None:
    rng = np.random.default_rng(vocab)
    for scale in (0.0, 0.3, 2.0, 8.0, 1000.0):
        logits = (rng.standard_normal((6, vocab)) * scale).astype(F32)
        logits[::2, rng.integers(vocab)] += F32(scale * 3)
        rows = [row(SamplingParams(temperature=t), 5, p) for p, t in enumerate((0.1, 0.7, 1.0, 1.0, 2.0, 50.0))]
        expected = [
            int(np.argmax(race_scores(values, r.key, r.position, F32(1 / r.params.temperature))))
            for values, r in zip(logits, rows, strict=True)
        ]
        assert [c.token for c in choose_rows(logits, rows)] == expected


def mixed_batch(seed: int, vocab: int, rows: int) -> tuple[np.ndarray, list[RowContext]]:
    rng = np.random.default_rng(seed)
    cases = [random_case(rng, vocab, int(rng.integers(-1, 4))) for _ in range(rows)]
    return np.stack([case.logits for case in cases]), [case.row for case in cases]


@pytest.mark.parametrize("vocab", [33, 256, 10_000])
def test_a_row_never_depends_on_the_other_rows(vocab: int) -> None:
    logits, rows = mixed_batch(vocab, vocab, 24)
    alone = [choose_rows(logits[i : i + 1], rows[i : i + 1])[0] for i in range(len(rows))]
    assert all(map(same, choose_rows(logits, rows), alone))
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = choose_rows(logits[order], [rows[i] for i in order])
    assert all(same(shuffled[at], alone[i]) for at, i in enumerate(order))
    for some in (order[:5], order[5:9], np.repeat(order[:3], 4)):
        assert all(map(same, choose_rows(logits[some], [rows[i] for i in some]), [alone[i] for i in some]))


def test_the_logits_are_left_as_they_were() -> None:
    logits, rows = mixed_batch(3, 100, 16)
    before = logits.copy()
    choose_rows(logits, rows)
    assert before.tobytes() == logits.tobytes()


def test_logits_may_be_a_view_with_gaps() -> None:
    logits, rows = mixed_batch(4, 100, 8)
    wide = np.zeros((16, 300), dtype=F32)
    wide[::2, 100:200] = logits
    assert all(map(same, choose_rows(wide[::2, 100:200], rows), choose_rows(logits, rows)))


def test_no_rows_give_no_choices() -> None:
    assert choose_rows(np.zeros((0, 10), dtype=F32), []) == []


def test_at_temperature_zero_the_greatest_logit_wins_and_the_lower_id_of_equals() -> None:
    logits = F32([[1, 3, 2, 3], [0, 0, 0, 0], [-0.0, 0.0, -1, 0.0], [5, 1, 1, 1]])
    for key in (0, 1, 2**63):
        assert [c.token for c in choose_rows(logits, [row(GREEDY, key)] * 4)] == [1, 0, 0, 0]


def test_at_temperature_zero_noise_and_truncation_do_nothing_but_edits_do() -> None:
    logits = F32([[1, 3, 2, 3]])
    truncated = SamplingParams(temperature=0, top_k=1, top_p=0.01, min_p=1.0)
    assert {choose_rows(logits, [row(truncated, key, key)])[0].token for key in range(50)} == {1}
    assert choose_rows(logits, [row(SamplingParams(temperature=0, banned_ids=(1,)))])[0].token == 3
    assert choose_rows(logits, [row(SamplingParams(temperature=0, logit_bias=((2, 1.5),)))])[0].token == 2
    penalty = dataclasses.replace(GREEDY, presence_penalty=1.5)
    assert choose_rows(logits, [row(penalty, ancestors=(1, 3))])[0].token == 2


def test_temperatures_next_to_zero_are_greedy() -> None:
    logits = F32([[1, 1 + 1e-6, 1]])
    tokens = {choose_rows(logits, [row(SamplingParams(temperature=9e-6), key)])[0].token for key in range(100)}
    assert tokens == {1}


def test_huge_logits_and_extreme_temperatures_still_choose_a_finite_score() -> None:
    logits = F32([[1e30, -1e30, 1e30, -np.inf], [3e38, 0, 0, 0], [-3e38, -np.inf, -np.inf, -np.inf]])
    rows = [row(SamplingParams(temperature=1e-3)), row(SamplingParams(temperature=1e6)), row()]
    assert [c.token for c in choose_rows(logits, rows)] == [0, 0, 0]


def test_a_single_possible_token_is_always_chosen() -> None:
    logits = np.full((1, 5000), -np.inf, dtype=F32)
    logits[0, 4999] = -7
    for params in (PLAIN, GREEDY, SamplingParams(top_k=3, top_p=0.5, min_p=0.5)):
        assert [choose_rows(logits, [row(params, position=p)])[0].token for p in range(20)] == [4999] * 20


def test_log_probabilities_are_those_of_the_raw_logits() -> None:
    rng = np.random.default_rng(9)
    logits = (rng.standard_normal((5, 3000)) * 4).astype(F32)
    params = SamplingParams(temperature=0.5, top_k=3, logit_bias=((7, 50.0),), banned_ids=(8,))
    exact = logits.astype(np.float64)
    exact -= exact.max(axis=1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(axis=1, keepdims=True))
    for choice, values in zip(choose_rows(logits, [row(params, top_logprobs=5)] * 5), exact, strict=True):
        assert choice.token == 7
        assert choice.logprob == pytest.approx(values[7], abs=2e-6)
        assert [token for token, _ in choice.top] == np.argsort(-values)[:5].tolist()
        assert [value for _, value in choice.top] == pytest.approx(np.sort(values)[::-1][:5].tolist(), abs=2e-6)
        assert float(F32(choice.logprob)) == choice.logprob  # survives a fp32 field on the wire


def test_top_log_probabilities_are_ordered_by_value_then_id_and_leave_out_the_impossible() -> None:
    logits = F32([[1, 2, 1, 2, -np.inf]])
    choice = choose_rows(logits, [row(top_logprobs=20)])[0]
    assert [token for token, _ in choice.top] == [1, 3, 0, 2]
    assert all(math.isfinite(value) for _, value in choice.top)
    assert [t for t, _ in choose_rows(logits, [row(top_logprobs=3)])[0].top] == [1, 3, 0]


def test_logits_that_round_to_equal_log_probabilities_are_ordered_by_id() -> None:
    logits = F32([[1.0, np.nextafter(F32(1), F32(2)), 20.0]])
    two, three = (choose_rows(logits, [row(top_logprobs=k)])[0].top for k in (2, 3))
    assert three[1][1] == three[2][1]
    assert [token for token, _ in three] == [2, 0, 1]
    assert two == three[:2]


def test_the_certain_token_has_log_probability_plus_zero() -> None:
    logits = F32([[-np.inf, 3.0, -np.inf]])
    choice = choose_rows(logits, [row(top_logprobs=2)])[0]
    assert repr(choice) == repr(Choice(1, 0.0, ((1, 0.0),)))


def test_rows_that_want_no_log_probability_get_none() -> None:
    choices = choose_rows(np.zeros((3, 8), dtype=F32), [row(), row(top_logprobs=0), row(top_logprobs=2)])
    assert [c.logprob is None for c in choices] == [True, False, False]
    assert [len(c.top) for c in choices] == [0, 0, 2]


BAD = [
    F32([1, np.nan, 3, 0]),
    F32([1, np.inf, 3, 0]),
    F32([-np.inf] * 4),
]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("params", [PLAIN, GREEDY, SamplingParams(top_p=0.5), SamplingParams(top_k=2, banned_ids=(3,))])
def test_unusable_rows_are_named_and_the_others_still_get_their_tokens(bad: np.ndarray, params: SamplingParams) -> None:
    good = F32([[1, 2, 3, 0], [3, 2, 1, 0]])
    rows = [row(params, position=5), row(params, position=6), row(params, position=7)]
    with pytest.raises(UnusableLogits) as caught:
        choose_rows(np.stack([good[0], bad, good[1]]), rows)
    assert isinstance(caught.value, Internal)
    assert list(caught.value.errors) == [1]
    assert caught.value.message.startswith("row 1 (position 6): the greatest logit is ")
    assert "\n" not in caught.value.message
    first, last = choose_rows(good, [rows[0], rows[2]])
    assert caught.value.choices == [first, None, last]


def test_a_row_without_an_allowed_possible_token_is_unusable() -> None:
    logits = F32([[1, -np.inf, 0]])
    with pytest.raises(UnusableLogits, match="the greatest logit is -inf; it must be finite"):
        choose_rows(logits, [row(SamplingParams(allowed_ids=(1,)))])


def test_a_nan_that_a_mask_hides_is_still_found_when_log_probabilities_are_wanted() -> None:
    logits = F32([[1, np.nan, 0]])
    params = SamplingParams(banned_ids=(1,))
    assert choose_rows(logits, [row(params)])[0].token in (0, 2)
    with pytest.raises(UnusableLogits, match="greatest logit is nan"):
        choose_rows(logits, [row(params, top_logprobs=0)])


def test_importing_the_sampler_does_not_import_torch() -> None:
    code = "import nacre.sampling, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_sampler_is_made_of_numpy_errors_and_pure_parts_of_the_standard_library() -> None:
    pure = {"numpy", "nacre.errors", "threading", "itertools", "math", "typing", "dataclasses", "collections"}
    for path in Path(nacre.sampling.__file__).parent.glob("*.py"):
        allowed = pure | {"torch"} if path.name.startswith("torch_") else pure
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                ours = name.startswith("nacre.sampling") or name == "__future__"
                assert ours or name in allowed or name.split(".")[0] in allowed, f"{path.name} imports {name}"
