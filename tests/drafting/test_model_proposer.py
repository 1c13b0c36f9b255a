"""The model proposer follows the tree: what it offers is what its model says, whatever came before."""

from __future__ import annotations

import numpy as np
import pytest

from nacre.drafting import DraftContext, Expansion, Guess
from nacre.drafting.model import ModelProposer
from nacre.engine import Engine, RowBlock, load_model
from nacre.errors import InvalidArgument
from nacre.sampling import SamplingParams
from nacre.session import Commit, DrafterLimits, DrafterSession
from tests.tiny_models import TinyPair

PROMPT = tuple(range(5, 25))


@pytest.fixture(scope="module", params=[False, True], ids=["floats", "8 bits"])
def engine(tiny_pair: TinyPair, request: pytest.FixtureRequest) -> Engine:
    loaded = load_model(tiny_pair.draft, dtype="float32", device="cpu", threads=1)
    return Engine(loaded, kv_bytes=1 << 22, exact=False, fused=request.param)


def context(key: int = 1) -> DraftContext:
    return DraftContext(PROMPT, len(PROMPT), SamplingParams(), key)


def proposer(engine: Engine, **options: float) -> ModelProposer:
    return ModelProposer(engine, RowBlock, batch=3, **options)  # type: ignore[arg-type]


def fresh_guesses(engine: Engine, tokens: tuple[int, ...], path: tuple[int, ...]) -> list[Guess]:
    """What a proposer that has seen nothing before offers below `path`."""
    drafting = proposer(engine)
    drafting.open(0, DraftContext(tokens, len(PROMPT), SamplingParams(), 1))
    ids = tuple(range(1, len(path) + 1))
    (guesses,) = drafting.propose([Expansion(0, ids[-1] if ids else 0, path, ids)])
    drafting.close(0)
    return guesses


def same(engine: Engine, mine: list[Guess], theirs: list[Guess]) -> bool:
    """Equal tokens, and survivals up to the last bits; in 8 bits up to a step or two of those.

    Which way a number falls that lies between two steps depends on the last bit of sums, and that on the processor and
    on how many rows are computed at once. (A draft's bits decide nothing.)
    """
    tolerance = 3e-2 if "fused8" in engine.info.numerics else 1e-3
    return [g.token for g in mine] == [g.token for g in theirs] and np.allclose(
        [g.survival for g in mine], [g.survival for g in theirs], rtol=tolerance
    )


def expansion(session: DrafterSession, node_id: int) -> Expansion:
    node = session.node(node_id)
    assert node is not None
    tokens, ids = [], []
    while node.parent is not None:
        tokens.append(node.token)
        ids.append(node.id)
        node = node.parent
    return Expansion(0, node_id, tuple(reversed(tokens)), tuple(reversed(ids)))


@pytest.mark.parametrize("seed", range(6))
def test_after_any_history_it_guesses_as_if_fresh(engine: Engine, seed: int) -> None:
    """Random growth, commits along and off the tree, re-asked nodes: each answer equals that of a new proposer."""
    random = np.random.default_rng(seed)
    drafting = proposer(engine)
    drafting.open(0, context())
    session = DrafterSession(PROMPT, end_position=200, limits=DrafterLimits(least_survival=1e-6), window_nodes=256)
    for _ in range(12):
        frontier = session.frontier(3)
        wanted = [expansion(session, node.id) for node in frontier]
        for item, guesses in zip(wanted, drafting.propose(wanted), strict=True):
            assert guesses
            assert same(engine, guesses, fresh_guesses(engine, tuple(session.tokens), item.path_tokens))
            session.extend(item.node_id, guesses[: 1 + random.integers(3)])
        if random.random() < 0.6:
            nodes = list(session.tree.nodes())
            on_tree = nodes[random.integers(len(nodes))].path() if nodes and random.random() < 0.8 else []
            tokens = (*on_tree, *([int(random.integers(60))] if random.random() < 0.6 or not on_tree else []))
            rollback = session.committed(Commit(len(session.tokens), tuple(tokens)))
            drafting.committed(0, rollback.tokens, rollback.trunk)
    drafting.close(0)
    assert engine.use().sequences == 0


def test_a_node_on_the_way_to_one_that_was_asked_before_it(engine: Engine) -> None:
    """Fusion asks far down where its cheap sources are sure, and at what lies between only later."""
    drafting = proposer(engine)
    drafting.open(0, context())
    whole = tuple(range(30, 36))
    ids = tuple(range(1, len(whole) + 1))
    drafting.propose([Expansion(0, ids[-1], whole, ids)])
    for depth in range(len(whole)):
        (guesses,) = drafting.propose([Expansion(0, ids[depth - 1] if depth else 0, whole[:depth], ids[:depth])])
        assert same(engine, guesses, fresh_guesses(engine, PROMPT, whole[:depth]))
    drafting.close(0)


def test_two_sessions_in_one_step_do_not_mix(engine: Engine) -> None:
    drafting = proposer(engine)
    drafting.open(0, context())
    drafting.open(1, DraftContext(PROMPT[:7], 7, SamplingParams(temperature=0.0), 9))
    first, second = drafting.propose([Expansion(0, 0, (), ()), Expansion(1, 0, (), ())])
    (alone,) = drafting.propose([Expansion(1, 0, (), ())])
    assert same(engine, first, fresh_guesses(engine, PROMPT, ()))
    assert same(engine, second, alone)
    for session in (0, 1):
        drafting.close(session)


def test_guesses_are_sorted_and_their_survivals_are_probabilities(engine: Engine) -> None:
    guesses = fresh_guesses(engine, PROMPT, ())
    survivals = [guess.survival for guess in guesses]
    assert survivals == sorted(survivals, reverse=True)
    assert 0 < sum(survivals) <= 1 + 1e-6


def test_a_text_beyond_the_draft_models_context_harms_nobody(engine: Engine) -> None:
    drafting = proposer(engine)
    drafting.open(0, context())
    whole_context = tuple(5 for _ in range(engine.info.max_positions))
    drafting.open(1, DraftContext(whole_context, len(whole_context), SamplingParams(), 1))
    with pytest.raises(InvalidArgument):
        drafting.propose([Expansion(0, 0, (), ()), Expansion(1, 1, (5,), (1,))])
    (guesses,) = drafting.propose([Expansion(0, 0, (), ())])
    assert same(engine, guesses, fresh_guesses(engine, PROMPT, ()))
    for session in (0, 1):
        drafting.close(session)


@pytest.mark.parametrize(("option", "value"), [("children", 0), ("children", 17), ("race_temperature", 0.0)])
def test_impossible_dials_are_refused(engine: Engine, option: str, value: float) -> None:
    with pytest.raises(InvalidArgument, match=option):
        proposer(engine, **{option: value})
