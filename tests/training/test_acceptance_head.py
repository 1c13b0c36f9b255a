"""The recipe of the acceptance heads: repeatable, loadable by the policies, and better than chance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nacre.errors import FailedPrecondition, InvalidArgument
from nacre.models import bundled
from nacre.pacing.acceptance_head import FILE_NAME, INPUTS, AcceptanceHead, load_head
from nacre.training.acceptance_head import HeadResult, _fit, _measure, train_acceptance_head


def train(out: Path, **options: int) -> HeadResult:
    return train_acceptance_head(
        bundled("demo-target"), bundled("demo-draft"), out=out, **{"prompts": 8, "continuation": 24, **options}
    )


def test_the_recipe_writes_heads_that_load_and_repeats_itself(tmp_path: Path) -> None:
    first = train(tmp_path / "a", threads=2)
    second = train(tmp_path / "b", threads=1)
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.path == tmp_path / "a" / FILE_NAME
    assert (first.places, first.held_out) == (8 * 24, 2 * 24)
    assert set(first.heads) == set(json.loads(first.path.read_text())) == set(INPUTS)
    for name in INPUTS:
        load_head(name, str(tmp_path / "a"))


@pytest.mark.parametrize("blocks", [None, 3])
def test_a_head_learns_what_there_is_to_learn(blocks: int | None) -> None:
    random = np.random.default_rng(0)
    name = "disco" if blocks is None else "specdec++"
    inputs = random.normal(size=(2000, INPUTS[name][1])) * 3 + 1
    accepted = random.random(2000) < 1 / (1 + np.exp(-(inputs[:, 0] - inputs[:, 1])))
    head = AcceptanceHead(name, _fit(inputs, accepted, blocks=blocks, reject_weight=1.0, seed=0))
    assert _measure(head, inputs, accepted).auc > 0.9


def test_weighing_rejects_makes_a_head_pessimistic() -> None:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(500, INPUTS["disco"][1]))
    accepted = random.random(500) < 0.8
    plain, wary = (
        AcceptanceHead("disco", _fit(inputs, accepted, blocks=None, reject_weight=weight, seed=0)).of_vector(inputs[0])
        for weight in (1.0, 6.0)
    )
    assert wary < 0.6 < plain


@pytest.mark.parametrize(("name", "value"), [("prompts", 1), ("continuation", 2), ("threads", 0)])
def test_impossible_dials_are_refused(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(InvalidArgument, match=name):
        train(tmp_path, **{name: value})


def test_a_directory_that_holds_no_such_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=f"{tmp_path}.* is no model"):
        train_acceptance_head(tmp_path, bundled("demo-draft"))
