"""A run: every baseline of every scenario, prompt by prompt in turns, so that what the machine does falls on all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from nacre.bench import trace
from nacre.bench.baselines import REFERENCE, Baseline
from nacre.bench.drafters import from_the_first, measure, missing_cells, tenant_of
from nacre.bench.given import expected_answer
from nacre.bench.headline import Row, judged
from nacre.bench.load import LoadOptions, check_texts, run_load
from nacre.bench.results import Results, machine, now, source_state, versions
from nacre.bench.rig import RigOptions, Served
from nacre.bench.runners import Runners
from nacre.bench.samples import Sample
from nacre.bench.scenarios import Scenario
from nacre.bench.summary import summary
from nacre.bench.timeline import timeline
from nacre.bench.tuning import Settings
from nacre.bench.warm_up import warmed_up
from nacre.errors import InvalidArgument
from nacre.models import held_out_prompts

#: Prompts are taken from a fixed set, so that more of them are the same ones and others; the last are for warming up.
PROMPT_SET, KEPT_FOR_WARMING = 64, 8
STARTS = "starting processes (within the others)"
#: Micro-benchmarks: name in the results -> (yardstick, its settings).
MICRO = {
    "engine/1": ("engine", {"rows": 1}),
    "engine/8": ("engine", {"rows": 8}),
    "engine/16": ("engine", {"rows": 16}),
    "draft-step/1": ("draft-step", {}),
}


class Steps(Protocol):
    """Shows progress; see `nacre.cli.output.Steps`."""

    def step(self, text: str, total: int | None = None) -> AbstractContextManager[Callable[[int], None]]: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run, and with which models."""

    scenarios: tuple[Scenario, ...]
    baselines: dict[str, tuple[Baseline, ...]]  # by scenario
    rig: RigOptions
    seed: int = 1
    load: LoadOptions = LoadOptions()  # noqa: RUF009  a frozen value
    rows: tuple[Row, ...] = ()  # what is told of the figures in the end
    timelines: bool = False

    def identity(self) -> dict[str, Any]:
        """What must be equal for figures to compare."""
        kinds = sorted({kind for scenario in self.scenarios for kind in scenario.text})
        return {
            **source_state(),
            "machine": machine(),
            "scenarios": [asdict(scenario) for scenario in self.scenarios],
            "baselines": {name: [asdict(item) for item in items] for name, items in self.baselines.items()},
            "rig": asdict(self.rig) | {key: Path(getattr(self.rig, key)).name for key in ("target", "draft", "base")},
            "seed": self.seed,
            "load": asdict(self.load),
            "versions": versions(),
            "prompts": hashlib.sha256(json.dumps([_texts(1, kind) for kind in kinds]).encode()).hexdigest()[:12],
        }


@dataclass(slots=True)
class Prompts:
    """Token ids of the measured prompts and of those for warming up."""

    measured: list[tuple[int, ...]]
    warm_ups: list[tuple[int, ...]]
    vocab_size: int


class Bench:
    """Runs a plan on a rig, into results that may hold part of it already."""

    def __init__(self, plan: Plan, runners: Runners, results: Results, steps: Steps) -> None:
        self.plan = plan
        self.runners = runners
        self.rig = runners.rig
        self.results = results
        self.steps = steps

    async def run(self) -> None:
        """Raises NacreError; what is measured by then is saved. Texts that differ are an Internal error."""
        try:
            for scenario in self.plan.scenarios:
                await self._kind(scenario.kind)(scenario)
            self.results.finished = now()
        finally:
            self.results.memory_mb |= self.rig.peak_memory_mb()
            took_s = self.results.took_s
            took_s[STARTS] = round(took_s.get(STARTS, 0.0) + self.rig.starting_s, 3)
            self.results.save()  # whatever becomes of the figures, what was measured is kept
            self.results.summary = summary(self.results)
            if self.plan.rows:
                self.results.summary["rows"] = judged(self.plan.rows, self.results)
            self.results.save()

    def _kind(self, name: str) -> Callable[[Scenario], Awaitable[None]]:
        others = {"throughput": self._throughput, "micro": self._micro, "drafters": self._drafters}
        return others.get(name, self._latency)

    @contextmanager
    def _step(self, title: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        with self.results.timed(title), self.steps.step(title, total=total) as advance:
            yield advance

    async def _latency(self, scenario: Scenario) -> None:
        baselines = self.plan.baselines[scenario.name]
        for temperature in scenario.temperature:
            for rtt_ms in scenario.rtt_ms:
                here = [b for b in baselines if rtt_ms == 0 or b.needs_wire]
                await self._cell(scenario, here, rtt_ms, temperature)
                if self.plan.timelines:
                    await self._timeline(scenario, here, rtt_ms, temperature)
        if trace.TEMPERATURE in scenario.temperature and self._is_predicted(scenario):
            await self._traces(scenario)

    def _is_predicted(self, scenario: Scenario) -> bool:
        """Whether the simulator is held against it, and so needs what is guessed along its texts."""
        return any(baseline.name == "nacre" for baseline in self.plan.baselines[scenario.name])

    async def _traces(self, scenario: Scenario) -> None:
        """What the draft model guesses along the texts of this very run, for the simulator to replay."""
        cell = (scenario.name, REFERENCE, scenario.rtt_ms[0], trace.TEMPERATURE)
        texts = [s for s in self.results.samples.values() if (s.scenario, s.baseline, s.rtt_ms, s.temperature) == cell]
        missing = [s for s in texts if trace.kept_as(s.scenario, s.seed, s.prompt) not in self.results.kept]
        if not missing:
            return
        prompts = await self._prompts(scenario)
        pass_times = (await self._any_served()).model.pass_times
        self.results.keep(trace.pass_times_kept_as(scenario.name), [(point.rows, point.ms) for point in pass_times])
        with self._step(f"{scenario.name}: what is guessed along these texts", total=len(missing)) as advance:
            for sample in missing:
                await self._trace(scenario, sample.seed, sample.prompt, prompts.measured[sample.prompt], sample.tokens)
                advance(1)

    async def _trace(
        self, scenario: Scenario, seed: int, prompt: int, context: Sequence[int], output: Sequence[int]
    ) -> None:
        jobs = await self.runners.yardsticks()
        job = {
            "way": "trace",
            "prompt": context,
            "output": output,
            "temperature": trace.TEMPERATURE,
            "seed": self._seed(prompt, seed),
        }
        self.results.keep(trace.kept_as(scenario.name, seed, prompt), (await jobs.do(job))["places"])

    async def _timeline(
        self, scenario: Scenario, baselines: Sequence[Baseline], rtt_ms: float, temperature: float
    ) -> None:
        """One more generation of each baseline with drafters, watched closely: when everything happened."""
        prompts = await self._prompts(scenario)
        for baseline in baselines:
            name = f"timeline/{scenario.name}/{baseline.name}/{rtt_ms:g}/{temperature:g}"
            if baseline.kind != "nacre" or baseline.drafter is None or name in self.results.kept:
                continue
            told = await self.runners.generate(
                baseline,
                prompts.measured[0],
                tokens=scenario.tokens,
                temperature=temperature,
                seed=self._seed(0, 1),
                rtt_ms=rtt_ms,
                closely=True,
            )
            self.results.keep(name, [span.as_dict() for span in timeline(told, rtt_ms)])

    async def _throughput(self, scenario: Scenario) -> None:
        for temperature in scenario.temperature:
            for rtt_ms in scenario.rtt_ms:
                for sessions in scenario.sessions:
                    await self._loads(scenario, rtt_ms, temperature, sessions)

    async def _loads(self, scenario: Scenario, rtt_ms: float, temperature: float, sessions: int) -> None:
        def key(baseline: Baseline, repeat: int) -> str:
            return f"load/{scenario.name}/{temperature:g}/{rtt_ms:g}/{sessions}/{baseline.name}/{repeat}"

        wanted = [
            (baseline, repeat)
            for repeat in scenario.seeds_at(temperature)
            for baseline in _rotated(self.plan.baselines[scenario.name], repeat)
            if key(baseline, repeat) not in self.results.kept
        ]
        if not wanted:
            return
        options = self.plan.load
        count = (options.requests or 4 * sessions) if options.request_rate > 0 else sessions
        prompts = (await self._prompts(replace(scenario, prompts=PROMPT_SET - KEPT_FOR_WARMING))).measured
        title = f"{scenario.name}: {sessions} sessions, {rtt_ms:g} ms, T = {temperature:g}"
        with self._step(title, total=len(wanted)) as advance:
            for baseline, repeat in wanted:
                load = await run_load(
                    self.runners,
                    baseline,
                    [prompts[index % len(prompts)] for index in range(count)],
                    [self._seed(index, repeat) for index in range(count)],
                    tokens=scenario.tokens,
                    temperature=temperature,
                    rtt_ms=rtt_ms,
                    sessions=sessions,
                    repeat=repeat,
                    options=options,
                )
                if baseline.name == REFERENCE and temperature == trace.TEMPERATURE and self._is_predicted(scenario):
                    for request, text in enumerate(load.texts):
                        if trace.kept_as(scenario.name, repeat, request) not in self.results.kept:
                            await self._trace(scenario, repeat, request, prompts[request % len(prompts)], text)
                self.results.keep(key(baseline, repeat), {"scenario": scenario.name, **load.as_dict()})
                check_texts(self.results.with_prefix(f"load/{scenario.name}/"), REFERENCE)
                advance(1)

    async def _drafters(self, scenario: Scenario) -> None:
        """Every method along real generations in one process, then end to end."""
        cells = missing_cells(scenario, self.results)
        if cells:
            prompts = (await self._prompts(scenario)).measured
            jobs = await self.runners.yardsticks()
            options = self.rig.options
            with self._step(f"{scenario.name}: what guesses are worth", total=len(cells)) as advance:
                target = options.base or options.target
                await measure(cells, scenario, target, prompts, self._seed, jobs, self.results, advance)
        await self._latency(scenario)

    async def _micro(self, scenario: Scenario) -> None:
        missing = {name: job for name, job in MICRO.items() if f"micro/{name}" not in self.results.kept}
        with self._step(f"{scenario.name}: beside transformers", total=len(missing)) as advance:
            for name, (way, settings) in missing.items():
                jobs = await self.runners.yardsticks()
                self.results.keep(f"micro/{name}", await jobs.do({"way": way, "settings": settings}))
                advance(1)

    async def _cell(self, scenario: Scenario, baselines: Sequence[Baseline], rtt_ms: float, temperature: float) -> None:
        wanted = [
            (baseline, prompt, seed)
            for seed in scenario.seeds_at(temperature)
            for prompt in range(scenario.prompts)
            # In turns, and not always in the same order.
            for baseline in _rotated(baselines, prompt + seed)
        ]
        missing = [
            item
            for item in wanted
            if (scenario.name, item[0].name, rtt_ms, temperature, item[1], item[2]) not in self.results.samples
        ]
        if scenario.kind == "drafters":
            missing = from_the_first(wanted, missing)
        if not missing:
            return
        title = f"{scenario.name}: {rtt_ms:g} ms, T = {temperature:g}"
        prompts = await self._prompts(scenario)
        settings: dict[str, Settings] = {}

        def expected(prompt: int, seed: int) -> tuple[int, ...]:
            # The reference has its turn first.
            answer = self.results.samples[scenario.name, REFERENCE, rtt_ms, temperature, prompt, seed]
            return expected_answer(answer.tokens, prompts.vocab_size)

        with self._step(f"{title}, warming up and tuning"):
            needed = {baseline.name for baseline, _, _ in missing}
            for baseline in (baseline for baseline in baselines if baseline.name in needed):
                settings[baseline.name] = await warmed_up(
                    self.runners,
                    self.results,
                    scenario,
                    baseline,
                    prompts.warm_ups[: scenario.warm_ups],
                    [self._seed(PROMPT_SET + number, 0) for number in range(scenario.warm_ups)],
                    temperature=temperature,
                    rtt_ms=rtt_ms,
                )
        with self._step(title, total=len(missing)) as advance:
            for baseline, prompt, seed in missing:
                told = await self.runners.generate(
                    baseline,
                    prompts.measured[prompt],
                    tokens=scenario.tokens,
                    temperature=temperature,
                    seed=self._seed(prompt, seed),
                    rtt_ms=rtt_ms,
                    settings=settings[baseline.name],
                    tenant=tenant_of(scenario, baseline, rtt_ms, temperature, seed),
                    prediction=expected(prompt, seed) if baseline.predicts else (),
                )
                sample = Sample(
                    scenario=scenario.name,
                    baseline=baseline.name,
                    rtt_ms=rtt_ms,
                    temperature=temperature,
                    prompt=prompt,
                    seed=seed,
                    tokens=told.tokens,
                    arrivals_ms=told.arrivals_ms,
                    arrival_tokens=tuple(told.arrival_tokens),
                    counts=told.counts,
                    settings=settings[baseline.name],
                    pass_rows=tuple(commit.rows for commit in told.commits),
                    pass_ms=tuple(round(commit.verify_ms, 3) for commit in told.commits),
                )
                if baseline.exact:
                    self.results.check_fingerprint(told.fingerprint)
                    self.results.check_text(sample, REFERENCE)
                self.results.add(sample)
                advance(1)

    def _seed(self, prompt: int, seed: int) -> int:
        return (self.plan.seed * 1_000_003 + seed) * 1_000_003 + prompt

    async def _prompts(self, scenario: Scenario) -> Prompts:
        served = await self._any_served()
        texts = _texts(scenario.prompts, scenario.text[0])
        encoded = [tuple(served.vocabulary.encode(text, add_special_tokens=True)) for text in texts]
        longest = max(map(len, encoded))
        room = served.model.max_positions - longest
        if scenario.tokens > room:
            raise InvalidArgument(
                f"tokens is {scenario.tokens}; after prompts of up to {longest} tokens the target has room for {room}"
            )
        return Prompts(encoded[: scenario.prompts], encoded[-KEPT_FOR_WARMING:], served.model.vocab_size)

    async def _any_served(self) -> Served:
        with self._step("reading the prompts"):
            return await self.rig.served(await self.rig.verifier({}))


@lru_cache(maxsize=8)
def _texts(prompts: int, text: str) -> list[str]:
    return held_out_prompts(max(PROMPT_SET, prompts + KEPT_FOR_WARMING), text=text)


def _rotated(baselines: Sequence[Baseline], turn: int) -> list[Baseline]:
    """The reference first, so that texts can be checked at once; the others in another order each turn."""
    first = [baseline for baseline in baselines if baseline.name == REFERENCE]
    rest = [baseline for baseline in baselines if baseline.name != REFERENCE]
    turn %= max(1, len(rest))
    return [*first, *rest[turn:], *rest[:turn]]
