"""The discrete-event world: the machines that ship, on a virtual clock, with modelled times and seeded faults.

    world       the event queue and the clock
    network     streams: two first-in-first-out links with delay and jitter, that can be lost
    target      a toy target: the next token is a pure hash of the prefix
    actors      verifier, owner and drafter around VerifierSession and DrafterSession
    malice      drafters that break every rule
    checkers    the invariants, checked as the world runs
    scenario    a world as data: build it, run it, count

Rule: a run is a function of its scenario and seed alone. No clock, no threads, no global randomness.
"""

from nacre.sim.scenario import (
    DrafterSpec,
    Outcome,
    Scenario,
    SessionSpec,
    VerifierSpec,
    run_scenario,
)

__all__ = ["DrafterSpec", "Outcome", "Scenario", "SessionSpec", "VerifierSpec", "run_scenario"]
