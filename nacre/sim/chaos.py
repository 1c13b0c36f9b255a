"""Random worlds by seed: machines, networks, drafters good and evil, and every fault that the protocol promises to bear.

Rule: the seed is the whole world. Sizes are small on purpose: little vocabularies and windows make guesses collide,
arrive late and overflow far more often than real ones would.
"""

from __future__ import annotations

from nacre.session import DrafterLimits, SessionLimits
from nacre.sim.actors import DrafterSpec, SessionSpec
from nacre.sim.dice import Dice, mix
from nacre.sim.malice import MALICES
from nacre.sim.network import LinkSpec
from nacre.sim.scenario import Scenario
from nacre.sim.verifier import PassTime, VerifierSpec

_LARGEST_PROMPT = 6
_LARGEST_OUTPUT = 40


def random_scenario(seed: int) -> Scenario:
    dice = Dice(mix(seed, 77))
    vocab_size = dice.pick((3, 5, 16, 64))
    verifiers = tuple(_verifier(dice) for _ in range(dice.pick((1, 1, 2, 3))))
    # A pass of 1.5 tokens or so: most faults strike while the text is being written.
    busy_s = _LARGEST_OUTPUT / 2 * max(spec.pass_time(spec.row_budget) for spec in verifiers) / 1.5
    if len(verifiers) > 1:  # the last one is healthy: somewhere the text can be finished
        verifiers = (*(_mortal(spec, dice, busy_s) for spec in verifiers[:-1]), verifiers[-1])
    sessions = tuple(_session(dice, vocab_size, busy_s) for _ in range(1 + dice.below(3)))
    return Scenario(seed, verifiers, sessions, vocab_size)


def _verifier(dice: Dice) -> VerifierSpec:
    base_s = dice.pick((0.004, 0.01, 0.03))
    return VerifierSpec(
        row_budget=dice.pick((1, 2, 4, 8, 16)),
        pass_time=PassTime(((1, base_s), (16, base_s * dice.between(1.0, 2.0)))),
        limits=SessionLimits(window_nodes=dice.pick((1, 2, 4, 8, 24)), max_streams=dice.pick((1, 2, 4))),
        grace_s=dice.between(0.02, 0.3),
        failed_pass=dice.pick((0.0, 0.0, 0.05)),
    )


def _mortal(spec: VerifierSpec, dice: Dice, busy_s: float) -> VerifierSpec:
    return VerifierSpec(
        row_budget=spec.row_budget,
        pass_time=spec.pass_time,
        limits=spec.limits,
        grace_s=spec.grace_s,
        failed_pass=spec.failed_pass,
        crash_at_s=dice.between(0.0, busy_s) if dice.chance(0.6) else None,
    )


def _session(dice: Dice, vocab_size: int, busy_s: float) -> SessionSpec:
    return SessionSpec(
        prompt=tuple(dice.below(vocab_size) for _ in range(1 + dice.below(_LARGEST_PROMPT))),
        max_tokens=1 + dice.below(_LARGEST_OUTPUT),
        stop_ids=frozenset({dice.below(vocab_size)}) if dice.chance(0.3) else frozenset(),
        keep_choices=dice.chance(0.3),
        drafters=tuple(_drafter(dice, busy_s) for _ in range(dice.pick((0, 1, 1, 2, 3)))),
        link=_link(dice),
        starts_at_s=dice.between(0.0, 0.1),
        cut_at_s=tuple(dice.between(0.0, busy_s) for _ in range(dice.pick((0, 0, 1, 3)))),
        cancel_at_s=dice.between(0.0, busy_s) if dice.chance(0.1) else None,
        gone_at_s=dice.between(0.0, busy_s) if dice.chance(0.05) else None,
    )


def _drafter(dice: Dice, busy_s: float) -> DrafterSpec:
    evil = dice.chance(0.35)
    likely = dice.between(0.2, 1.0)
    acceptance = dice.pick(((likely,), (1.0,), (likely, likely + (1 - likely) / 2), (0.5, 0.75, 0.9, 1.0)))
    return DrafterSpec(
        kind=dice.pick((*MALICES, "any")) if evil else "honest",
        acceptance=acceptance,
        step_s=dice.pick((0.0005, 0.002, 0.01)),
        batch=dice.pick((1, 1, 4)),
        reach=dice.pick((1, 1, 3)),
        model=dice.below(2),
        limits=DrafterLimits(window_nodes=dice.pick((1, 4, 16, 64)), nodes_per_draft=dice.pick((1, 3, 64))),
        link=_link(dice),
        starts_at_s=dice.between(0.0, 0.2) if dice.chance(0.3) else 0.0,
        cut_at_s=tuple(dice.between(0.0, busy_s) for _ in range(dice.pick((0, 0, 1, 2)))),
    )


def _link(dice: Dice) -> LinkSpec:
    delay_s = dice.pick((0.0, 0.0005, 0.005, 0.04))
    return LinkSpec(delay_s, jitter_s=dice.pick((0.0, delay_s, 0.01)))
