"""`nacre demo` with real processes and tiny models: what it proves and what it prints, never how fast it is."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from nacre.cli.demo import as_dict
from nacre.cli.demo_run import DemoOptions, DemoResult, Sample
from tests.cli.conftest import Nacre
from tests.tiny_models import MAX_POSITIONS, TinyPair


def sample(tokens: tuple[int, ...], **values: float) -> Sample:
    fields = {"prompt": (1, 2), "text": repr(tokens), "ttft_s": 1.0, "total_s": 3.0, "first_tokens": 1, **values}
    return Sample(tokens=tokens, **fields)  # type: ignore[arg-type]


def result(nacre: list[Sample], alone: list[Sample], expected: list[list[int] | None]) -> DemoResult:
    options = DemoOptions(
        target="t",
        draft=None,
        dtype=None,
        device=None,
        threads=1,
        method=None,
        seed=1,
        temperature=1.0,
        prompts=("p",) * len(nacre),
        warm_up="w",
        max_tokens=5,
    )
    plain = [{"tokens": 5, "first_s": 1.0, "total_s": 5.0, "expected": tokens} for tokens in expected]
    return DemoResult(options, "m", "f", (), (), nacre, alone, plain)


TOKENS = (1, 2, 3, 4, 5)


def test_figures_are_sums_over_all_prompts_and_leave_the_prompts_time_out():
    nacre = [
        sample(TOKENS, passes=2, draft_bytes=50, verify_s=0.5),
        sample(TOKENS, first_tokens=3, ttft_s=2.0, total_s=2.5, passes=3, draft_bytes=0, verify_s=0.25),
    ]
    alone = [sample(TOKENS, passes=5, verify_s=1.0), sample(TOKENS, passes=5, verify_s=1.0)]
    told = as_dict(result(nacre, alone, [None, None]))
    assert told["tokens_per_s"] == pytest.approx((4 + 2) / (2 + 0.5))
    assert told["ar_tokens_per_s"] == pytest.approx(8 / 4)
    assert told["hf_tokens_per_s"] == pytest.approx(8 / 8)
    assert told["speedup"] == pytest.approx(2.4 / 2)
    assert told["acceptance_length"] == pytest.approx(10 / 5)
    assert told["bytes_up_per_token"] == pytest.approx(5.0)
    assert told["verifier_seconds_per_token"] == pytest.approx(0.075)
    assert told["ar_verifier_seconds_per_token"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("alone", "expected", "identical", "to_transformers"),
    [
        (TOKENS, None, True, None),
        (TOKENS, list(TOKENS), True, True),
        ((1, 2, 3, 4, 6), None, False, None),
        (TOKENS, [1, 2, 3, 4, 6], False, False),
        ((1, 2, 3, 4), list(TOKENS), False, True),
    ],
)
def test_one_different_token_anywhere_is_not_identical(
    alone: tuple[int, ...], expected: list[int] | None, identical: bool, to_transformers: bool | None
):
    told = result([sample(TOKENS)], [sample(alone)], [expected])
    assert told.identical is identical
    assert told.identical_to_transformers is to_transformers


@pytest.mark.processes
@pytest.mark.timeout(900)
def test_the_demo_proves_that_nothing_changed_also_against_plain_transformers(
    nacre_process: Nacre, tiny_pair: TinyPair
):
    outcome = nacre_process(
        *("demo", "--json", "--prompts", 2, "--max-tokens", 24, "--dtype", "float32"),
        *("--target", tiny_pair.target, "--draft", tiny_pair.draft),
    )
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    assert told["identical"] is True
    assert told["identical_to_transformers"] is True
    for figure in ("tokens_per_s", "ar_tokens_per_s", "hf_tokens_per_s", "speedup", "verifier_seconds_per_token"):
        assert told[figure] > 0
    assert told["acceptance_length"] >= 1
    assert told["bytes_up_per_token"] >= 0
    assert [entry["tokens"] for entry in told["samples"]] == [24, 24]
    assert "Traceback" not in outcome.err
    left = [p for p in psutil.process_iter(["cmdline"]) if str(tiny_pair.target) in (p.info["cmdline"] or [])]
    assert left == []


@pytest.mark.processes
@pytest.mark.timeout(900)
def test_the_demo_inflates_once_and_shows_a_text_and_a_table(nacre_process: Nacre, tiny_pair: TinyPair):
    flags = ("demo", "--quick", "--max-tokens", 8, "--parameters", "1M", "--temperature", 0)
    outcome = nacre_process(*flags, "--target", tiny_pair.target, "--draft", tiny_pair.draft)
    assert outcome.code == 0, outcome.err
    for words in ("A text neither model has seen", "who chose first", "tokens/s", "speed-up", "identical", "T = 0"):
        assert words in outcome.out
    assert "inflated to 1 M" in outcome.out
    assert "\x1b[" not in outcome.out, "no colours where there is no terminal"
    cached = list((Path.cwd().parent / "cache" / "inflated").glob("*/*/config.json"))
    assert len(cached) == 1


@pytest.mark.processes
@pytest.mark.timeout(900)
def test_more_tokens_than_the_context_holds_is_one_line_and_leaves_nothing(nacre_process: Nacre, tiny_pair: TinyPair):
    outcome = nacre_process(
        *("demo", "--json", "--prompts", 1, "--max-tokens", 5000, "--dtype", "float32"),
        *("--target", tiny_pair.target, "--draft", tiny_pair.draft),
    )
    assert outcome.code == 2
    assert outcome.out == ""
    last = outcome.err.splitlines()[-1]
    assert last.startswith("nacre: --max-tokens is 5000; after prompts of up to")
    assert last.endswith("ask for fewer")
    assert str(MAX_POSITIONS) not in last
    assert "Traceback" not in outcome.err
