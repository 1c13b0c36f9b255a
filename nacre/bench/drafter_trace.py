"""What a drafting method's guesses are worth along real generations, and what they cost: one process, no network.

A cell is a method, a temperature, a seed and a number of rows, over prompts that come one after another. Before each
pass the proposer is asked at the tip, one with a model also below its own best guesses until the pass is full, as a
drafter asks it. The pass takes the likeliest guesses, and the proposer is told what became text and, if it learns, what
the target thought at every row. It keeps what it learns until the cell is over: all prompts are of one tenant.

Rule: the text of every generation is the one that the target writes alone, or the cell is an Internal error. Engine,
sampler, noise and session machines are those of the services; only calls of the proposer are timed.
"""

from __future__ import annotations

import gc
import os
import tempfile
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from inspect import signature
from itertools import islice
from pathlib import Path
from time import perf_counter_ns
from typing import Any, cast

import numpy as np

from nacre.bench.given import expected_answer, write_corpus
from nacre.drafting import DraftContext, Expansion, HiddenStates, Proposer, method_names, needs_model, proposer_class
from nacre.drafting.fusion import FusionProposer
from nacre.drafting.proposer import Encoder
from nacre.drafting.rest_datastore import RestDatastore
from nacre.drafting.suffix_index import SuffixIndex
from nacre.engine import Engine, load_model
from nacre.errors import FailedPrecondition, Internal
from nacre.models import located
from nacre.runtime.drafter_stream import OBSERVED_BEST
from nacre.runtime.proposers import build_proposer
from nacre.runtime.settings import DrafterSettings
from nacre.runtime.verify_pass import EngineSession, Outcome, PassItem, VerifyPass
from nacre.sampling import History, SamplingParams, completion_key
from nacre.session import DrafterLimits, DrafterSession, Resolution, VerifierSession, open_session
from nacre.session.observed import Observed, observations_of
from nacre.text import Vocabulary
from nacre.tree import Node

KV_BYTES = 256 << 20
#: Plain texts that are remembered.
MOST_TEXTS = 4096

#: What a pass has no row for is no drafter's mistake: nothing is kept back for being unlikely.
_LIMITS = DrafterLimits(least_survival=0.0, least_sent_survival=0.0)

#: A call of a proposer: the method's name and its arguments.
_Call = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Task:
    """A text to be written: `tokens` of them after `prompt`. `seed` decides the noise."""

    prompt: tuple[int, ...]
    tokens: int
    temperature: float
    seed: int

    @property
    def key(self) -> int:
        return completion_key(self.seed, 0)

    @property
    def params(self) -> SamplingParams:
        return SamplingParams(temperature=self.temperature)


@dataclass(slots=True)
class Tally:
    """What one cell has counted. Times are nanoseconds, one for each call. To open is to read the
    prompt, with what the target thought of it; an update is `committed` and `observed`.
    """

    tokens: int = 0
    passes: int = 0
    rows: int = 0
    guesses: int = 0
    right: int = 0
    empty: int = 0
    open_ns: list[int] = field(default_factory=list)
    propose_ns: list[int] = field(default_factory=list)
    update_ns: list[int] = field(default_factory=list)
    calls: list[_Call] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The counts, and `open_us`, `propose_us` and `update_us` with median and 95th percentile."""
        return {
            "tokens": self.tokens,
            "passes": self.passes,
            "pass_rows": self.rows,
            "guesses": self.guesses,
            "right": self.right,
            "proposals": len(self.propose_ns),
            "empty": self.empty,
            "open_us": _quantiles_us(self.open_ns),
            "propose_us": _quantiles_us(self.propose_ns),
            "update_us": _quantiles_us(self.update_ns),
        }


class DrafterTraces:
    """Holds the target, and what methods need that takes long to make; `measure` does one cell."""

    def __init__(self, target: str, draft: str, *, dtype: str, threads: int) -> None:
        """Loads the target. Raises NacreError."""
        self._draft, self._threads = draft, threads
        loaded = load_model(located(target), dtype=dtype, device="cpu", threads=threads)
        self._tokenizer = loaded.tokenizer_path
        self._engine = Engine(loaded, kv_bytes=KV_BYTES)
        if not self._engine.info.tree_mode:
            raise FailedPrecondition(f"{target} cannot verify trees: {self._engine.info.tree_refusal}")
        self._verify = VerifyPass(self._engine, chunk_rows=self._engine.info.max_positions)
        self._plain_texts: OrderedDict[Task, tuple[int, ...]] = OrderedDict()
        self._model: Proposer | None = None
        self._model_bytes = 0
        self._corpus: RestDatastore | None = None
        self._generations = 0

    def measure(self, method: str, tasks: Sequence[Task], rows: int) -> dict[str, Any]:
        """One cell: `Tally.as_dict` and `memory_bytes`. Raises InvalidArgument for an unknown method.

        Raises Internal if a text is not the one that the target writes alone.
        """
        names = method_names(method)
        proposer = self._proposer(names, rows)
        if proposer.traits.encodes:
            self._engine.keep_hidden()
        tally = Tally()
        for task in tasks:
            plain = self._plain(task)
            prediction = expected_answer(plain, self._engine.info.vocab_size) if "prediction" in names else ()
            drafter = _Drafter(proposer, self._generations, task, prediction, tally)
            written = self._write(task, rows, drafter)
            if written != plain:
                raise Internal(
                    f"with {method} the target wrote another text than alone at temperature {task.temperature:g}, seed "
                    f"{task.seed}, {rows} rows: exactness is broken"
                )
        return {**tally.as_dict(), "memory_bytes": self._memory_bytes(names, rows, tally.calls)}

    # -- texts -------------------------------------------------------------------------------------------------------

    def _plain(self, task: Task) -> tuple[int, ...]:
        """What the target writes alone."""
        text = self._plain_texts.get(task)
        if text is None:
            text = self._plain_texts[task] = self._write(task, 1, None)
            if len(self._plain_texts) > MOST_TEXTS:
                self._plain_texts.popitem(last=False)
        return text

    def _write(self, task: Task, rows: int, drafter: _Drafter | None) -> tuple[int, ...]:
        """One generation in passes of at most `rows` rows; without a drafter a token a pass."""
        info = self._engine.info
        machine = open_session(
            task.prompt, max_tokens=task.tokens, max_positions=info.max_positions, vocab_size=info.vocab_size
        )
        # A tenant for each generation: a prompt that was read before would not be observed.
        self._generations += 1
        session = EngineSession(f"text-{self._generations}", task.params, task.key, 0, History(task.prompt))
        observe = OBSERVED_BEST if drafter is not None and drafter.learns else 0
        try:
            if drafter is not None:
                drafter.join(machine)
            while machine.finished is None:
                if drafter is not None:
                    drafter.draft(rows)
                plan = machine.plan(rows)
                item = PassItem(None, session, machine, plan, 0.0, observe, observe_prompt=True)
                (outcome,) = self._verify.run([item], [session], ()).outcomes
                if outcome.error is not None:
                    raise outcome.error
                assert outcome.sampled is not None, "a pass has room for any prompt"
                resolution = machine.resolve(plan, outcome.sampled)
                session.committed(resolution)
                if drafter is not None:
                    drafter.told(outcome, resolution)
                    drafter.tally.passes += 1
                    drafter.tally.rows += len(plan.tokens)
                    drafter.tally.right += resolution.matched
        finally:
            if drafter is not None:
                drafter.leave()
            self._verify.run((), [session], [session])
        written = tuple(machine.tokens[len(task.prompt) :])
        if drafter is not None:
            drafter.tally.tokens += len(written)
        return written

    # -- proposers ---------------------------------------------------------------------------------------------------

    def _proposer(self, names: Sequence[str], rows: int) -> Proposer:
        sources = [self._source(name, rows) for name in names]
        return sources[0] if len(sources) == 1 else FusionProposer(sources, rows=rows)

    def _source(self, name: str, rows: int) -> Proposer:
        """A method with nothing learnt yet; its trees have at most `rows` guesses where it can be told so."""
        kind = proposer_class(name)
        if needs_model(name):
            return self._with_model(name)
        options: dict[str, Callable[[], Any]] = {
            "rows": lambda: rows,
            "corpus": SuffixIndex,
            "datastore": self._datastore,
        }
        known = signature(kind).parameters
        proposer: Proposer = kind(**{option: make() for option, make in options.items() if option in known})
        return proposer

    def _with_model(self, name: str) -> Proposer:
        """The draft model, loaded once: it learns nothing while it drafts."""
        if self._model is None:
            before = _resident_bytes()
            settings = DrafterSettings(method=name, draft=self._draft, threads=self._threads)
            self._model = build_proposer(settings).proposer
            self._model_bytes = max(0, _resident_bytes() - before)
        return self._model

    def _datastore(self) -> RestDatastore:
        if self._corpus is None:
            if self._tokenizer is None:
                raise FailedPrecondition("the target has no tokenizer.json; method rest needs one for its datastore")
            vocabulary = Vocabulary(self._tokenizer.read_bytes())
            with tempfile.TemporaryDirectory(prefix="nacre-bench-") as folder:
                path = Path(folder) / "corpus.rest"
                write_corpus(path, vocabulary)
                self._corpus = RestDatastore(path, vocabulary.fingerprint)  # mapped: it outlives its name
        return self._corpus

    def _memory_bytes(self, names: Sequence[str], rows: int, calls: Sequence[_Call]) -> int:
        """What a method holds in the middle of a cell's last generation, the draft model and the corpus included."""
        cheap = [name for name in names if not needs_model(name)]
        held = _held_bytes(lambda: self._proposer(cheap, rows), calls[:-1]) if cheap else 0
        if len(cheap) < len(names):
            held += self._model_bytes
        if "rest" in names:
            held += 8 * self._datastore().count
        return held


class _Drafter:
    """One session's drafter, without a network: it is asked before each pass and told after it."""

    def __init__(self, proposer: Proposer, number: int, task: Task, prediction: Sequence[int], tally: Tally) -> None:
        self.tally = tally
        self._proposer = proposer
        self._number = number
        self._context = DraftContext(task.prompt, len(task.prompt), task.params, task.key, tuple(prediction))
        self._session = DrafterSession(
            task.prompt,
            end_position=len(task.prompt) + task.tokens,
            limits=_LIMITS,
            window_nodes=_LIMITS.window_nodes,
        )
        self._machine: VerifierSession | None = None
        self._ordinal = 0

    @property
    def learns(self) -> bool:
        return self._proposer.traits.learns

    def join(self, machine: VerifierSession) -> None:
        self._machine = machine
        self._ordinal = machine.join()
        self._timed(self.tally.open_ns, self._proposer.open, self._number, self._context)

    def draft(self, rows: int) -> None:
        """Guesses for the next pass, as many as `rows` have room for or as there are."""
        assert self._machine is not None, "it joins before it drafts"
        session = self._session
        if self._proposer.traits.costly:
            while wanted := self._unasked(rows):
                self._extend(wanted)
        else:
            self._extend([session.tree.tip])
        for draft in session.outbox():
            self._machine.draft(self._ordinal, draft)

    def told(self, outcome: Outcome, resolution: Resolution) -> None:
        """What a pass has settled, and what the target thought at its rows."""
        rollback, plan = self._session.committed(resolution.commit), outcome.item.plan
        traits, tokens = self._proposer.traits, self._session.tokens
        spent: list[int] = []
        self._timed(spent, self._proposer.committed, self._number, rollback.tokens, rollback.trunk)
        if traits.learns:
            reading: list[int] = []
            for piece in Observed.of_text(tokens, outcome.prompt_end, outcome.prompt_best):
                self._timed(reading, self._proposer.observed, self._number, observations_of(tokens, piece))
            self.tally.open_ns[-1] += sum(reading)  # with the first pass; a part of the beginning
            observed = Observed.of_pass(plan.committed, plan.parents, plan.tokens, outcome.best)
            seen = observations_of(tokens, observed)
            self._timed(spent, self._proposer.observed, self._number, seen)
        if traits.encodes:
            states = HiddenStates(plan.committed, outcome.hidden[list(resolution.path)].cpu().numpy())
            self._timed(spent, cast(Encoder, self._proposer).encoded, self._number, states)
        self.tally.update_ns.append(sum(spent))

    def leave(self) -> None:
        self._timed([], self._proposer.close, self._number)

    def _unasked(self, rows: int) -> list[Node]:
        """The tip and the nodes of the next pass, as it would be now, that a model has not been asked about yet."""
        tree = self._session.tree
        planned = {tree.tip.id, *(node.id for node, _ in islice(tree.best_first(), rows - 1))}
        frontier = self._session.frontier(self._proposer.traits.batch)
        return [node for node in frontier if node.id in planned]

    def _extend(self, nodes: Sequence[Node]) -> None:
        wanted = [_expansion(self._number, node) for node in nodes]
        found = self._timed(self.tally.propose_ns, self._proposer.propose, wanted)
        self.tally.empty += not any(found)
        for item, guesses in zip(wanted, found, strict=True):
            self.tally.guesses += len(guesses)
            self._session.extend(item.node_id, guesses)

    def _timed(self, spent_ns: list[int], work: Callable[..., Any], *arguments: Any) -> Any:
        self.tally.calls.append((work.__name__, arguments))
        started = perf_counter_ns()
        found = work(*arguments)
        spent_ns.append(perf_counter_ns() - started)
        return found


def _expansion(session: int, node: Node) -> Expansion:
    tokens: list[int] = []
    ids: list[int] = []
    survival, step = 1.0, node
    while step.parent is not None:
        survival *= step.survival
        tokens.append(step.token)
        ids.append(step.id)
        step = step.parent
    return Expansion(session, node.id, tuple(reversed(tokens)), tuple(reversed(ids)), survival)


def _held_bytes(make: Callable[[], Proposer], calls: Sequence[_Call]) -> int:
    """What a new proposer holds after the same calls; apart from the measured one, for counting slows everything."""
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        proposer = make()
        for name, arguments in calls:
            getattr(proposer, name)(*arguments)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return max(0, after - before)


def _resident_bytes() -> int:
    """What this process has in memory; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _quantiles_us(times_ns: Sequence[int]) -> dict[str, float] | None:
    if not times_ns:
        return None
    median, late = np.quantile(np.array(times_ns) / 1e3, [0.5, 0.95])
    return {"median": round(float(median), 2), "p95": round(float(late), 2)}
