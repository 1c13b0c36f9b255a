"""What holds for every policy in the table, whatever the drafter offers and the target says."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nacre.errors import InvalidArgument, NacreError
from nacre.pacing import MOST_STEPS, POLICIES, TIP, Costs, Policy, RoundTree, policy_class, policy_named
from tests.pacing.guessing import FakeFeatures, FakeGuess, grown, one_round

NAMES = sorted(POLICIES)

round_costs = st.builds(
    lambda draft, base, row, rtt, rate, nodes, depth: Costs(
        draft, lambda rows: base + row * rows, rtt, rate, nodes, depth
    ),
    draft=st.sampled_from([0.0, 1e-4, 0.01, 1.0]),
    base=st.sampled_from([1e-4, 0.04, 1.0]),
    row=st.sampled_from([0.0, 3e-4, 0.1]),
    rtt=st.sampled_from([0.0, 0.1, 2.0]),
    rate=st.sampled_from([0.0, 1.0, 30.0, 1e5]),
    nodes=st.sampled_from([0, 1, 2, 7, 40]),
    depth=st.sampled_from([0, 1, 3, 20]),
)


class RandomDrafter:
    """Offers between nothing and `most` guesses below a node, with survivals and features of every kind."""

    def __init__(self, seed: int, most: int, sharp: float) -> None:
        self._random = np.random.default_rng(seed)
        self._most = most
        self._sharp = sharp

    def __call__(self, tree: RoundTree, node: int) -> Sequence[FakeGuess]:
        count = int(self._random.integers(0 if self._random.random() < 0.2 else 1, self._most + 1))
        if count == 0:
            return []
        survivals = sorted(self._random.dirichlet(np.full(count, self._sharp)) * self._random.random() ** 0.2)[::-1]
        top = tuple(sorted(self._random.dirichlet(np.ones(self._random.integers(1, 11))), reverse=True))
        entropy = float(self._random.exponential())
        return [
            FakeGuess(
                token,
                float(survival),
                features=FakeFeatures(float(self._random.random()), float(self._random.normal()), entropy, top),
            )
            for token, survival in enumerate(survivals)
        ]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.lists(round_costs, min_size=1, max_size=4), st.integers(1, 12), st.floats(0.05, 3.0)
)
def test_it_comes_to_an_end_and_sends_a_tree_within_bounds(
    name: str, seed: int, rounds: list[Costs], most: int, sharp: float
) -> None:
    policy = policy_named(name)
    drafter = RandomDrafter(seed, most, sharp)
    luck = np.random.default_rng(seed + 1)
    for costs in rounds:
        outcome = one_round(policy, drafter, costs, lambda node: bool(luck.random() < node.survival))
        tree, sent = outcome.tree, list(outcome.sent)
        assert tree.deepest <= costs.most_depth
        assert len(sent) == len(set(sent)) <= costs.most_nodes
        for place, index in enumerate(sent):
            parent = tree.nodes[index].parent
            assert parent == TIP or parent in sent[:place]
        if policy.traits.shape == "chain":
            assert sent == [node.index for node in tree.principal()][: len(sent)]


@pytest.mark.parametrize("name", NAMES)
def test_an_endless_drafter_is_given_no_more_than_the_bound_of_steps(name: str) -> None:
    certain = FakeFeatures(q=1.0, gap=50.0, entropy=0.0, top=(1.0,))
    free = Costs(0.0, lambda rows: 0.01, 10.0, 0.001, most_nodes=4096, most_depth=10**6)
    offer = [FakeGuess(0, 1.0, features=certain), FakeGuess(1, 0.999, features=certain)]
    tree, steps = grown(policy_named(name), lambda tree, node: offer, free, most_steps=MOST_STEPS + 1)
    assert 1 <= steps <= MOST_STEPS
    assert len(tree) <= 4096


@pytest.mark.parametrize("name", NAMES)
def test_a_drafter_with_nothing_to_say_is_asked_once(name: str) -> None:
    policy = policy_named(name)
    tree, steps = grown(policy, lambda tree, node: [], Costs(0.001, lambda rows: 0.04))
    assert steps <= 1
    assert policy.chosen(tree) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_says_what_it_is(name: str) -> None:
    policy: Policy = policy_named(name)
    assert policy.traits.name == name
    assert policy.traits.shape in ("chain", "tree")
    assert (policy.traits.children == 1) == (policy.traits.shape == "chain")


@pytest.mark.parametrize("name", NAMES)
def test_two_of_the_same_name_share_nothing_and_repeat_each_other(name: str) -> None:
    def history(policy: Policy) -> list[tuple[int, ...]]:
        drafter, luck = RandomDrafter(5, 4, 0.3), np.random.default_rng(6)
        sent = []
        for _ in range(6):
            costs = Costs(0.005, lambda rows: 0.04 + 0.001 * rows, 0.05)
            sent.append(tuple(one_round(policy, drafter, costs, lambda n: bool(luck.random() < n.survival)).sent))
        return sent

    assert history(policy_named(name)) == history(policy_named(name))


def test_an_unknown_policy_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        InvalidArgument, match=f"'fastest' is unknown; choose one of {', '.join(NAMES)}".replace("+", ".")
    ):
        policy_named("fastest")


def test_an_unknown_parameter_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match="'gama'; it has gamma") as caught:
        policy_named("fixed", gama=4)
    assert caught.value.param == "gama"


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        ("fixed", "gamma", -1),
        ("fixed", "gamma", 2.5),
        ("fixed", "gamma", True),
        ("leviathan", "prior", 1.5),
        ("leviathan", "least", 33),
        ("leviathan", "memory", 0),
        ("pearl", "most", 0),
        ("hf-confidence", "threshold", -0.1),
        ("hf-confidence", "history", 3),
        ("hf-heuristic", "start", 0),
        ("specdec++", "threshold", 2),
        ("specdec++", "least", 21),
        ("disco", "threshold", math.nan),
        ("eesd", "alpha", 0),
        ("eesd", "seed", -1),
        ("svip", "scale", 0),
        ("banditspec", "arms", ()),
        ("banditspec", "arms", (2, 2)),
        ("banditspec", "forced", 0),
        ("del", "drafters", {"a": -1.0}),
        ("del", "least_q", 1.1),
        ("sequoia", "nodes", 257),
        ("sequoia", "children", 9),
        ("sequoia", "renew", 0),
        ("opt-tree", "threshold", -1),
        ("opt-tree", "children", 17),
        ("eagle2", "beams", 0),
        ("ours", "batch", 0),
        ("ours", "strength", 0),
        ("ours", "probe_every", 0),
    ],
)
def test_impossible_parameters_are_refused_by_name(name: str, parameter: str, value: object) -> None:
    with pytest.raises(InvalidArgument, match=parameter) as caught:
        policy_named(name, **{parameter: value})
    assert caught.value.param == parameter


@pytest.mark.parametrize("name", ["specdec++", "disco"])
def test_a_model_without_a_head_is_answered_with_the_recipe(name: str, tmp_path: object) -> None:
    with pytest.raises(NacreError, match="nacre train acceptance-head"):
        policy_named(name, head=str(tmp_path))


def test_every_name_has_a_class_with_a_docstring() -> None:
    for name in NAMES:
        assert policy_class(name).__doc__


def test_the_page_lists_every_policy_with_its_parameters() -> None:
    page = (Path(__file__).parents[2] / "docs" / "pacing.md").read_text(encoding="utf-8")
    listed = {}
    for row in re.findall(r"^\| `(.*?)` \|.*\| (.*?) \|$", page, re.MULTILINE):
        name, parameters = row
        listed[name] = re.findall(r"`(\w+)` \((.*?)\)(?:,|$)", parameters.replace("(1, 2, 3, 4)", "(1 2 3 4)"))
    told = {"None": "one", "True": "true", "(1, 2, 3, 4)": "1 2 3 4"}
    expected = {
        name: [
            (key, told.get(str(p.default), format(p.default, "g") if isinstance(p.default, float) else str(p.default)))
            for key, p in signature(policy_class(name)).parameters.items()
        ]
        for name in NAMES
    }
    assert listed == expected
