"""Sampling parameters: what is refused, and in which words; the history that penalties look at."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nacre.errors import InvalidArgument
from nacre.sampling import History, SamplingParams, check_top_logprobs

VOCAB = 100


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0),
        SamplingParams(temperature=1e-9, top_k=10**12, top_p=1e-300, min_p=1.0),
        SamplingParams(repetition_penalty=0.5, presence_penalty=-2, frequency_penalty=2),
        SamplingParams(logit_bias=((3, -100.0), (99, 100)), allowed_ids=(1, 2), banned_ids=(1, 1, 5)),
        SamplingParams(banned_ids=tuple(range(99))),
    ],
)
def test_good_values_pass(params: SamplingParams) -> None:
    params.validate(VOCAB)


NAN, INF = math.nan, math.inf
NUMBERS = "it must be a number from"


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"temperature": -0.1}, "temperature", f"temperature is -0.1; {NUMBERS} 0 to 1e+06: use 0 for greedy"),
        ({"temperature": NAN}, "temperature", f"temperature is nan; {NUMBERS} 0 to 1e+06"),
        ({"temperature": INF}, "temperature", f"temperature is inf; {NUMBERS} 0 to 1e+06"),
        ({"temperature": "hot"}, "temperature", f"temperature is 'hot'; {NUMBERS} 0 to 1e+06"),
        ({"temperature": True}, "temperature", f"temperature is True; {NUMBERS} 0 to 1e+06"),
        ({"top_k": -1}, "top_k", "top_k is -1; it must be a whole number of at least 0: use 0 to switch it off"),
        ({"top_k": 2.5}, "top_k", "top_k is 2.5; it must be a whole number of at least 0"),
        ({"top_p": 0}, "top_p", "top_p is 0; it must be above 0 and at most 1: use 1 to switch it off"),
        ({"top_p": 1.01}, "top_p", "top_p is 1.01; it must be above 0 and at most 1"),
        ({"top_p": NAN}, "top_p", "top_p is nan; it must be above 0 and at most 1"),
        ({"min_p": -0.1}, "min_p", f"min_p is -0.1; {NUMBERS} 0 to 1: use 0 to switch it off"),
        ({"min_p": 1.1}, "min_p", f"min_p is 1.1; {NUMBERS} 0 to 1"),
        ({"repetition_penalty": 0}, "repetition_penalty", f"repetition_penalty is 0; {NUMBERS} 0.001 to 1000"),
        ({"repetition_penalty": INF}, "repetition_penalty", f"repetition_penalty is inf; {NUMBERS} 0.001 to 1000"),
        ({"presence_penalty": 2.1}, "presence_penalty", f"presence_penalty is 2.1; {NUMBERS} -2 to 2: use 0"),
        ({"presence_penalty": None}, "presence_penalty", f"presence_penalty is None; {NUMBERS} -2 to 2: use 0"),
        ({"frequency_penalty": -INF}, "frequency_penalty", f"frequency_penalty is -inf; {NUMBERS} -2 to 2"),
        ({"logit_bias": ((100, 1.0),)}, "logit_bias", "logit_bias names token 100; token ids run from 0 to 99: use"),
        ({"logit_bias": ((-1, 1.0),)}, "logit_bias", "logit_bias names token -1; token ids run from 0 to 99"),
        ({"logit_bias": ((5, 101.0),)}, "logit_bias", f"logit_bias of token 5 is 101.0; {NUMBERS} -100 to 100"),
        ({"logit_bias": ((5, NAN),)}, "logit_bias", f"logit_bias of token 5 is nan; {NUMBERS} -100 to 100"),
        (
            {"logit_bias": ((5, 1), (4, 1), (5, 2))},
            "logit_bias",
            "logit_bias names token 5 twice; give each token once",
        ),
        ({"allowed_ids": (1, 100)}, "allowed_ids", "allowed_ids names token 100; token ids run from 0 to 99"),
        (
            {"allowed_ids": ()},
            "allowed_ids",
            "allowed_ids leaves 0 tokens to choose from after 0 banned ones; leave at",
        ),
        ({"allowed_ids": (1, 2), "banned_ids": (2, 1)}, "allowed_ids", "allowed_ids leaves 0 tokens to choose from"),
        ({"banned_ids": ("x" * 999,)}, "banned_ids", "banned_ids names token 'xxx"),
        ({"banned_ids": (10**4000,)}, "banned_ids", "banned_ids names token a number of 13288 bits; token ids run"),
        ({"banned_ids": tuple(range(100))}, "banned_ids", "banned_ids bans all 100 tokens; leave at least one"),
    ],
)
def test_a_bad_value_is_named_with_its_bound_and_remedy(fields: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        SamplingParams(**fields).validate(VOCAB)
    assert caught.value.message.startswith(message)
    assert caught.value.param == param
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("count", [-1, 21, 1.0, True, "3"])
def test_a_bad_number_of_top_logprobs_is_named(count: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"logprobs is .*; it must be a whole number from 0 to 20: ask for fewer"):
        check_top_logprobs(count, "logprobs")


def test_zero_to_twenty_top_logprobs_may_be_asked_for() -> None:
    for count in range(21):
        check_top_logprobs(count)


def counted(history: History, ancestors: tuple[int, ...] = ()) -> dict[int, int]:
    tokens, counts = history.counts(ancestors)
    assert len(set(tokens.tolist())) == len(tokens)
    return dict(zip(tokens.tolist(), counts.tolist(), strict=True))


def test_a_history_counts_the_output_and_only_knows_the_prompt() -> None:
    history = History(prompt=[5, 6, 5], output=[6, 7, 7])
    assert counted(history) == {5: 0, 6: 1, 7: 2}
    history.append(5)
    assert counted(history) == {5: 1, 6: 1, 7: 2}
    assert len(history) == 3


def test_ancestors_count_as_output_of_one_row_only() -> None:
    history = History(prompt=[5], output=[6])
    assert counted(history, (6, 9, 9, 5)) == {5: 1, 6: 2, 9: 2}
    assert counted(history) == {5: 0, 6: 1}


def test_a_history_grows_past_its_first_arrays() -> None:
    history = History(prompt=range(10))
    tokens = np.random.default_rng(0).integers(0, 3000, 5000).tolist()
    for token in tokens:
        history.append(token)
    expected = dict.fromkeys(range(10), 0) | {t: tokens.count(t) for t in set(tokens)}
    assert counted(history) == expected


def test_a_fork_goes_its_own_way() -> None:
    history = History(prompt=[1], output=[2])
    fork = history.fork()
    fork.append(3)
    history.append(2)
    assert counted(history) == {1: 0, 2: 2}
    assert counted(fork) == {1: 0, 2: 1, 3: 1}
