"""The suite, tested: every change in the mutant table must be noticed, and the unchanged core must pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

import nacre
from tests.session.fresh_core import behaviours, load
from tests.session.mutant_table import MUTANTS, Mutant

ORDERS = 240  # seeded lives of both ends
WORLDS = 80  # seeded worlds


def watch_worlds(modules: Mapping[str, ModuleType]) -> None:
    """A bounded part of the seeded tests; raises whatever they find."""
    dice = modules["nacre.sim.dice"]
    for seed in range(ORDERS):
        modules["tests.session.both_ends"].exercise(dice.Dice(dice.mix(seed, 5)).below, steps=160)
    for seed in range(WORLDS):
        modules["nacre.sim"].run_scenario(modules["nacre.sim.chaos"].random_scenario(seed))


def watch_behaviours(modules: Mapping[str, ModuleType]) -> None:
    for _ in behaviours(modules):
        pass


WATCHERS = {"worlds": watch_worlds, "behaviours": watch_behaviours}


def source_of(module: str) -> str:
    root = Path(nacre.__file__).parent.parent
    return root.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8")


def test_the_unchanged_core_passes() -> None:
    modules = load({module: source_of(module) for module in {mutant.module for mutant in MUTANTS}})
    for watch in WATCHERS.values():
        watch(modules)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.module}: {mutant.breaks}")
def test_a_change_is_noticed(mutant: Mutant) -> None:
    source = source_of(mutant.module)
    assert source.count(mutant.old) == 1, f"{mutant.old!r} is no longer a line of {mutant.module}: renew the table"
    modules = load({mutant.module: source.replace(mutant.old, mutant.new)})
    with pytest.raises(BaseException):  # noqa: B017, PT011  whatever it breaks on
        WATCHERS[mutant.by](modules)


def test_a_fresh_core_leaves_the_real_one_alone() -> None:
    import nacre.session
    import nacre.tree

    before = (nacre.tree, nacre.session, nacre.session.VerifierSession)
    modules = load({"nacre.tree": source_of("nacre.tree")})
    assert modules["nacre.tree"] is not nacre.tree
    assert modules["nacre.session"].VerifierSession is not nacre.session.VerifierSession
    assert (nacre.tree, nacre.session, nacre.session.VerifierSession) == before
