"""A world as data: build it, run it to the end, count.

`run_scenario` checks every invariant while it runs and, at the end, that every session finished in bounded virtual
time, that every verifier has freed what it held, and that a healthy verifier never stood still.
"""

from __future__ import annotations

from dataclasses import dataclass

from nacre.session import FinishReason, VerifierSession
from nacre.sim.actors import DrafterSpec, OwnerActor, SessionSpec
from nacre.sim.checkers import VerifierChecks, require
from nacre.sim.drafters import DrafterActor, DraftWorker
from nacre.sim.hosted import PassTime, Tally, VerifierSpec
from nacre.sim.malice import MaliciousDrafter
from nacre.sim.target import DialledProposer, ToyTarget
from nacre.sim.verifier import VerifierActor
from nacre.sim.world import World

__all__ = ["DrafterSpec", "Outcome", "Scenario", "SessionOutcome", "SessionSpec", "VerifierSpec", "run_scenario"]


@dataclass(frozen=True, slots=True)
class Scenario:
    seed: int
    verifiers: tuple[VerifierSpec, ...]
    sessions: tuple[SessionSpec, ...]
    vocab_size: int = 16


@dataclass(frozen=True, slots=True)
class SessionOutcome:
    """How one session ended. `seconds` from open to end at the owner; `tallies` one per verifier that ran it."""

    tokens: tuple[int, ...]
    finished: FinishReason | None
    seconds: float | None
    tallies: tuple[Tally, ...]

    @property
    def passes(self) -> int:
        return sum(tally.passes for tally in self.tallies)


@dataclass(frozen=True, slots=True)
class Outcome:
    sessions: tuple[SessionOutcome, ...]
    events: int
    seconds: float


def run_scenario(scenario: Scenario, *, record: list[str] | None = None, checked: bool = True) -> Outcome:
    """Runs to the end. Raises Violation or Stuck if an invariant breaks; `record` collects a transcript."""
    world = World(scenario.seed, record)
    target = ToyTarget(world.dice.child(9).key, scenario.vocab_size)
    prompts = {f"s{index}": spec.prompt for index, spec in enumerate(scenario.sessions)}
    references = {
        f"s{index}": target.reference(spec.prompt, spec.max_tokens, spec.stop_ids)
        for index, spec in enumerate(scenario.sessions)
    }

    def watch(name: str, session: VerifierSession) -> VerifierChecks | None:
        return VerifierChecks(session, prompts[name], references[name]) if checked else None

    verifiers = [
        VerifierActor(world, f"verifier{index}", spec, target, watch) for index, spec in enumerate(scenario.verifiers)
    ]
    owners: list[OwnerActor] = []
    for index, spec in enumerate(scenario.sessions):
        owner = OwnerActor(world, f"owner{index}", spec, verifiers, f"s{index}", references[f"s{index}"])
        for number, drafter in enumerate(spec.drafters):
            owner.drafters.append(_drafter(world, f"drafter{index}.{number}", drafter, target, checked))
        owners.append(owner)
    longest_s = time_bound_s(scenario)
    silent = world.run(until_s=longest_s, max_events=2_000_000)
    for owner in owners:
        require(owner.done, "lively", f"{owner.name} has {len(owner.tokens)} tokens after {longest_s:.1f} s")
    if silent:
        for verifier in verifiers:
            require(not verifier.hosted, "memory", f"{verifier.name} still holds {list(verifier.hosted)}")
    return Outcome(tuple(_outcome(owner, verifiers) for owner in owners), world.events, world.now_s)


def time_bound_s(scenario: Scenario) -> float:
    """By when every session must have ended: plain decoding of everything, one after the other, plus its bad luck."""
    slowest_s = max(spec.pass_time(spec.row_budget) for spec in scenario.verifiers)
    least_luck = min(1.0 - spec.failed_pass for spec in scenario.verifiers)
    rounds = max(-(-len(scenario.sessions) // spec.row_budget) for spec in scenario.verifiers)
    longest_s = 0.0
    for spec in scenario.sessions:
        faults = 1 + len(spec.cut_at_s) + sum(verifier.crash_at_s is not None for verifier in scenario.verifiers)
        round_trip_s = 2 * (spec.link.delay_s + spec.link.jitter_s)
        # Every fault costs at most the work since the last commit that got through, and some trips to come back.
        passes = (spec.max_tokens + 2 * faults) / least_luck + 20 * (least_luck < 1.0)
        here_s = (
            spec.starts_at_s
            + passes * rounds * slowest_s
            + faults * 8 * (round_trip_s + OwnerActor.retry_s + OwnerActor.notice_s)
        )
        longest_s = max(longest_s, here_s, *spec.cut_at_s, spec.cancel_at_s or 0.0, spec.gone_at_s or 0.0)
    latest_fault_s = max((spec.crash_at_s or 0.0 for spec in scenario.verifiers), default=0.0)
    return longest_s + latest_fault_s + 2 * max(spec.grace_s for spec in scenario.verifiers)


def _drafter(
    world: World, name: str, spec: DrafterSpec, target: ToyTarget, checked: bool
) -> DrafterActor | MaliciousDrafter:
    if spec.kind != "honest":
        return MaliciousDrafter(world, name, spec, target)
    key = world.dice.child(5, spec.model).key
    proposer = DialledProposer(target, key=key, acceptance=spec.acceptance, batch=spec.batch, reach=spec.reach)
    worker = DraftWorker(world, proposer, PassTime(((1, spec.step_s),)), batch=spec.batch)
    return DrafterActor(world, name, spec, worker, checked=checked)


def _outcome(owner: OwnerActor, verifiers: list[VerifierActor]) -> SessionOutcome:
    tallies = tuple(tally for verifier in verifiers for tally in verifier.tallies.get(owner.session, ()))
    seconds = None if owner.finished_at_s is None else owner.finished_at_s - owner.spec.starts_at_s
    return SessionOutcome(tuple(owner.tokens), owner.finished, seconds, tallies)
