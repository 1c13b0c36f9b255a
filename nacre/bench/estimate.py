"""How long a run will take, told before it starts: what the bundled pair takes on two cores of a 2.5 GHz server.

A guess to plan a day by; every figure in here is replaced by what the run measures (`took_s` in its results).
"""

from __future__ import annotations

from collections.abc import Sequence

from nacre.bench.baselines import Baseline
from nacre.bench.drafters import cells_of
from nacre.bench.scenarios import Scenario
from nacre.bench.tuning import WARM_UP_TOKENS, first_settings
from nacre.drafting import needs_model

#: Seconds: a process until it is ready, a prompt until its first token, a verify pass; and before and after it all.
START_S, READ_S, PASS_S, AROUND_S = 8.5, 0.55, 0.032, 20.0
#: From one sample's last token to the next one's request: farewells, counts, a share of the writing of results.
BETWEEN_S = 0.1
#: A drafter without a model until it is ready.
START_LIGHT_S = 2.5
#: Seconds a token of transformers' ways to generate.
TRANSFORMERS_S = {"plain": 0.067, "assisted": 0.053, "lookup": 0.077}
#: A round of a lock-step client at its best length: seconds without a network, and tokens.
ROUND_S, ROUND_TOKENS = 0.053, 4.4
#: Tokens a pass of Nacre without a network, how many fewer per second of round trip, and at least.
NACRE_TOKENS, NACRE_LOST, NACRE_LEAST = 2.9, 8.0, 1.2
#: A token while settings are searched costs so much more than with the best ones.
SEARCHED = 1.5
#: Drafters whose guesses are never right.
USELESS = ("random", "silent")
#: Many sessions: tokens a second at most, and the number of sessions that gives half of it.
MOST_TOKENS_PER_S, HALF_SESSIONS = 300.0, 8
MICRO_S, BATCHING_S = 35.0, 25.0
#: Tokens a pass with a method that needs no model.
TABLE_TOKENS = 1.3
#: Methods followed in one process: a prompt read by the small target, a token written, and more of it with a model.
TRACE_READ_S, TRACE_TOKEN_S, TRACE_MODEL_S = 0.05, 0.006, 0.006


def estimated_s(scenarios: Sequence[Scenario], baselines: dict[str, tuple[Baseline, ...]]) -> float:
    """Seconds for all scenarios. `baselines` are by scenario."""
    used = [baseline for scenario in scenarios for baseline in baselines[scenario.name]]
    verifiers = {(str(b.verifier), b.without, b.kind) for b in used if b.kind != "transformers"}
    drafters = {str(b.drafter): _start_s(b) for b in used if b.drafter is not None}
    others = {b.kind for b in used if b.kind != "nacre"}
    starts_s = START_S * (len(verifiers) + len(others)) + sum(drafters.values())
    return AROUND_S + starts_s + sum(_scenario_s(scenario, baselines[scenario.name]) for scenario in scenarios)


def _scenario_s(scenario: Scenario, baselines: Sequence[Baseline]) -> float:
    if scenario.kind == "micro":
        return MICRO_S
    if scenario.kind == "throughput":
        return _loads_s(scenario, baselines)
    seconds = _traces_s(scenario)
    for temperature in scenario.temperature:
        samples = scenario.prompts * len(scenario.seeds_at(temperature))
        for rtt_ms in scenario.rtt_ms:
            for baseline in baselines:
                if rtt_ms == 0 or baseline.needs_wire:
                    one_s = BETWEEN_S + READ_S + rtt_ms / 1e3 + scenario.tokens * _token_s(baseline, rtt_ms / 1e3)
                    seconds += samples * one_s + scenario.warm_ups * _warm_up_s(scenario, baseline, rtt_ms / 1e3)
    return seconds


def _start_s(baseline: Baseline) -> float:
    return START_S if _drafts_with_model(baseline) else START_LIGHT_S


def _drafts_with_model(baseline: Baseline) -> bool:
    return baseline.drafter is not None and needs_model(baseline.drafter.get("method", "model"))


def _traces_s(scenario: Scenario) -> float:
    """Methods followed in one process; and the target once more."""
    seconds = START_S if scenario.methods else 0.0
    for cell in cells_of(scenario):
        token_s = TRACE_TOKEN_S + (TRACE_MODEL_S if needs_model(cell.method) else 0.0)
        seconds += scenario.prompts * (TRACE_READ_S + scenario.tokens * token_s)
    return seconds


def _warm_up_s(scenario: Scenario, baseline: Baseline, rtt_s: float) -> float:
    token_s = _token_s(baseline, rtt_s)
    settings = len(first_settings(baseline))
    if settings:  # the neighbours of the best, and itself again; not the least
        settings += 2
    read_s = READ_S if baseline.kind == "transformers" else 0.0  # the verifiers know the prompt
    tried_s = read_s + rtt_s + scenario.tune_tokens * token_s * SEARCHED
    return read_s + WARM_UP_TOKENS * token_s + settings * tried_s


def _token_s(baseline: Baseline, rtt_s: float) -> float:
    if baseline.kind == "transformers":
        return TRANSFORMERS_S.get(baseline.way, PASS_S)
    if baseline.kind == "lockstep":
        return (ROUND_S + rtt_s) / ROUND_TOKENS
    if baseline.drafter is None or baseline.drafter.get("method") in USELESS:
        return PASS_S
    if not _drafts_with_model(baseline):
        return PASS_S / TABLE_TOKENS
    return PASS_S / max(NACRE_LEAST, NACRE_TOKENS - NACRE_LOST * rtt_s)


def _loads_s(scenario: Scenario, baselines: Sequence[Baseline]) -> float:
    seconds = READ_S * max(scenario.sessions)
    for temperature in scenario.temperature:
        repeats = len(scenario.seeds_at(temperature)) * len(scenario.rtt_ms)
        for sessions in scenario.sessions:
            rate = MOST_TOKENS_PER_S * sessions / (sessions + HALF_SESSIONS)
            for baseline in baselines:
                extra_s = BATCHING_S if baseline.way == "batching" else 0.0
                seconds += repeats * (extra_s + sessions * (scenario.tokens / rate + 2 * PASS_S))
    return seconds
