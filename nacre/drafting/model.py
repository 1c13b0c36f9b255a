"""A small causal language model guesses by drawing with the target's own noise.

Source: speculative decoding (Leviathan et al. 2023; Chen et al. 2023), with the shared-randomness coupling of Daliri et
al. 2024 instead of rejection sampling, and best-first tree growth as in EAGLE-2 and OPT-Tree. Guarantee: exact (a guess
stands only if the target samples it too).

Rule: below a node the children are the best tokens by perturbed score log q / T + G, where G is the noise the target
will use at that position. The gap between the scores says how sure the order is: if what the two models disagree by
behaves like Gumbel noise of scale tau, the target picks child i with probability softmax(scores / tau)_i. So a
confident stretch becomes a chain and a doubtful spot a bush, with no extra bytes and no extra rule. tau
(`race_temperature`) is fitted when a draft model is made.

The model's keys and values follow the tree: every extended node has a row in the engine, commits turn the matched
path into cached text, and rows of contradicted nodes are freed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from nacre.drafting.features import features_of_rows
from nacre.drafting.proposer import TIP, DraftContext, Expansion, Guess, Observation, ProposerTraits
from nacre.errors import InvalidArgument
from nacre.sampling import History, RowContext

#: Children are normalised over this many best scores; what lies beyond is not worth a guess.
SCORED = 16


class TreeForward(Protocol):
    """What the proposer needs of an engine; `nacre.engine.Engine` is one."""

    def open(self, tenant: str, tokens: Sequence[int]) -> int: ...
    def cached(self, sequence: int) -> int: ...
    def next_row(self, sequence: int) -> int: ...
    def step(self, blocks: Sequence[Any]) -> Any: ...
    def advance(self, sequence: int, path: Sequence[int]) -> None: ...
    def close(self, sequence: int) -> None: ...
    def draft_scores(
        self, logits: np.ndarray, rows: Sequence[RowContext], top_m: int
    ) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(slots=True)
class _Row:
    """An evaluated node: its row in the engine, its parent's node id (TIP at the tip), and what it guessed.

    A node may be asked again: what was too unlikely from an older tip may be worth a guess from the present one.
    """

    row: int
    parent: int
    guesses: list[Guess] | None = None


@dataclass(slots=True)
class _Text:
    """One session: its text, and which row of the engine stands for the tip and for each extended node."""

    sequence: int
    context: DraftContext
    tokens: list[int]
    history: History
    # Rows of committed text that was missing from the cache, and the tip's own row below them.
    filled: range = range(0)
    tip: _Row | None = None
    rows: dict[int, _Row] = field(default_factory=dict)  # by node id, parents before their children
    cached: int = 0

    def forget_rows(self) -> None:
        self.filled = range(0)
        self.tip = None
        self.rows.clear()

    def evaluated(self, expansion: Expansion) -> _Row | None:
        return self.rows.get(expansion.node_id) if expansion.path_ids else self.tip


@dataclass(slots=True)
class _Job:
    """One session's part of a step. Each row of the block that has logits is in `fresh`, with the path to its node."""

    text: _Text
    block: Any
    wanted: list[tuple[int, Expansion]]
    fresh: list[tuple[_Row, tuple[int, ...]]]


class ModelProposer:
    """Drafts trees with a small model: at most `children` rival guesses per position, down to `least_child` each.

    `block` builds what `forward.step` takes (`nacre.engine.RowBlock`): this layer lies below the engine's. With
    `features` every guess comes with its `GuessFeatures`, which costs a pass over the logits.
    """

    #: The set-up loads a draft model and hands over its engine.
    needs_model = True

    def __init__(
        self,
        forward: TreeForward,
        block: Callable[..., Any],
        *,
        children: int = 4,
        race_temperature: float = 0.5,
        batch: int = 4,
        least_child: float = 0.01,
        features: bool = False,
    ) -> None:
        if not 1 <= children <= SCORED:
            raise InvalidArgument(f"children is {children}; it must be 1 to {SCORED}")
        if not race_temperature > 0:
            raise InvalidArgument(f"race_temperature is {race_temperature}; it must be greater than 0")
        self._forward = forward
        self._block = block
        self._children = children
        self._race_temperature = race_temperature
        self._batch = batch
        self._least_child = least_child
        self._features = features
        self._texts: dict[int, _Text] = {}

    @property
    def traits(self) -> ProposerTraits:
        return ProposerTraits(name="model", shape="tree", batch=self._batch, reach=1, costly=True)

    def open(self, session: int, context: DraftContext) -> None:
        sequence = self._forward.open("draft", context.tokens)
        history = History(context.tokens[: context.prompt_length], context.tokens[context.prompt_length :])
        self._texts[session] = _Text(sequence, context, list(context.tokens), history)
        self._texts[session].cached = self._forward.cached(sequence)

    def committed(self, session: int, tokens: Sequence[int], trunk: Sequence[int]) -> None:
        text = self._texts[session]
        # Rows of the old tip and of matched nodes become cached text; the new tip's own row stays a row.
        path: list[int] = [*text.filled]
        carriers = [text.rows.get(node_id) for node_id in trunk]
        for carrier in [text.tip, *carriers][: len(tokens)]:
            if carrier is None:
                break
            path.append(carrier.row)
        whole = len(path) == len(text.filled) + len(tokens)
        new_tip = carriers[-1] if whole and len(carriers) == len(tokens) else None
        if self._forward.cached(text.sequence) < text.cached:
            text.forget_rows()  # evicted: there is nothing left to advance
        else:
            self._forward.advance(text.sequence, path)
            text.filled = range(0)
            text.tip = new_tip
            text.rows = _below(text.rows, trunk[-1]) if new_tip is not None else {}
        text.cached = self._forward.cached(text.sequence)
        text.tokens.extend(tokens)
        for token in tokens:
            text.history.append(token)

    def observed(self, session: int, observations: Sequence[Observation]) -> None:
        pass  # a model does not learn while it drafts

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        guesses: list[list[Guess]] = [[] for _ in wanted]
        by_session: dict[int, list[tuple[int, Expansion]]] = {}
        for index, expansion in enumerate(wanted):
            text = self._texts[expansion.session]
            if self._forward.cached(text.sequence) < text.cached:
                text.forget_rows()
            known = text.evaluated(expansion)
            if known is not None and known.guesses is not None:
                guesses[index] = known.guesses
            else:
                by_session.setdefault(expansion.session, []).append((index, expansion))
        if not by_session:
            return guesses
        jobs = [self._job(self._texts[session], items) for session, items in by_session.items()]
        try:
            result = self._forward.step([job.block for job in jobs])
        except Exception:
            # Nothing was computed: what was noted as evaluated is not.
            for job in jobs:
                job.text.forget_rows()
                self._forward.advance(job.text.sequence, ())
            raise
        for job in jobs:
            job.text.cached = self._forward.cached(job.text.sequence)
        self._guess(result.logits.cpu().numpy(), jobs, guesses)
        return guesses

    def close(self, session: int) -> None:
        text = self._texts.pop(session, None)
        if text is not None:
            self._forward.close(text.sequence)

    def _job(self, text: _Text, wanted: list[tuple[int, Expansion]]) -> _Job:
        """The rows a session's expansions still need: missing text, the tip, and nodes that have no row yet.

        Nodes on the way to a wanted one get their guesses, too: a row's logits are there once.
        """
        cached = self._forward.cached(text.sequence)
        first = self._forward.next_row(text.sequence)
        tokens: list[int] = []
        parents: list[int] = []

        def add(token: int, parent: int) -> int:
            tokens.append(token)
            parents.append(parent)
            return first + len(tokens) - 1

        sampled_from = 0
        fresh: list[tuple[_Row, tuple[int, ...]]] = []
        if text.tip is None:
            above = -1
            for token in text.tokens[cached:-1]:
                above = add(token, above)
            sampled_from = len(tokens)
            text.filled = range(first, first + sampled_from)
            text.tip = _Row(add(text.tokens[-1], above), TIP)
            fresh.append((text.tip, ()))
        for _, expansion in wanted:
            node, above_id = text.tip, TIP
            for depth, (token, node_id) in enumerate(zip(expansion.path_tokens, expansion.path_ids, strict=True), 1):
                known = text.rows.get(node_id)
                if known is None:
                    known = text.rows[node_id] = _Row(add(token, node.row), above_id)
                    fresh.append((known, expansion.path_tokens[:depth]))
                node, above_id = known, node_id
        block = self._block(text.sequence, tuple(tokens), tuple(parents), logits_from=sampled_from)
        return _Job(text, block, wanted, fresh)

    def _guess(self, logits: np.ndarray, jobs: Sequence[_Job], guesses: list[list[Guess]]) -> None:
        """Fills in the children of all new rows from `logits` [rows of all jobs, vocab], and so of each wanted node."""
        fresh = [node for job in jobs for node, _ in job.fresh]
        contexts = [_row_context(job.text, path) for job in jobs for _, path in job.fresh]
        ids, scores = self._forward.draft_scores(logits, contexts, SCORED)
        # Ids that cannot be chosen come with a score of minus infinity and weigh nothing.
        best = np.maximum(scores[:, :1], np.float32(-1e30))
        weights = np.exp((scores - best) / np.float32(self._race_temperature))
        survival = weights / np.maximum(weights.sum(axis=1, keepdims=True), np.float32(1e-30))
        for node, row_ids, row_survival in zip(fresh, ids.tolist(), survival.tolist(), strict=True):
            node.guesses = [
                Guess(token, chance)
                for token, chance in zip(row_ids[: self._children], row_survival[: self._children], strict=True)
                if token >= 0 and chance >= self._least_child
            ]
        if self._features:
            told = features_of_rows(logits, contexts, ids[:, : self._children], scores)
            for node, row_told in zip(fresh, told, strict=True):
                # Survivals fall, so what was kept are the first of the row.
                node.guesses = [
                    replace(guess, features=features)
                    for guess, features in zip(node.guesses or (), row_told, strict=False)
                ]
        for job in jobs:
            for index, expansion in job.wanted:
                known = job.text.evaluated(expansion)
                assert known is not None, "a wanted node has just been evaluated"
                guesses[index] = known.guesses or []


def _row_context(text: _Text, path: tuple[int, ...]) -> RowContext:
    return RowContext(
        params=text.context.params,
        key=text.context.key or 0,
        position=len(text.tokens) + len(path),
        history=text.history,
        ancestors=path,
    )


def _below(rows: dict[int, _Row], tip: int) -> dict[int, _Row]:
    """Rows of the nodes below `tip`. Parents were added before their children, so one sweep finds them all."""
    kept: dict[int, _Row] = {}
    for node_id, node in rows.items():
        if node.parent == tip or node.parent in kept:
            node.parent = TIP if node.parent == tip else node.parent
            kept[node_id] = node
    return kept
