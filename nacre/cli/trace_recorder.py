"""Records what a draft model guesses along the target's own text: the acceptance trace that simulations replay.

The text is what a verifier would serve (the same engine, sampler and noise), continued from held-out prompts. At every
position the draft model is asked, as a drafter asks it, and noted are the survivals of its guesses, best first, and
which of them was right. How long a draft step took is noted, too; it means something on a machine at rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from nacre.drafting import Expansion, Guess, Proposer
from nacre.engine import Engine, load_model
from nacre.errors import FailedPrecondition, InvalidArgument
from nacre.models import held_out_prompts
from nacre.runtime.proposers import build_proposer
from nacre.runtime.settings import DrafterSettings
from nacre.runtime.verify_pass import EngineSession, PassItem, VerifyPass
from nacre.sampling import History, SamplingParams, completion_key
from nacre.session import open_session
from nacre.sim.acceptance import RecordedAcceptance
from nacre.sim.recording import Place, record_places
from nacre.text import Vocabulary

#: Prompts are the first of so many, as the bench takes them.
PROMPT_SET, KEPT_FOR_WARMING = 64, 8

#: So many nodes are drafted together now and then, to know how long that takes.
SIBLINGS, SIBLINGS_EVERY = 4, 8


@dataclass(frozen=True, slots=True)
class Recording:
    """What to record. Models are directories or hub ids."""

    target: str
    draft: str
    dtype: str = "bfloat16"
    prompts: int = 24
    tokens: int = 96
    temperature: float = 1.0
    children: int = 4
    seed: int = 1
    threads: int = 1


class Recorder:
    """Holds the pair; `text` records one prompt."""

    def __init__(self, recording: Recording) -> None:
        """Loads both models. Raises NacreError."""
        self._recording = recording
        loaded = load_model(recording.target, dtype=recording.dtype, threads=recording.threads)
        if loaded.tokenizer_path is None:
            raise FailedPrecondition(f"{recording.target} has no tokenizer.json; a trace is recorded on real text")
        self._vocabulary = Vocabulary(loaded.tokenizer_path.read_bytes())
        self._pass = VerifyPass(Engine(loaded))
        settings = DrafterSettings(draft=recording.draft, children=recording.children, threads=recording.threads)
        built = build_proposer(settings)
        theirs = built.handshake.tokenizer_fingerprint
        if theirs != loaded.tokenizer_fingerprint:
            raise FailedPrecondition(f"{recording.draft} and {recording.target} have different tokenizers")
        self._proposer = _Timed(built.proposer)
        self._asked = 0

    def record(self, advance: Callable[[int], None]) -> RecordedAcceptance:
        recording = self._recording
        texts = held_out_prompts(max(PROMPT_SET, recording.prompts + KEPT_FOR_WARMING))[: recording.prompts]
        recorded = []
        for text in texts:
            prompt = tuple(self._vocabulary.encode(text, add_special_tokens=True))
            recorded.append(self._text(prompt))
            advance(1)
        about = {
            "target": Path(recording.target).name,
            "draft": Path(recording.draft).name,
            "dtype": recording.dtype,
            "temperature": recording.temperature,
            "seed": recording.seed,
            "prompts": len(recorded),
            "tokens": recording.tokens,
            "draft_ms": [
                [nodes, round(1e3 * median(taken), 3)]
                for nodes, taken in sorted(self._proposer.steps_s.items())
                if len(taken) > 1 and nodes in (1, SIBLINGS)
            ],
        }
        return RecordedAcceptance(tuple(recorded), about)

    def _text(self, prompt: Sequence[int]) -> tuple[Place, ...]:
        params = SamplingParams(temperature=self._recording.temperature)
        key = completion_key(self._recording.seed, 0)
        output = self._write(prompt, params, key)
        return record_places(self._proposer, prompt, output, params, key, guessed=self._time_siblings)

    def _write(self, prompt: Sequence[int], params: SamplingParams, key: int) -> tuple[int, ...]:
        """The text, as a verifier without drafters writes it."""
        recording, engine = self._recording, self._pass.engine
        room = engine.info.max_positions - len(prompt)
        if recording.tokens > room:
            raise InvalidArgument(
                f"--tokens is {recording.tokens}; after a prompt of {len(prompt)} there is room for {room}"
            )
        machine = open_session(
            prompt,
            max_tokens=recording.tokens,
            max_positions=engine.info.max_positions,
            vocab_size=engine.info.vocab_size,
        )
        session = EngineSession("trace", params, key, -1, History(tuple(prompt)))
        resolved: list[EngineSession] = []
        while machine.finished is None:
            plan = machine.plan(1)
            outcomes = self._pass.run([PassItem(None, session, machine, plan, 0.0)], resolved, []).outcomes
            if outcomes[0].error is not None:
                raise outcomes[0].error
            resolved = [session]
            if outcomes[0].sampled is None:  # a chunk of the prompt
                machine.abandon(plan)
                session.settled()
                continue
            session.committed(machine.resolve(plan, outcomes[0].sampled))
        self._pass.run([], [], [session])
        return tuple(machine.tokens[len(prompt) :])

    def _time_siblings(self, guesses: Sequence[Guess]) -> None:
        """Several nodes at once now and then, only to know how long they take together."""
        self._asked += 1
        if self._asked % SIBLINGS_EVERY == 0:
            self._proposer.propose(
                [Expansion(0, 1 + i, (g.token,), (1 + i,)) for i, g in enumerate(guesses[:SIBLINGS])]
            )


class _Timed:
    """A proposer whose steps are timed: seconds by the number of nodes."""

    def __init__(self, proposer: Proposer) -> None:
        self._proposer = proposer
        self.steps_s: dict[int, list[float]] = {}
        self.traits, self.open, self.committed, self.observed, self.close = (
            proposer.traits,
            proposer.open,
            proposer.committed,
            proposer.observed,
            proposer.close,
        )

    def propose(self, wanted: Sequence[Expansion]) -> list[list[Guess]]:
        started = time.perf_counter()
        guesses = self._proposer.propose(wanted)
        self.steps_s.setdefault(len(wanted), []).append(time.perf_counter() - started)
        return guesses
