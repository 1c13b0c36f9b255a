"""The whole recipe in miniature: it ends, it resumes to the same bits, and its cards carry the figures it measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from nacre.errors import FailedPrecondition, InvalidArgument
from nacre.training.demo_pair import PairResult, train_demo_pair
from nacre.training.lean_llama import LeanLlama, Shape, load_hugging_face
from nacre.training.loop import Plan, run_steps, silent
from nacre.training.optimizer import MuonAdam, orthogonalise
from nacre.training.parallel import Workers

STEPS = {"target_steps": 16, "draft_steps": 16}
PRODUCT = ("demo-target", "demo-draft")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> PairResult:
    out = tmp_path_factory.mktemp("pair")
    result = train_demo_pair(out, quick=True, threads=1, seed=3, report=silent, **STEPS)
    assert result is not None
    return result


def product_files(out: Path) -> dict[str, bytes]:
    paths = [path for name in PRODUCT for path in (out / name).iterdir()] + [out / "held_out.json"]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def test_a_run_cut_short_twice_and_resumed_on_other_threads_ends_in_the_same_files(
    finished: PairResult, tmp_path: Path
) -> None:
    for stop_after in (5, 11):
        assert (
            train_demo_pair(tmp_path, quick=True, threads=2, seed=3, report=silent, stop_after=stop_after, **STEPS)
            is None
        )
    seen: list[str] = []

    def report(stage: str, done: int, steps: int, value: float) -> None:
        seen.append(stage)

    train_demo_pair(tmp_path, quick=True, threads=2, seed=3, report=report, **STEPS)
    assert seen.count("target") == 16 - 11
    assert product_files(tmp_path) == product_files(finished.target.parent)


def test_a_finished_run_is_not_trained_again(finished: PairResult) -> None:
    seen: list[str] = []

    def report(stage: str, done: int, steps: int, value: float) -> None:
        seen.append(stage)

    out = finished.target.parent
    before = product_files(out)
    train_demo_pair(out, quick=True, threads=1, seed=3, report=report, **STEPS)
    assert set(seen) == {"figures"}
    assert product_files(out) == before


def test_another_seed_gives_another_model(finished: PairResult, tmp_path: Path) -> None:
    train_demo_pair(tmp_path, quick=True, threads=1, seed=4, report=silent, stop_after=2, **STEPS)
    one, other = ((out / "training" / "target.safetensors").read_bytes() for out in (finished.target.parent, tmp_path))
    assert one != other


def test_a_run_is_not_continued_under_another_plan(finished: PairResult) -> None:
    with pytest.raises(FailedPrecondition, match="choose another directory"):
        train_demo_pair(finished.target.parent, quick=True, target_steps=17, draft_steps=16, report=silent)
    with pytest.raises(FailedPrecondition, match="already holds a run"):
        train_demo_pair(finished.target.parent, quick=True, resume=False, report=silent)


@pytest.mark.parametrize("wrong", [{"target_steps": 9}, {"draft_steps": 10**9}, {"threads": 0}])
def test_a_plan_out_of_bounds_is_refused_before_anything_is_written(wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=str(next(iter(wrong.values())))):
        train_demo_pair(tmp_path / "out", quick=True, report=silent, **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_the_cards_say_what_was_measured(finished: PairResult) -> None:
    cards = {name: (finished.target.parent / name / "README.md").read_text() for name in PRODUCT}
    figures = finished.figures
    assert f"{figures.target_loss:.3f}" in cards["demo-target"]
    assert f"{figures.draft_loss:.3f}" in cards["demo-draft"]
    assert [row.temperature for row in figures.pair] == [1.0, 0.7, 0.0]
    for card in cards.values():
        for row in figures.pair:
            for rate in (*row.by_children.values(), *row.by_depth):
                assert f"{rate:.3f}" in card
    config = json.loads((finished.draft / "config.json").read_text())
    assert config["nacre_race_temperature"] == round(figures.pair[0].race_temperature, 4)


def test_more_children_are_accepted_at_least_as_often(finished: PairResult) -> None:
    for row in finished.figures.pair:
        rates = [row.by_children[count] for count in sorted(row.by_children)]
        assert rates == sorted(rates)
        assert 0 < rates[0] <= rates[-1] <= 1


def test_transformers_computes_what_was_trained(finished: PairResult) -> None:
    tokens = torch.arange(96)[None] * 5 % 512
    for folder in (finished.target, finished.draft):
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
        ours = load_hugging_face(folder).double()
        with torch.no_grad():
            expected, got = theirs(tokens).logits, ours.logits(ours(tokens))
        assert float((expected - got).abs().max()) < 1e-4
        assert torch.equal(expected.argmax(-1), got.argmax(-1))
        assert AutoTokenizer.from_pretrained(folder).vocab_size == 512


def test_no_product_file_is_a_pickle(finished: PairResult) -> None:
    suffixes = {path.suffix for name in PRODUCT for path in (finished.target.parent / name).iterdir()}
    assert suffixes == {".json", ".md", ".safetensors"}


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    matrices = torch.randn(3, 24, 40, generator=torch.Generator().manual_seed(1))
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.3


def test_the_learning_rate_warms_up_stays_and_falls_to_almost_nothing() -> None:
    plan = Plan("x", 100, warmup=0.1, decay=0.4)
    scales = [plan.scale(step) for step in range(100)]
    assert scales[0] == pytest.approx(0.1)
    assert scales[10:60] == [1.0] * 50
    assert scales[60:] == sorted(scales[60:], reverse=True)
    assert 0 < scales[-1] < 0.03


def test_gradients_of_shards_add_up_to_the_gradient_of_the_mean() -> None:
    model = LeanLlama(Shape(hidden=16, layers=1, heads=1, intermediate=16, vocab=32, max_positions=16), seed=1)
    rows = torch.arange(4)

    def loss_of(part: torch.Tensor) -> torch.Tensor:
        return (model.embedding[part] ** 2).mean() + sum(weight.sum() for weight in model.parameters())

    with Workers(2) as workers:
        value = workers.backward(model, [lambda: loss_of(rows[:2]), lambda: loss_of(rows[2:])])
    sharded = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    whole = loss_of(rows)
    assert value == pytest.approx(float(whole.detach()))
    expected: Sequence[torch.Tensor] = torch.autograd.grad(whole, list(model.parameters()))
    for one, other in zip(sharded, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_training_learns_a_rule_that_is_there_to_learn(tmp_path: Path) -> None:
    model = LeanLlama(Shape(hidden=32, layers=1, heads=1, intermediate=32, vocab=16, max_positions=32), seed=2)
    ramp = (torch.arange(17)[None] + torch.arange(8)[:, None]) % 16
    losses: list[float] = []

    def loss() -> torch.Tensor:
        logits = model.logits(model(ramp[:, :-1]))
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ramp[:, 1:].flatten())

    def report(stage: str, done: int, steps: int, value: float) -> None:
        losses.append(value)

    with Workers(1) as workers:
        optimizer = MuonAdam(list(model.named_parameters()))
        checkpoint = tmp_path / "run.safetensors"
        run_steps(Plan("ramp", 60), model, optimizer, lambda step: [loss], checkpoint, workers, report=report)
    assert losses[0] > 2.5
    assert float(loss().detach()) < 0.2
