"""The verifier's half of a session: it owns every token.

Events in, effects out; no clock, no socket, no thread, no model:

    join / draft / leave    what drafters do; a breach of protocol raises for that stream and changes nothing
    plan(rows)              which rows the next forward pass should compute for this session, best guesses first
    resolve(plan, sampled)  what the target sampled at those rows: walk the tree, commit, re-root

One rule: the token at a position is the one the target sampled there. A guess only decides which rows are computed in
advance; the walk steps into a child if and only if it carries the sampled token.

Invariants: committed tokens equal the reference autoregressive sequence; no dead node is planned; a plan never has
more rows than asked for; at most one plan is under way; memory is bounded by window x streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nacre.drafting.proposer import MOST_PREDICTED
from nacre.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from nacre.pacing import Reputation
from nacre.sampling import Choice
from nacre.session.messages import Commit, Draft, FinishReason, SpeculationMode
from nacre.session.stream import DraftStream, Received
from nacre.tree import DraftTree, Node


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Bounds of one session. `window_nodes` is per stream; the tree holds at most `window_nodes * max_streams`."""

    window_nodes: int = 256
    max_streams: int = 8


@dataclass(frozen=True, slots=True)
class VerifyPlan:
    """Rows for one forward pass. Row 0 is the tip; `parents[i]` is an earlier row (-1 for row 0).

    Row i, whose token sits at absolute index `positions[i]`, lets the target choose the token at `positions[i] + 1`.
    """

    committed: int
    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    positions: tuple[int, ...]

    def ancestors(self, row: int) -> tuple[int, ...]:
        """Guessed tokens between the tip and this row, the row's own last; empty for row 0."""
        tokens: list[int] = []
        while row > 0:
            tokens.append(self.tokens[row])
            row = self.parents[row]
        tokens.reverse()
        return tuple(tokens)


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a pass has settled. `path` lists the plan's rows whose tokens are now committed text, root first.

    `planned` and `matched` count draft nodes verified and found right.
    """

    commit: Commit
    path: tuple[int, ...]
    planned: int
    matched: int


@dataclass(slots=True)
class VerifierSession:
    """One generation. Built by `open_session`; thread-unsafe on purpose: one owner drives it."""

    prompt_length: int
    replay_from: int  # what was committed before this index was committed, and received, elsewhere
    tokens: list[int]  # prompt and committed output
    end_position: int  # no token is ever committed at or past this index
    stop_ids: frozenset[int]
    vocab_size: int
    mode: SpeculationMode
    keep_choices: bool
    limits: SessionLimits
    tree: DraftTree = field(init=False)
    finished: FinishReason | None = None
    late_match: bool = True  # see `DraftStream`
    streams: dict[int, DraftStream] = field(default_factory=dict)
    # One entry per token committed here, so that an owner that was away gets what it missed, whole.
    guessed_by: list[int] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    _next_ordinal: int = 1
    _plan: VerifyPlan | None = None

    def __post_init__(self) -> None:
        self.tree = DraftTree(
            self.tokens[-1],
            len(self.tokens) - 1,
            max_nodes=self.limits.window_nodes * self.limits.max_streams,
        )
        self._finish_if_done()

    # -- drafters ------------------------------------------------------------------------------------------------

    def join(self, reputation: Reputation | None = None, *, local: bool = False) -> int:
        """Admits a drafter; returns its ordinal. Raises FailedPrecondition or ResourceExhausted.

        `reputation` corrects the survival it claims and learns from what becomes of its guesses. `local`: it guesses
        in the verifier itself.
        """
        if self.mode is SpeculationMode.OFF:
            raise FailedPrecondition("this session runs with speculation.mode off; no drafter may join it")
        if len(self.streams) >= self.limits.max_streams:
            raise ResourceExhausted(
                f"the session already has {len(self.streams)} drafters; the limit is {self.limits.max_streams}"
            )
        ordinal = self._next_ordinal
        self._next_ordinal += 1
        self.streams[ordinal] = DraftStream(
            ordinal, self.limits.window_nodes, reputation, late_match=self.late_match, local=local
        )
        return ordinal

    def leave(self, ordinal: int) -> None:
        """The drafter is gone; guesses that only it stood for go with it."""
        stream = self.streams.pop(ordinal, None)
        if stream is not None:
            stream.forget(self.tree)
            self._settle()

    def withdraw(self, ordinal: int) -> None:
        """Takes back all guesses of a stream that no other stands for. Call only between plans."""
        self.streams[ordinal].forget(self.tree)

    def draft(self, ordinal: int, draft: Draft) -> Received:
        """Takes a drafter's guesses. Raises InvalidArgument or ResourceExhausted for that stream alone."""
        stream = self.streams[ordinal]
        if draft.first_node == 0:
            draft = replace(draft, first_node=stream.next_node)
        stream.check(draft, committed=len(self.tokens), vocab_size=self.vocab_size)
        received = stream.receive(draft, self.tree, self.tokens, end_position=self.end_position)
        if draft.first_node == 1:
            self._settle()
        return received

    @property
    def hit_rate(self) -> float:
        """How often a guess of the best drafter that may be waited for has been right lately; 0 without one."""
        return max((stream.hit_rate for stream in self.streams.values() if stream.awaited), default=0.0)

    # -- the engine ----------------------------------------------------------------------------------------------

    @property
    def plannable(self) -> bool:
        return self.finished is None and self._plan is None

    def plan(self, rows: int) -> VerifyPlan:
        """The tip and the `rows - 1` guesses most likely to survive, parents first. Call only when `plannable`."""
        assert self.plannable, "one plan at a time, and none after the end"
        assert rows >= 1, "a plan has at least the tip's row"
        chosen: dict[Node, int] = {self.tree.tip: 0}
        parents = [-1]
        if rows > 1:
            # A row lets the target choose the *next* token: after the last position or a stop token there is none.
            for node, _ in self.tree.best_first(
                lambda n, _: n.position + 1 < self.end_position and n.token not in self.stop_ids
            ):
                assert node.parent is not None
                parents.append(chosen[node.parent])
                chosen[node] = len(chosen)
                if len(chosen) == rows:
                    break
        plan = VerifyPlan(
            committed=len(self.tokens),
            tokens=tuple(node.token for node in chosen),
            parents=tuple(parents),
            positions=tuple(node.position for node in chosen),
        )
        self._plan = plan
        return plan

    def abandon(self, plan: VerifyPlan) -> None:
        """The pass did not happen; the session may plan again."""
        assert plan is self._plan, "only the plan under way can be abandoned"
        self._plan = None

    def resolve(
        self,
        plan: VerifyPlan,
        sampled: Sequence[Choice],
        *,
        row_budget: int = 0,
        verify_ms: float = 0.0,
        queue_ms: float = 0.0,
    ) -> Resolution:
        """Commits what the target sampled: `sampled[i]` is its choice after row i."""
        assert plan is self._plan, "a plan is resolved once"
        assert len(sampled) == len(plan.tokens), "one choice per row"
        self._plan = None
        children = {(parent, plan.tokens[row]): row for row, parent in enumerate(plan.parents)}
        path = [0]
        committed: list[Choice] = []
        while True:
            choice = sampled[path[-1]]
            committed.append(choice)
            child = children.get((path[-1], choice.token))
            if child is None or choice.token in self.stop_ids:
                break
            path.append(child)
        commit = self._commit(
            committed, row_budget=row_budget, rows=len(plan.tokens), verify_ms=verify_ms, queue_ms=queue_ms
        )
        return Resolution(commit, tuple(path), planned=len(plan.tokens) - 1, matched=len(path) - 1)

    def _commit(
        self, choices: Sequence[Choice], *, row_budget: int, rows: int, verify_ms: float, queue_ms: float
    ) -> Commit:
        position = len(self.tokens)
        tokens = tuple(choice.token for choice in choices)
        assert position + len(tokens) <= self.end_position, "no row past the last position is ever planned"
        for stream in self.streams.values():
            stream.quiet += 1
        self._learn(tokens)
        moved = self.tree.commit(tokens)
        source_at = {node.position: node.source for node in moved.trunk}
        self._settle()
        self.tokens.extend(tokens)
        # The last token was sampled after the last match: no guess of it has saved a pass.
        guessed_by = (*(source_at.get(position + i, 0) for i in range(len(tokens) - 1)), 0)
        self.guessed_by.extend(guessed_by)
        if self.keep_choices:
            self.choices.extend(choices)
        self._finish_if_done()
        return Commit(
            position=position,
            tokens=tokens,
            guessed_by=guessed_by,
            choices=tuple(choices) if self.keep_choices else (),
            rows=rows,
            window_nodes=self.limits.window_nodes,
            row_budget=row_budget,
            verify_ms=verify_ms,
            queue_ms=queue_ms,
        )

    def _learn(self, tokens: Sequence[int]) -> None:
        """Tells every stream what became of its guesses below text: verified or not, they have an outcome now."""
        node: Node | None = self.tree.tip
        for token in tokens:
            if node is None or not node.children:
                return
            by_stream: dict[int, list[Node]] = {}
            for child in node.children.values():
                by_stream.setdefault(child.source, []).append(child)
            for ordinal, siblings in by_stream.items():
                if ordinal in self.streams:
                    self.streams[ordinal].learn(siblings, token)
            node = node.children.get(token)

    # -- the owner -----------------------------------------------------------------------------------------------

    def replay(self, position: int) -> Commit:
        """What an owner or drafter that has seen tokens up to `position` has missed; possibly nothing."""
        if not self.replay_from <= position <= len(self.tokens):
            raise InvalidArgument(
                f"position is {position}; this session can replay from {self.replay_from} to {len(self.tokens)}",
                param="position",
            )
        return Commit(
            position=position,
            tokens=tuple(self.tokens[position:]),
            guessed_by=tuple(self.guessed_by[position - self.replay_from :]),
            choices=tuple(self.choices[position - self.replay_from :]) if self.keep_choices else (),
            window_nodes=self.limits.window_nodes,
        )

    def cancel(self) -> None:
        if self.finished is None:
            self.finished = FinishReason.CANCELLED

    def _settle(self) -> None:
        for stream in self.streams.values():
            stream.settle()

    def _finish_if_done(self) -> None:
        if self.finished is not None:  # cancelled while a pass was under way: the first reason stands
            return
        if len(self.tokens) > self.prompt_length and self.tokens[-1] in self.stop_ids:
            self.finished = FinishReason.STOP
        elif len(self.tokens) >= self.end_position:
            self.finished = FinishReason.LENGTH


def open_session(
    prompt: Sequence[int],
    *,
    resume: Sequence[int] = (),
    max_tokens: int,
    max_positions: int,
    vocab_size: int,
    stop_ids: frozenset[int] = frozenset(),
    mode: SpeculationMode = SpeculationMode.LATENCY,
    keep_choices: bool = False,
    limits: SessionLimits = SessionLimits(),
) -> VerifierSession:
    """Checks an owner's request and opens the session; `resume` are output tokens committed elsewhere before.

    Raises InvalidArgument naming the field.
    """
    if not prompt:
        raise InvalidArgument("the prompt is empty; send at least one token", param="prompt")
    _check_ids("prompt", prompt, vocab_size)
    _check_ids("resume", resume, vocab_size)
    if max_tokens < 1:
        raise InvalidArgument(f"max_tokens is {max_tokens}; it must be at least 1", param="max_tokens")
    if len(prompt) >= max_positions:
        raise InvalidArgument(
            f"the prompt has {len(prompt)} tokens; this model's context of {max_positions} leaves room for at most "
            f"{max_positions - 1}: shorten it",
            param="prompt",
        )
    if len(prompt) + max_tokens > max_positions:
        raise InvalidArgument(
            f"max_tokens is {max_tokens}; with a prompt of {len(prompt)} tokens this model's context of "
            f"{max_positions} leaves room for {max_positions - len(prompt)}",
            param="max_tokens",
        )
    if len(resume) > max_tokens:
        raise InvalidArgument(f"resume has {len(resume)} tokens; max_tokens allows {max_tokens}", param="resume")
    for index, token in enumerate(resume[:-1]):
        if token in stop_ids:
            raise InvalidArgument(
                f"resume[{index}] is {token}, which ends the output; nothing can follow it", param="resume"
            )
    return VerifierSession(
        prompt_length=len(prompt),
        replay_from=len(prompt) + len(resume),
        tokens=[*prompt, *resume],
        end_position=len(prompt) + max_tokens,
        stop_ids=stop_ids,
        vocab_size=vocab_size,
        mode=mode,
        keep_choices=keep_choices,
        limits=limits,
    )


def check_prediction(prediction: Sequence[int], *, vocab_size: int, max_positions: int) -> None:
    """What an owner expects the output to be. Raises InvalidArgument if no output could be that."""
    most = min(max_positions, MOST_PREDICTED)
    if len(prediction) > most:
        raise InvalidArgument(
            f"prediction has {len(prediction)} tokens; at most {most} are taken here: shorten it", param="prediction"
        )
    _check_ids("prediction", prediction, vocab_size)


def _check_ids(name: str, tokens: Sequence[int], vocab_size: int) -> None:
    for index, token in enumerate(tokens):
        if not 0 <= token < vocab_size:
            raise InvalidArgument(
                f"{name}[{index}] is {token}; token ids of this model are 0 to {vocab_size - 1}", param=name
            )
