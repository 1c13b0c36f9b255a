"""Random worlds by seed: machines, networks, drafters good and evil, and every fault that the protocol must bear.

Rule: the seed is the whole world. Sizes are small on purpose: little vocabularies and windows make guesses collide,
arrive late and overflow far more often than real ones would. In some worlds the weather is fair (short links, room
for large trees), so that deep guesses come true as well.
"""

from __future__ import annotations

from dataclasses import replace

from nacre.session import DrafterLimits, SessionLimits
from nacre.sim.actors import DrafterSpec, SessionSpec
from nacre.sim.dice import Dice, mix
from nacre.sim.malice import MALICES
from nacre.sim.network import LinkSpec
from nacre.sim.scenario import Scenario
from nacre.sim.verifier import PassTime, VerifierSpec

_LARGEST_PROMPT = 6
_LARGEST_OUTPUT = 48


def random_scenario(seed: int) -> Scenario:
    dice = Dice(mix(seed, 77))
    fair = dice.chance(0.4)
    vocab_size = dice.pick((3, 5, 16, 64))
    verifiers = tuple(_verifier(dice, fair) for _ in range(dice.pick((1, 1, 2, 3))))
    # At about 1.5 tokens a pass: most faults strike while the text is being written.
    busy_s = _LARGEST_OUTPUT / 3 * max(spec.pass_time(spec.row_budget) for spec in verifiers)
    # The last verifier stays healthy: somewhere the text can be finished.
    mortal = (
        replace(spec, crash_at_s=dice.between(0.0, busy_s)) if dice.chance(0.6) else spec for spec in verifiers[:-1]
    )
    sessions = tuple(_session(dice, fair, vocab_size, busy_s) for _ in range(1 + dice.below(3)))
    return Scenario(seed, (*mortal, verifiers[-1]), sessions, vocab_size)


def _verifier(dice: Dice, fair: bool) -> VerifierSpec:
    base_s = dice.pick((0.005, 0.02, 0.03))
    window_nodes = dice.pick((16, 32) if fair else (1, 3, 8, 16))
    return VerifierSpec(
        row_budget=dice.pick((8, 24) if fair else (1, 3, 8, 16)),
        pass_time=PassTime(((1, base_s), (16, base_s * dice.between(1.0, 2.0)))),
        limits=SessionLimits(window_nodes=window_nodes, max_streams=dice.pick((1, 2, 4))),
        grace_s=dice.between(0.02, 0.3),
        failed_pass=dice.pick((0.0, 0.0, 0.05)),
    )


def _session(dice: Dice, fair: bool, vocab_size: int, busy_s: float) -> SessionSpec:
    return SessionSpec(
        prompt=tuple(dice.below(vocab_size) for _ in range(1 + dice.below(_LARGEST_PROMPT))),
        max_tokens=1 + dice.below(_LARGEST_OUTPUT),
        stop_ids=frozenset({dice.below(vocab_size)}) if dice.chance(0.25) else frozenset(),
        keep_choices=dice.chance(0.3),
        drafters=tuple(_drafter(dice, fair, busy_s) for _ in range(dice.pick((0, 1, 1, 2, 3)))),
        link=_link(dice, fair),
        starts_at_s=dice.between(0.0, 0.1),
        cut_at_s=tuple(dice.between(0.0, busy_s) for _ in range(dice.pick((0, 0, 1, 3)))),
        cancel_at_s=dice.between(0.0, busy_s) if dice.chance(0.1) else None,
        gone_at_s=dice.between(0.0, busy_s) if dice.chance(0.05) else None,
    )


def _drafter(dice: Dice, fair: bool, busy_s: float) -> DrafterSpec:
    evil = dice.chance(0.35)
    likely = dice.between(0.4, 1.0)
    acceptance = dice.pick(((likely,), (1.0,), (likely, likely + (1 - likely) / 2), (0.5, 0.75, 0.9, 1.0)))
    return DrafterSpec(
        kind=dice.pick((*MALICES, "any")) if evil else "honest",
        acceptance=acceptance,
        step_s=dice.pick((0.0005, 0.001, 0.004)),
        batch=dice.pick((1, 1, 4)),
        reach=dice.pick((1, 1, 3)),
        model=dice.below(2),
        limits=DrafterLimits(window_nodes=dice.pick((2, 8, 16, 32)), nodes_per_draft=dice.pick((1, 3, 64))),
        link=_link(dice, fair),
        starts_at_s=dice.between(0.0, busy_s / 2) if dice.chance(0.3) else 0.0,
        cut_at_s=tuple(dice.between(0.0, busy_s) for _ in range(dice.pick((0, 0, 1, 2)))),
    )


def _link(dice: Dice, fair: bool) -> LinkSpec:
    delay_s = dice.pick((0.0, 0.001) if fair else (0.0, 0.001, 0.005, 0.04))
    return LinkSpec(delay_s, jitter_s=dice.pick((0.0, delay_s, 0.005)))
