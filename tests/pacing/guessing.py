"""Rounds without a model: guesses by rule or by chance, and a target that says which came true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nacre.pacing import TIP, Costs, Outcome, Policy, RoundNode, RoundTree


@dataclass(frozen=True)
class FakeFeatures:
    q: float = 0.9
    gap: float = 1.0
    entropy: float = 0.3
    top: tuple[float, ...] = (0.9, 0.05, 0.05)


@dataclass(frozen=True)
class FakeGuess:
    token: int
    survival: float
    parent: int = TIP
    features: FakeFeatures | None = None


#: (tree, node) -> what the drafter offers below that node.
Offer = Callable[[RoundTree, int], Sequence[FakeGuess]]


def costs(*, draft: float = 0.008, row: float = 0.0003, base: float = 0.038, rtt: float = 0.0, **more: float) -> Costs:
    """A round whose pass takes `base` + `row` seconds per further row."""
    return Costs(draft, lambda rows: base + row * (rows - 1), rtt, **more)  # type: ignore[arg-type]


def rows_of(*survivals: float) -> Offer:
    """Below every node the same guesses, token = rank."""
    offered = [FakeGuess(rank, survival) for rank, survival in enumerate(survivals)]
    return lambda tree, node: offered


def chain_of(survivals: Sequence[float], features: Sequence[FakeFeatures] = ()) -> Offer:
    """One guess per node: at depth i its survival and features are number i of the lists, then nothing."""

    def offer(tree: RoundTree, node: int) -> list[FakeGuess]:
        depth = tree.depth(node)
        if depth >= len(survivals):
            return []
        return [FakeGuess(depth, survivals[depth], features=features[depth] if features else None)]

    return offer


def grown(policy: Policy, offer: Offer, round_costs: Costs, *, most_steps: int = 200) -> tuple[RoundTree, int]:
    """A round's tree and the number of draft steps it took; fails if the policy does not come to an end."""
    policy.begin(round_costs)
    tree = RoundTree()
    for step in range(most_steps):
        nodes = policy.next(tree)
        if not nodes:
            return tree, step
        assert len(set(nodes)) == len(nodes)
        for node in nodes:
            tree.extend(node, offer(tree, node))
    raise AssertionError(f"still drafting after {most_steps} steps")


def one_round(policy: Policy, offer: Offer, round_costs: Costs, comes_true: Callable[[RoundNode], bool]) -> Outcome:
    """A whole round: `comes_true` judges nodes whose parent came true, in order of rank."""
    tree, steps = grown(policy, offer, round_costs)
    sent = policy.chosen(tree)
    tokens: list[int] = []
    here = TIP
    while True:
        child = next((c for c in tree.children(here) if comes_true(tree.nodes[c])), None)
        tokens.append(-1 if child is None else tree.nodes[child].token)
        if child is None or child not in sent:
            break
        here = child
    outcome = Outcome(tree, sent, tokens, round_costs.round_s(steps, len(sent)))
    policy.learned(outcome)
    return outcome
