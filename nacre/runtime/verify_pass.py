"""One verify pass: rows of many sessions in, the target's choices out. Runs in the engine's thread.

Whatever the engine has lost of a session's KV (a new session, an eviction) is computed again first, in chunks: the
machines never know. A session for which there is no room waits for the others; one that fails, fails alone. A row
without usable logits harms only the session whose text runs through it: what was guessed beside the text decides
nothing, not even this.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nacre.engine.rows import RowBlock
from nacre.errors import NacreError, ResourceExhausted
from nacre.sampling import Choice, History, RowContext, SamplingParams, UnusableLogits, choose_rows

if TYPE_CHECKING:
    from nacre.engine import Engine
    from nacre.session import Resolution, VerifierSession, VerifyPlan


#: Per row (token, log-probability), best first.
BestRows = tuple[tuple[tuple[int, float], ...], ...]

#: Logits of prompt rows that are computed only to be observed take at most so many numbers a session and pass.
_MOST_PROMPT_LOGITS = 1 << 22


@dataclass(slots=True, eq=False)
class EngineSession:
    """What the engine's side keeps for one session: its sequence, and how its tokens are chosen."""

    tenant: str
    params: SamplingParams
    key: int
    top_logprobs: int
    history: History
    sequence: int | None = None
    # Whether keys and values of this session are in the cache: who has begun goes before who has not.
    begun: bool = False
    # Row ids of the last pass: first those of text that was missing from the cache, then the plan's.
    _row_ids: range = range(0)
    _filled: int = 0
    _advance: tuple[int, ...] = ()

    def committed(self, resolution: Resolution) -> None:
        """The pass was resolved: its path becomes cached text before the next pass."""
        for token in resolution.commit.tokens:
            self.history.append(token)
        self.settled(resolution.path)

    def settled(self, path: Sequence[int] = ()) -> None:
        """Of the last pass, the missing text and the plan's rows on `path` are to be kept."""
        plan_ids = self._row_ids[self._filled :]
        self._advance = (*self._row_ids[: self._filled], *(plan_ids[row] for row in path))


@dataclass(frozen=True, slots=True, eq=False)
class PassItem:
    """A session's share of a pass. `session` is handed through untouched.

    `observe`: best tokens wanted of each row of the plan, and with `observe_prompt` of prompt rows as well.
    """

    session: Any
    engine: EngineSession
    machine: VerifierSession
    plan: VerifyPlan
    queue_ms: float
    observe: int = 0
    observe_prompt: bool = False


@dataclass(slots=True, eq=False)
class Outcome:
    """`sampled` has one choice per plan row; None if only a chunk of the prompt was computed, or on an error.

    `deferred`: there was no room for this session beside the others; nothing was computed. `resolution` is filled in
    by the host once the session has settled. `best` are the best tokens of each row, best first, where they were asked
    for, and `prompt_best` those of the prompt rows up to (not including) the token at `prompt_end`.
    """

    item: PassItem
    sampled: tuple[Choice, ...] | None = None
    error: Exception | None = None
    deferred: bool = False
    cached_tokens: int = 0
    prompt_rows: int = 0
    resolution: Resolution | None = None
    best: BestRows = ()
    prompt_best: BestRows = ()
    prompt_end: int = 0
    hidden: Any = None  # float32 [plan rows, hidden], where the engine keeps them

    @property
    def prompt_share(self) -> float:
        """The part of its rows that read the prompt."""
        rows = self.prompt_rows + (len(self.item.plan.tokens) if self.sampled is not None else 0)
        return self.prompt_rows / rows if rows else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class PassResult:
    outcomes: tuple[Outcome, ...] = ()
    rows: int = 0
    duration_ms: float = 0.0
    best_ms: float = 0.0  # of that, for the best tokens of rows


@dataclass(slots=True)
class _Part:
    """A block under construction with the item it serves."""

    item: PassItem
    block: RowBlock
    cached: int
    filled: int  # rows of missing text at the front of the block
    observed: int  # of these, how many at their end have logits
    sampled: bool


@dataclass(slots=True)
class VerifyPass:
    """Computes passes on one engine. `chunk_rows` bounds the rows of missing text in a pass, over all sessions."""

    engine: Engine
    chunk_rows: int = 256
    clock: Any = field(default=time.perf_counter)
    _best_s: float = 0.0

    def run(
        self, items: Sequence[PassItem], resolved: Sequence[EngineSession], closing: Sequence[EngineSession]
    ) -> PassResult:
        """Applies what the last passes have settled, then computes `items`.

        Paths are committed before anything else: only a pass evicts, so a path's rows are still there.
        """
        started, self._best_s = self.clock(), 0.0
        for session in resolved:
            if session.sequence is not None:
                self.engine.advance(session.sequence, session._advance)
                session._advance = ()
        for session in closing:
            if session.sequence is not None:
                self.engine.close(session.sequence)
                session.sequence = None
        outcomes = self._run(list(items)) if items else []
        rows = sum(len(o.item.plan.tokens) if o.sampled is not None else 0 for o in outcomes)
        rows += sum(o.prompt_rows for o in outcomes)
        return PassResult(tuple(outcomes), rows, (self.clock() - started) * 1e3, self._best_s * 1e3)

    def _run(self, items: list[PassItem]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        parts: list[_Part] = []
        room = self.chunk_rows
        for item in items:
            try:
                part = self._part(item, room)
            except Exception as error:  # noqa: BLE001  one session's failure is its own
                outcomes.append(Outcome(item, error=error))
                continue
            room = max(0, room - part.filled)
            parts.append(part)
        try:
            return outcomes + self._compute(parts)
        except Exception as error:  # noqa: BLE001  find out whose fault it was, one session at a time
            if len(parts) == 1:
                return [*outcomes, Outcome(parts[0].item, error=error)]
        for part in parts:
            sequence = part.item.engine.sequence
            if sequence is not None:
                self.engine.advance(sequence, ())  # rows of the failed pass, if there are any
            outcomes.extend(self._run([part.item]))
        return outcomes

    def _compute(self, parts: list[_Part]) -> list[Outcome]:
        if not parts:
            return []
        admission = self.engine.admit([part.block for part in parts])
        refused = {id(block): error for block, error in admission.refused}
        outcomes = []
        for part in parts:
            error = refused.get(id(part.block))
            if error is not None:
                waits = isinstance(error, ResourceExhausted) and bool(admission.accepted)
                part.item.engine.begun = part.cached > 0
                outcomes.append(Outcome(part.item, error=None if waits else error, deferred=waits))
        parts = [part for part in parts if id(part.block) not in refused]
        if not parts:
            return outcomes
        result = self.engine.step([part.block for part in parts])
        contexts: list[RowContext] = []
        chosen: list[int] = []  # rows of the logits at which a token is chosen
        start = 0
        for part, ids in zip(parts, result.row_ids, strict=True):
            part.item.engine._row_ids = ids
            part.item.engine._filled = part.filled
            part.item.engine.begun = True
            start += part.observed
            if part.sampled:
                contexts.extend(_contexts(part.item))
                chosen.extend(range(start, start + len(part.item.plan.tokens)))
                start += len(part.item.plan.tokens)
        logits = result.logits if len(chosen) == start else result.logits[chosen]
        hidden = result.hidden
        if hidden is not None and len(chosen) != len(hidden):
            hidden = hidden[chosen]
        choices, errors = self._choose(logits, contexts)
        row = start = 0
        for part in parts:
            count = len(part.item.plan.tokens) if part.sampled else 0
            sampled = tuple(choices[start : start + count]) if part.sampled else None
            harmed = _harmed_row(part.item.plan, sampled) if errors and sampled is not None else None
            outcomes.append(
                Outcome(
                    part.item,
                    sampled if harmed is None else None,
                    errors[start + harmed] if harmed is not None else None,
                    cached_tokens=part.cached,
                    prompt_rows=part.filled,
                    prompt_best=self._best(result.logits[row : row + part.observed], part.item.observe),
                    prompt_end=part.cached + part.filled,
                    best=self._best(logits[start : start + count], part.item.observe),
                    hidden=hidden[start : start + count] if hidden is not None and part.sampled else None,
                )
            )
            row += part.observed + count
            start += count
        return outcomes

    def _best(self, logits: Any, count: int) -> BestRows:
        if not count or not len(logits):
            return ()
        started = self.clock()
        best = tuple(self.engine.best_tokens(logits, count))
        self._best_s += self.clock() - started
        return best

    def _part(self, item: PassItem, room: int) -> _Part:
        """The rows this session needs now: missing text, then its plan if all that text fits."""
        session, plan = item.engine, item.plan
        tokens = item.machine.tokens
        if session.sequence is None:
            session.sequence = self.engine.open(session.tenant, tokens[: plan.committed])
        cached = self.engine.cached(session.sequence)
        missing = tokens[cached : plan.committed - 1]
        if len(missing) > max(room, 1):
            chunk = tuple(missing[: max(room, 1)])
            observed = self._observed_rows(item, len(chunk))
            block = RowBlock(session.sequence, chunk, logits_from=len(chunk) - observed, commit=True)
            return _Part(item, block, cached, len(chunk), observed, False)
        first = self.engine.next_row(session.sequence)
        filled = len(missing)
        observed = self._observed_rows(item, filled)
        # Missing text is a chain from the cached tip; the plan's tip hangs below its end.
        parents = [*range(first - 1, first + filled - 1)] if filled else []
        if filled:
            parents[0] = -1
        for parent in plan.parents:
            if parent >= 0:
                parents.append(first + filled + parent)
            else:
                parents.append(first + filled - 1 if filled else -1)
        block = RowBlock(session.sequence, (*missing, *plan.tokens), tuple(parents), logits_from=filled - observed)
        return _Part(item, block, cached, filled, observed, True)

    def _observed_rows(self, item: PassItem, filled: int) -> int:
        """How many of the prompt rows at the end are told what follows them."""
        if not item.observe or not item.observe_prompt:
            return 0
        return min(filled, _MOST_PROMPT_LOGITS // self.engine.info.vocab_size)

    def _choose(self, logits: Any, contexts: Sequence[RowContext]) -> tuple[list[Choice], dict[int, NacreError]]:
        """A choice per row; rows that have none get a token that no guess carries, and their error."""
        if not contexts:
            return [], {}
        try:
            if logits.device.type == "cpu":
                return choose_rows(logits.numpy(), contexts), {}
            from nacre.sampling.torch_sampler import choose_rows as choose_rows_on_device

            return choose_rows_on_device(logits, contexts), {}
        except UnusableLogits as unusable:
            return [choice or _NO_CHOICE for choice in unusable.choices], unusable.errors


_NO_CHOICE = Choice(token=-1)


def _harmed_row(plan: VerifyPlan, sampled: Sequence[Choice]) -> int | None:
    """The row without a choice that the text runs through, if there is one."""
    children = {(parent, plan.tokens[row]): row for row, parent in enumerate(plan.parents)}
    row: int | None = 0
    while row is not None and sampled[row] is not _NO_CHOICE:
        row = children.get((row, sampled[row].token))
    return row


def _contexts(item: PassItem) -> list[RowContext]:
    session, plan = item.engine, item.plan
    return [
        RowContext(
            params=session.params,
            key=session.key,
            position=position + 1,
            history=session.history,
            ancestors=plan.ancestors(row),
            top_logprobs=session.top_logprobs,
        )
        for row, position in enumerate(plan.positions)
    ]
