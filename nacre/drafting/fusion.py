"""Several proposers feed one tree: a guess is worth what the guesses of those who make it have been worth.

Source: RASD (branches of retrieval and model merged by longest prefix, the model's veto), SuffixDecoding's hybrid (a
model only where the cheap source runs out) and staged speculative decoding (a cheap source drafts for the draft
model), under one rule with counts in place of their constants. Guarantee: exact (a guess never decides).

State: per session a tree of claims (`claims`). A claim is a source's guess below a node with the survival it gave it;
equal paths are one node, whoever guessed them. Update: a commit walks the tree, and every claim below text has an
outcome, which is counted by source and company (`claim_worth`), apart for each kind of text.

Proposal: where the model alone has spoken, its answer stands. Elsewhere: best-first growth over the tree. A token that
the model names survives as the model's claim does in that company, any other with the mean chance of those who claim
it, vetoed or not; rivals share what the surest leave. Where the cheap sources leave a gap that the model has been able
to fill, it is asked, there and in the same step at the likeliest other gaps. A node with an open gap is not grown
further: it comes back as something to extend, and then it is the model's turn.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import cast

from nacre.drafting.claim_worth import ClaimWorth
from nacre.drafting.claims import ClaimNode, ClaimTree
from nacre.drafting.growth import Children, checked_rows, grow
from nacre.drafting.proposer import (
    DraftContext,
    Encoder,
    Expansion,
    Guess,
    HiddenStates,
    Observation,
    Proposer,
    ProposerTraits,
    TeachableByTenant,
)
from nacre.drafting.rows import Row
from nacre.errors import InvalidArgument

#: The model is asked where it should add this much to the chance that some guess is right.
LEAST_GAIN = 0.05
#: Other gaps of a step must be reached with this chance; cheap sources beside a model are asked down to that one.
_LEAST_STAGED, _LEAST_ASKED = 0.1, 0.5
MOST_SOURCES = 8
#: Kinds of text told apart, of each tenant by itself; the longest unseen goes first.
MOST_DOMAINS = 64
_DEPTH = 64


@dataclass(slots=True, eq=False)
class _Gap:
    """A node that the model has not been asked about, and the way to it."""

    session: int
    node: ClaimNode
    tokens: tuple[int, ...]
    ids: tuple[int, ...]
    path: float

    def expansion(self) -> Expansion:
        return Expansion(self.session, self.node.id, self.tokens, self.ids, self.path)


@dataclass(slots=True, eq=False)
class _Fused:
    """A session here: its claims, what claims have been worth in texts of its kind, and the cheap sources that are
    asked until the next commit. Beside a model that may be none: then no account is kept either.
    """

    worth: ClaimWorth
    asked: frozenset[int]
    tree: ClaimTree = field(default_factory=ClaimTree)


class FusionProposer:
    """One tree out of `sources`, of which at most one may be costly: a model. Trees have at most `rows` guesses."""

    def __init__(self, sources: Sequence[Proposer], *, rows: int = 32, least_gain: float = LEAST_GAIN) -> None:
        if not 1 <= len(sources) <= MOST_SOURCES:
            raise InvalidArgument(f"{len(sources)} sources are to be fused; it must be 1 to {MOST_SOURCES}")
        costly = [number for number, source in enumerate(sources) if source.traits.costly]
        if len(costly) > 1:
            raise InvalidArgument("two models cannot be fused in one drafter; run a drafter for each")
        self._sources = tuple(sources)
        self._cheap = tuple(number for number in range(len(sources)) if number not in costly)
        self._model = costly[0] if costly else None
        self._rows = checked_rows(rows)
        self._least_gain = least_gain
        self._worths: OrderedDict[tuple[int, str], ClaimWorth] = OrderedDict()
        self._sessions: dict[int, _Fused] = {}

    @property
    def traits(self) -> ProposerTraits:
        traits = [source.traits for source in self._sources]
        return ProposerTraits(
            name="+".join(one.name for one in traits),
            shape="tree",
            batch=max(one.batch for one in traits),
            reach=max(one.reach for one in traits),
            learns=any(one.learns for one in traits),
            costly=self._model is not None,
            encodes=any(one.encodes for one in traits),
            teachable=any(one.teachable for one in traits),
        )

    # -- what is known -------------------------------------------------------------------------------------------

    def open(self, session: int, context: DraftContext) -> None:
        opened: list[Proposer] = []
        try:
            for source in self._sources:
                source.open(session, context)
                opened.append(source)
        except Exception:
            for source in opened:
                source.close(session)
            raise
        worth = self._worth(context.tenant, context.domain)
        self._sessions[session] = _Fused(worth, worth.due())

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        fused = self._sessions[session]
        node: ClaimNode | None = fused.tree.root
        own_trunk: list[int] = []
        for token in tokens:
            if node is None:
                break
            fused.worth.learn(node, token)
            node = node.children.get(token)
            if node is not None:
                own_trunk.append(node.id)
        fused.tree.move(node)
        fused.asked = fused.worth.due()
        for number, source in enumerate(self._sources):
            source.committed(session, tokens, own_trunk if number == self._model else trunk)

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        for source in self._sources:
            if source.traits.learns:
                source.observed(session, observations)

    def encoded(self, session: int, states: HiddenStates) -> None:
        for source in self._sources:
            if source.traits.encodes:
                cast(Encoder, source).encoded(session, states)

    def teach(self, tenant: int, rows: Sequence[Row], outputs: Sequence[tuple[int, ...]]) -> None:
        """Only for sources that keep tenants apart: one tenant's text must not be guessed for another."""
        for source in self._sources:
            if source.traits.teachable and isinstance(source, TeachableByTenant):
                source.teach(tenant, rows, outputs)

    def close(self, session: int) -> None:
        self._sessions.pop(session, None)
        for source in self._sources:
            source.close(session)

    def _worth(self, tenant: int, domain: str) -> ClaimWorth:
        """Of that kind of text of a tenant, whose tables are its own. A new one begins with what is known of its
        kind before that.
        """
        worth = self._worths.get((tenant, domain))
        if worth is None:
            latest = next((known for (whose, _), known in reversed(self._worths.items()) if whose == tenant), None)
            worth = latest.copy() if latest is not None else ClaimWorth(len(self._sources), self._model)
            self._worths[tenant, domain] = worth
            if len(self._worths) > MOST_DOMAINS:
                self._worths.popitem(last=False)
        self._worths.move_to_end((tenant, domain))
        return worth

    # -- guessing ------------------------------------------------------------------------------------------------

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        fused = [self._sessions[item.session] for item in wanted]
        paths = [one.tree.path(item.path_tokens) for one, item in zip(fused, wanted, strict=True)]
        nodes = [path[-1] for path in paths]
        if self._model is not None and self._speaks_alone(self._model, fused, nodes):
            named = [_named(item, path) for item, path in zip(wanted, paths, strict=True)]
            return [guesses[: self._rows] for guesses in self._sources[self._model].propose(named)]
        for number in self._cheap:
            places = [
                place
                for place, item in enumerate(wanted)
                if number in fused[place].asked and self._asks(number, item, nodes[place])
            ]
            if not places:
                continue
            answers = self._sources[number].propose([wanted[place] for place in places])
            for place, guesses in zip(places, answers, strict=True):
                fused[place].tree.hang(nodes[place], number, guesses)
        alone = self._ask_model(self._model, wanted, paths) if self._model is not None else {}
        return [
            alone[place] if place in alone else self._grown(one.worth, node)
            for place, (one, node) in enumerate(zip(fused, nodes, strict=True))
        ]

    def _speaks_alone(self, model: int, fused: Sequence[_Fused], nodes: Sequence[ClaimNode]) -> bool:
        """Whether nobody else has anything to say, here or until the next commits: then no account is kept either."""
        return all(
            not one.asked and not node.claims and one.worth.trusts(model)
            for one, node in zip(fused, nodes, strict=True)
        )

    def _asks(self, number: int, item: Expansion, node: ClaimNode) -> bool:
        """Whether a cheap source is to answer at a node.

        Beside a model it answers for what is likely, a forward pass serves all the rest; and below the tip not where
        it has spoken already, for its answer there would be the rest of the one it gave above.
        """
        if self._model is None or not item.path_tokens:
            return True
        return item.path_survival >= _LEAST_ASKED and number not in node.claims

    def _has_gap(self, worth: ClaimWorth, node: ClaimNode) -> bool:
        """Whether the model has yet to say something that is worth its time."""
        if self._model is None or self._model in node.claims:
            return False
        return worth.model_gain(node) >= self._least_gain

    def _grown(self, worth: ClaimWorth, top: ClaimNode | None) -> list[Guess]:
        def children(node: ClaimNode | None) -> Children:
            if node is None or (node is not top and self._has_gap(worth, node)):
                return ()
            return worth.children(node)

        return grow(top, children, _child, self._rows, depth=_DEPTH)

    # -- the model -----------------------------------------------------------------------------------------------

    def _ask_model(
        self, model: int, wanted: Sequence[Expansion], paths: Sequence[Sequence[ClaimNode]]
    ) -> dict[int, list[Guess]]:
        """Lets the model fill the gaps at wanted nodes, and with them the likeliest ones below: a step is a step.

        Returns its answers, by the place in `wanted`, where it alone has anything to say: they stand as they are.
        """
        gaps: list[_Gap] = []
        alone: dict[int, int] = {}  # place in `wanted` -> place in `gaps`
        heap: list[tuple[float, int, _Gap]] = []
        for place, (item, nodes) in enumerate(zip(wanted, paths, strict=True)):
            node = nodes[-1]
            worth = self._sessions[item.session].worth
            gap = _Gap(item.session, node, item.path_tokens, _names(nodes), item.path_survival)
            if node.claims:
                heappush(heap, (-gap.path, len(heap), gap))
            if self._has_gap(worth, node):
                if not node.claims and worth.trusts(model):
                    alone[place] = len(gaps)
                gaps.append(gap)
        if not gaps:
            return {}
        source = self._sources[model]
        room, order = source.traits.batch - len(gaps), len(heap)
        while heap and room > 0:
            _, _, above = heappop(heap)
            worth, tree = self._sessions[above.session].worth, self._sessions[above.session].tree
            for token, survival in worth.children(above.node):
                path = above.path * survival
                if path < _LEAST_STAGED or room <= 0:
                    break
                node = tree.child(above.node, token)
                below = _Gap(above.session, node, (*above.tokens, token), (*above.ids, node.id), path)
                if self._has_gap(worth, node):
                    gaps.append(below)
                    room -= 1
                order += 1
                heappush(heap, (-path, order, below))
        answers = source.propose([gap.expansion() for gap in gaps])
        for gap, guesses in zip(gaps, answers, strict=True):
            self._sessions[gap.session].tree.hang(gap.node, model, guesses)
        return {place: answers[number][: self._rows] for place, number in alone.items()}


def _named(item: Expansion, path: Sequence[ClaimNode]) -> Expansion:
    """With the names that the model knows nodes by."""
    return Expansion(item.session, path[-1].id, item.path_tokens, _names(path), item.path_survival)


def _names(path: Sequence[ClaimNode]) -> tuple[int, ...]:
    """Of the nodes below the root."""
    return tuple([node.id for node in path[1:]])


def _child(node: ClaimNode | None, token: int) -> ClaimNode | None:
    return node.children.get(token) if node is not None else None
