"""How far and how wide to guess in a round: one module per policy, found by name through one table.

A policy's module is imported when it is used. Third parties add policies through the entry-point group `nacre.pacing`.
What a policy is, and the loop that drives one: `nacre/pacing/policy.py`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from inspect import signature
from typing import Any

from nacre.errors import InvalidArgument
from nacre.pacing.calibration import Calibration
from nacre.pacing.policy import MOST_STEPS, Costs, Outcome, PassTime, Policy, PolicyTraits
from nacre.pacing.reputation import Reputation
from nacre.pacing.round_tree import TIP, Features, RoundNode, RoundTree

#: name -> module:class
POLICIES = {
    "banditspec": "nacre.pacing.banditspec:BanditSpecPolicy",
    "del": "nacre.pacing.del_rule:DelPolicy",
    "disco": "nacre.pacing.disco:DiscoPolicy",
    "eagle2": "nacre.pacing.eagle2:Eagle2Policy",
    "eesd": "nacre.pacing.eesd:EesdPolicy",
    "fixed": "nacre.pacing.fixed:FixedPolicy",
    "hf-confidence": "nacre.pacing.hf_schedules:HfConfidencePolicy",
    "hf-heuristic": "nacre.pacing.hf_schedules:HfHeuristicPolicy",
    "leviathan": "nacre.pacing.leviathan:LeviathanPolicy",
    "opt-tree": "nacre.pacing.opt_tree:OptTreePolicy",
    "ours": "nacre.pacing.ours:OursPolicy",
    "pearl": "nacre.pacing.pearl:PearlPolicy",
    "sequoia": "nacre.pacing.sequoia:SequoiaPolicy",
    "specdec++": "nacre.pacing.specdec:SpecDecPolicy",
    "svip": "nacre.pacing.svip:SvipPolicy",
}
KNOWN_POLICIES = frozenset(POLICIES)


def policy_class(name: str) -> Any:
    """The class of a policy. Raises InvalidArgument naming the known ones."""
    target = POLICIES.get(name)
    if target is None:
        for entry in entry_points(group="nacre.pacing"):
            if entry.name == name:
                return entry.load()
        raise InvalidArgument(
            f"policy {name!r} is unknown; choose one of {', '.join(sorted(POLICIES))}", param="policy"
        )
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


def policy_named(name: str, **parameters: Any) -> Policy:
    """A new policy for one session. Raises InvalidArgument naming what is unknown or impossible."""
    kind = policy_class(name)
    known = signature(kind).parameters
    for parameter in parameters:
        if parameter not in known:
            those = f"it has {', '.join(known)}" if known else "it has none"
            raise InvalidArgument(f"policy {name} has no parameter {parameter!r}; {those}", param=parameter)
    policy: Policy = kind(**parameters)
    return policy


__all__ = [
    "KNOWN_POLICIES",
    "MOST_STEPS",
    "POLICIES",
    "TIP",
    "Calibration",
    "Costs",
    "Features",
    "Outcome",
    "PassTime",
    "Policy",
    "PolicyTraits",
    "Reputation",
    "RoundNode",
    "RoundTree",
    "policy_class",
    "policy_named",
]
