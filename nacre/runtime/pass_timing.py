"""Measures how long passes of so many rows take, before the first session comes: what row choice needs to know.

The passes are real ones, choosing tokens included, on a short text of their own.
"""

from __future__ import annotations

import time

from nacre.runtime.verify_pass import EngineSession, PassItem, VerifyPass
from nacre.sampling import History, SamplingParams
from nacre.scheduling import PassCosts
from nacre.session import VerifierSession, open_session

#: Row counts that are measured, up to the most a pass may have.
MEASURED_ROWS = (1, 2, 4, 8, 12, 14, 16, 24, 32, 48, 64, 96, 128)
_PROMPT_TOKENS = 16
#: All row counts are timed in turns, so that what else the machine does for a moment falls on none of them alone; the
#: best time of each counts. The first turn is not counted: memory is touched, code is loaded.
_TURNS = 5
#: Once this much time has gone by there are no further turns, and beyond twice of it the first ends where it is.
_ENOUGH_S = 3.0


def measure_costs(verify_pass: VerifyPass, *, vocab_size: int, max_positions: int, most_rows: int) -> PassCosts:
    """Times passes of 1 to `most_rows` rows; blocking, some seconds at most."""
    prompt = [index % vocab_size for index in range(min(_PROMPT_TOKENS, max(1, max_positions // 4)))]
    deepest = max_positions - len(prompt) - 1
    engine = EngineSession("timing", SamplingParams(), 1, -1, History(tuple(prompt)))
    most_rows = max(1, min(most_rows, deepest))
    counts = sorted({1, most_rows, *(count for count in MEASURED_ROWS if count < most_rows)})
    machines: dict[int, VerifierSession] = {}
    for rows in counts:
        machine = open_session(prompt, max_tokens=deepest, max_positions=max_positions, vocab_size=vocab_size)
        node = machine.tree.tip
        for _ in range(rows - 1):
            node = machine.tree.add(node, 0, 1.0)
        machines[rows] = machine
    started = time.perf_counter()
    best: dict[int, float] = {}
    for turn in range(_TURNS):
        for rows, machine in machines.items():
            spent = time.perf_counter() - started
            if spent > _ENOUGH_S and (turn > 1 or (spent > 2 * _ENOUGH_S and len(best) > 1)):
                break
            seconds = _time(verify_pass, machine, engine, rows)
            best[rows] = seconds if turn < 2 else min(best[rows], seconds)
    verify_pass.run([], [], [engine])
    return PassCosts(list(best.items()))


def _time(verify_pass: VerifyPass, machine: VerifierSession, engine: EngineSession, rows: int) -> float:
    plan = machine.plan(rows)
    result = verify_pass.run([PassItem(None, engine, machine, plan, 0.0)], [], [])
    machine.abandon(plan)
    engine.settled()
    verify_pass.run([], [engine], [])
    error = result.outcomes[0].error
    if error is not None:
        raise error
    return result.duration_ms / 1e3
