"""The lock-step rivals against the real verifier machine: exact texts, no dead end, no more passes than they need."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from nacre.bench.lockstep_round import Drafting, Rounds, Stream, Times, Windows
from nacre.drafting import DraftContext, Expansion, Guess, ProposerTraits
from nacre.pacing import policy_named
from nacre.sampling import Choice
from nacre.session import Draft, VerifierSession, open_session
from verifier_service.lockstep import in_step

PROMPT = (3, 1, 4, 1, 5)
VOCABULARY = 50
LENGTH = 60


def truth(position: int) -> int:
    return (position * 7919 + 11) % VOCABULARY


class Oracle:
    """Guesses right with the given chance; checks that its caller keeps the proposer's rules."""

    traits = ProposerTraits(name="oracle", shape="tree", batch=1, reach=1)

    def __init__(self, skill: float, children: int = 1, seed: int = 1) -> None:
        self._skill, self._children = skill, children
        self._random = random.Random(seed)
        self.tokens = list(PROMPT)
        self.steps = 0

    def open(self, session: int, context: DraftContext) -> None: ...
    def close(self, session: int) -> None: ...

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        assert len(trunk) <= len(tokens)
        self.tokens.extend(tokens)

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        self.steps += 1
        found = []
        for item in wanted:
            assert len(item.path_tokens) == len(item.path_ids)
            assert not item.path_ids or item.node_id == item.path_ids[-1]
            right = truth(len(self.tokens) + len(item.path_tokens))
            best = right if self._random.random() < self._skill else (right + 1) % VOCABULARY
            others = [(best + 2 + i) % VOCABULARY for i in range(self._children - 1)]
            found.append([Guess(best, 0.8), *(Guess(token, 0.1) for token in others)])
        return found


class Hosted:
    """As the host sees a session, as far as the rule of lock-step looks."""

    def __init__(self) -> None:
        self.totals = self
        self.passes = 0
        self.drafts = 0


def run(rounds: Drafting, stream: Stream, machine: VerifierSession, *, ahead: bool) -> tuple[int, list[Draft]]:
    """Plays both ends with a message under way each way; returns the passes taken and the drafts sent."""
    hosted = Hosted()
    ordinal = machine.join()
    sent: list[Draft] = []
    up: list[Draft] = []
    if ahead:
        up.append(rounds.draft())
    for _ in range(20 * LENGTH):
        if machine.finished is not None:
            return hosted.passes, sent
        plan = machine.plan(65) if in_step(hosted) else None
        assert plan is not None or up, "both ends wait for each other"
        while up:  # what is under way arrives while the pass runs
            sent.append(up.pop(0))
            hosted.drafts += 1
            machine.draft(ordinal, sent[-1])
        if plan is not None:
            commit = machine.resolve(plan, [Choice(truth(position + 1)) for position in plan.positions]).commit
            hosted.passes += 1
            rounds.verdict(commit)
            if len(stream.tokens) < stream.end_position:
                up.append(rounds.draft())
    raise AssertionError("it never ends")


def both(skill: float, children: int = 1, seed: int = 1) -> tuple[Stream, VerifierSession, Oracle]:
    oracle = Oracle(skill, children, seed)
    machine = open_session(PROMPT, max_tokens=LENGTH, max_positions=500, vocab_size=VOCABULARY)
    return Stream(oracle, 1, list(PROMPT), machine.end_position, most_nodes=64), machine, oracle


@pytest.mark.parametrize("gamma", [1, 2, 5, 16, 70])
@pytest.mark.parametrize("skill", [0.0, 0.7, 1.0])
def test_sync_writes_the_reference_text(gamma: int, skill: float) -> None:
    stream, machine, oracle = both(skill)
    rounds = Rounds(stream, policy_named("fixed", gamma=gamma), Times())
    passes, _ = run(rounds, stream, machine, ahead=False)
    assert machine.tokens == stream.tokens == oracle.tokens
    assert machine.tokens[len(PROMPT) :] == [truth(p) for p in range(len(PROMPT), len(PROMPT) + LENGTH)]
    if skill == 1.0:  # the prompt's pass, then gamma guesses and one more token each
        assert passes == 1 + -(-(LENGTH - 1) // (min(gamma, LENGTH) + 1))
    if skill == 0.0:
        assert passes == LENGTH


@pytest.mark.parametrize("gamma", [1, 2, 5, 16, 70])
@pytest.mark.parametrize("skill", [0.0, 0.7, 1.0])
def test_pearl_writes_the_reference_text(gamma: int, skill: float) -> None:
    stream, machine, oracle = both(skill, seed=gamma)
    passes, sent = run(Windows(stream, gamma), stream, machine, ahead=True)
    assert machine.tokens == stream.tokens == oracle.tokens
    assert machine.tokens[len(PROMPT) :] == [truth(p) for p in range(len(PROMPT), len(PROMPT) + LENGTH)]
    if skill == 1.0:
        # A window is verified while the next is drafted, and its own last token meets the next window's first.
        assert passes <= 2 + -(-LENGTH // min(gamma, LENGTH))
        # A living window is gone on from; one of a single guess is text by the time the next one is drafted.
        assert gamma == 1 or gamma >= LENGTH - 1 or all(draft.anchor is None for draft in sent[1:3])
    if skill == 0.0:
        assert passes == LENGTH


@pytest.mark.parametrize("name", ["leviathan", "hf-heuristic", "eesd", "opt-tree", "eagle2", "sequoia", "ours"])
def test_every_kind_of_policy_runs_in_the_loop(name: str) -> None:
    policy = policy_named(name)
    stream, machine, oracle = both(0.7, policy.traits.children)
    run(Rounds(stream, policy, Times()), stream, machine, ahead=False)
    assert machine.tokens == stream.tokens == oracle.tokens


def test_a_message_that_guesses_nothing_takes_no_row() -> None:
    stream, machine, _ = both(1.0)
    ordinal = machine.join()
    machine.draft(ordinal, stream.nothing())
    assert len(machine.tree) == 0
    machine.draft(ordinal, stream.draft([7, 8], [0, 2]))
    assert [node.token for node in machine.tree.nodes()] == [7, 8]


def test_pass_k_waits_for_k_messages() -> None:
    hosted = Hosted()
    assert in_step(hosted)  # the prompt is read at once
    hosted.passes = 1
    assert not in_step(hosted)
    hosted.drafts = 1
    assert in_step(hosted)
