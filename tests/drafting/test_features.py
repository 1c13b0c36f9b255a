"""The features of a guess are those of the distribution its token was drawn from."""

from __future__ import annotations

import numpy as np
import pytest

from nacre.drafting import DraftContext, Expansion, Guess
from nacre.drafting.features import NO_RIVAL, features_of_rows
from nacre.drafting.model import ModelProposer
from nacre.engine import Engine, RowBlock, load_model
from nacre.sampling import History, RowContext, SamplingParams, draft_scores
from tests.tiny_models import TinyPair

PROMPT = tuple(range(5, 25))


def row(params: SamplingParams) -> RowContext:
    return RowContext(params=params, key=7, position=11, history=History((1, 2), ()), ancestors=())


@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_they_are_what_the_definitions_say(temperature: float) -> None:
    logits = np.random.default_rng(3).normal(size=(1, 50)).astype(np.float32) * 2
    context = row(SamplingParams(temperature=temperature))
    ids, scores = draft_scores(logits, [context], 16)
    (told,) = features_of_rows(logits, [context], ids[:, :3], scores)
    exact = np.exp(logits[0].astype(float) / (temperature or 1.0))
    exact /= exact.sum()
    for rank, features in enumerate(told):
        assert features.q == pytest.approx(exact[ids[0, rank]], rel=1e-4)
        assert features.entropy == pytest.approx(-(exact * np.log(exact)).sum(), rel=1e-4)
        assert features.top == pytest.approx(sorted(exact, reverse=True)[:10], rel=1e-4)
        assert features.gap == pytest.approx(scores[0, rank] - scores[0, 1 if rank == 0 else 0], abs=1e-5)


def test_what_truncation_removes_has_no_probability() -> None:
    logits = np.array([[3.0, 2.0, 1.0, 0.0, -1.0]], dtype=np.float32)
    context = row(SamplingParams(top_k=2))
    ids, scores = draft_scores(logits, [context], 4)
    (told,) = features_of_rows(logits, [context], ids[:, :1], scores)
    assert told[0].top == pytest.approx([0.7310586, 0.2689414, 0.0, 0.0, 0.0], abs=1e-6)
    one = row(SamplingParams(top_k=1))
    ids, scores = draft_scores(logits, [one], 4)
    (told,) = features_of_rows(logits, [one], ids[:, :1], scores)
    assert (told[0].q, told[0].gap, told[0].entropy) == (1.0, NO_RIVAL, 0.0)


def test_a_broken_row_harms_nobody() -> None:
    logits = np.full((1, 8), np.nan, dtype=np.float32)
    context = row(SamplingParams())
    ids, scores = draft_scores(logits, [context], 4)
    assert len(features_of_rows(logits, [context], ids[:, :2], scores)[0]) == 2


def test_a_proposer_tells_them_only_when_asked(tiny_pair: TinyPair) -> None:
    loaded = load_model(tiny_pair.draft, dtype="float32", device="cpu", threads=1)
    engine = Engine(loaded, kv_bytes=1 << 22, exact=False)

    def guesses(**options: bool) -> list[Guess]:
        drafting = ModelProposer(engine, RowBlock, **options)  # type: ignore[arg-type]
        drafting.open(0, DraftContext(PROMPT, len(PROMPT), SamplingParams(), 1))
        (first,) = drafting.propose([Expansion(0, 0, (), ())])
        (again,) = drafting.propose([Expansion(0, 0, (), ())])
        drafting.close(0)
        assert first == again
        return first

    plain, told = guesses(), guesses(features=True)
    assert [g.token for g in plain] == [g.token for g in told]
    assert all(guess.features is None for guess in plain)
    for guess in told:
        assert guess.features is not None
        assert 0 < guess.features.q <= 1
