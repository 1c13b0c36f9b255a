"""A run: every baseline of every scenario, prompt by prompt in turns, so that what the machine does falls on all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from nacre.bench.baselines import REFERENCE, Baseline
from nacre.bench.one_session import Asked, Told, generate
from nacre.bench.results import Results, now, source_state, versions
from nacre.bench.rig import Rig, RigOptions, Served, until_idle
from nacre.bench.samples import Sample, figures, ratio
from nacre.bench.scenarios import Scenario
from nacre.errors import InvalidArgument
from nacre.models import held_out_prompts

#: Prompts are taken from a fixed set, so that more of them are the same ones and others; the last are for warming up.
PROMPT_SET, KEPT_FOR_WARMING = 64, 8
WARM_UP_TOKENS = 24


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

    def identity(self) -> dict[str, Any]:
        """What must be equal for figures to compare."""
        return {
            **source_state(),
            "scenarios": [asdict(scenario) for scenario in self.scenarios],
            "baselines": {name: [asdict(item) for item in items] for name, items in self.baselines.items()},
            "rig": {**asdict(self.rig), "target": Path(self.rig.target).name, "draft": Path(self.rig.draft).name},
            "seed": self.seed,
            "versions": versions(),
            "prompts": hashlib.sha256(json.dumps(_texts(1)).encode()).hexdigest()[:12],
        }


@dataclass(slots=True)
class Prompts:
    """Token ids of the measured prompts and of those for warming up."""

    measured: list[tuple[int, ...]]
    warm_ups: list[tuple[int, ...]]


class Bench:
    """Runs a plan on a rig, into results that may hold part of it already."""

    def __init__(self, plan: Plan, rig: Rig, results: Results, steps: Steps) -> None:
        self.plan = plan
        self.rig = rig
        self.results = results
        self.steps = steps
        self._calls = 0

    async def run(self) -> None:
        """Raises NacreError; what is measured by then is saved. Texts that differ are an Internal error."""
        try:
            for scenario in self.plan.scenarios:
                await self._latency(scenario)
            self.results.finished = now()
        finally:
            self.results.memory_mb |= self.rig.peak_memory_mb()
            self.results.summary = summary(self.plan, self.results)
            self.results.save()

    async def _latency(self, scenario: Scenario) -> None:
        baselines = self.plan.baselines[scenario.name]
        for temperature in scenario.temperature:
            for rtt_ms in scenario.rtt_ms:
                here = [b for b in baselines if b.needs_wire or rtt_ms == 0]
                await self._cell(scenario, here, rtt_ms, temperature)

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
        if not missing:
            return
        title = f"{scenario.name}: {rtt_ms:g} ms, T = {temperature:g}"
        prompts = await self._prompts(scenario)
        with self.steps.step(f"{title}, warming up"):
            for baseline in baselines:
                for warm_up in prompts.warm_ups[: scenario.warm_ups]:
                    await self._generate(baseline, warm_up, WARM_UP_TOKENS, temperature, 0, rtt_ms)
        with self.steps.step(title, total=len(missing)) as advance:
            for baseline, prompt, seed in missing:
                told = await self._generate(
                    baseline, prompts.measured[prompt], scenario.tokens, temperature, self._seed(prompt, seed), rtt_ms
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
                )
                if baseline.exact:
                    self.results.check_text(sample, REFERENCE)
                self.results.add(sample)
                advance(1)

    async def _generate(
        self, baseline: Baseline, prompt: tuple[int, ...], tokens: int, temperature: float, seed: int, rtt_ms: float
    ) -> Told:
        self._calls += 1
        address = await self.rig.verifier(baseline.verifier)
        served = await self.rig.served(address)
        wire = await self.rig.wire(address, rtt_ms)
        drafter = await self.rig.drafter(baseline.drafter) if baseline.drafter is not None else None
        asked = Asked(prompt, tokens, temperature, seed, f"bench-{self._calls}", baseline.mode)
        told = await generate(self.rig, asked, wire, served, drafter=drafter)
        await until_idle()
        self.results.check_fingerprint(told.fingerprint)
        return told

    def _seed(self, prompt: int, seed: int) -> int:
        return (self.plan.seed * 1_000_003 + seed) * 1_000_003 + prompt

    async def _prompts(self, scenario: Scenario) -> Prompts:
        served = await self._any_served()
        texts = _texts(scenario.prompts)
        encoded = [tuple(served.vocabulary.encode(text, add_special_tokens=True)) for text in texts]
        longest = max(map(len, encoded))
        room = served.model.max_positions - longest
        if scenario.tokens > room:
            raise InvalidArgument(
                f"tokens is {scenario.tokens}; after prompts of up to {longest} tokens the target has room for {room}"
            )
        return Prompts(encoded[: scenario.prompts], encoded[-KEPT_FOR_WARMING:])

    async def _any_served(self) -> Served:
        with self.steps.step("starting the verifier"):
            return await self.rig.served(await self.rig.verifier({}))


def summary(plan: Plan, results: Results) -> dict[str, Any]:
    """Per scenario, temperature, RTT and baseline: metrics, and the speed-up over the reference in the same cell."""
    cells = []
    for scenario in plan.scenarios:
        for temperature in scenario.temperature:
            for rtt_ms in scenario.rtt_ms:
                here = [
                    sample
                    for sample in results.samples.values()
                    if (sample.scenario, sample.temperature, sample.rtt_ms) == (scenario.name, temperature, rtt_ms)
                ]
                reference = [sample for sample in here if sample.baseline == REFERENCE]
                for baseline in plan.baselines[scenario.name]:
                    samples = [sample for sample in here if sample.baseline == baseline.name]
                    if not samples:
                        continue
                    faster = ratio(samples, reference)
                    cells.append(
                        {
                            "scenario": scenario.name,
                            "temperature": temperature,
                            "rtt_ms": rtt_ms,
                            "baseline": baseline.name,
                            "samples": len(samples),
                            "speedup": asdict(faster) if faster else None,
                            "settings": dict(samples[-1].settings),
                            **figures(samples),
                        }
                    )
    return {"cells": cells}


def _texts(prompts: int) -> list[str]:
    return held_out_prompts(max(PROMPT_SET, prompts + KEPT_FOR_WARMING))


def _rotated(baselines: Sequence[Baseline], turn: int) -> list[Baseline]:
    """The reference first, so that texts can be checked at once; the others in another order each turn."""
    first = [baseline for baseline in baselines if baseline.name == REFERENCE]
    rest = [baseline for baseline in baselines if baseline.name != REFERENCE]
    turn %= max(1, len(rest))
    return [*first, *rest[turn:], *rest[:turn]]
