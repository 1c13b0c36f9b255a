"""Golden transcripts: short stories of the protocol, message by message, to be read as much as to be compared.

Each story is a small world; its transcript lies in `transcripts/`. `NACRE_REWRITE_TRANSCRIPTS=1` writes them anew: read
the difference before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nacre.session import DrafterLimits, SessionLimits
from nacre.sim import DrafterSpec, Scenario, SessionSpec, VerifierSpec, run_scenario
from nacre.sim.network import LinkSpec
from nacre.sim.verifier import PassTime

FOLDER = Path(__file__).parent / "transcripts"
SHORT = DrafterLimits(window_nodes=4)


def verifier(**changes: object) -> VerifierSpec:
    spec = {
        "row_budget": 4,
        "pass_time": PassTime(((1, 0.030), (4, 0.036))),
        "limits": SessionLimits(window_nodes=6, max_streams=2),
        "grace_s": 0.1,
        "pauses": False,  # stories of messages, not of scheduling
        **changes,
    }
    return VerifierSpec(**spec)  # type: ignore[arg-type]


#: A drafter 20 ms away. The verifier decodes by itself at first; drafts arrive late and are matched; a wrong guess
#: costs the subtree; the owner sees only commits.
LATE_MATCH = Scenario(
    seed=11,
    verifiers=(verifier(),),
    sessions=(
        SessionSpec(
            (1, 2, 3), 10, drafters=(DrafterSpec(acceptance=(0.8,), step_s=0.004, limits=SHORT, link=LinkSpec(0.02)),)
        ),
    ),
)

#: Two drafters next door, one of them treacherous: it agrees with the other's guesses, withdraws them during a pass,
#: and once breaks the protocol; the other never notices.
MERGING = Scenario(
    seed=4,
    verifiers=(verifier(limits=SessionLimits(window_nodes=6, max_streams=3)),),
    sessions=(
        SessionSpec(
            (1, 2, 3),
            8,
            drafters=(
                DrafterSpec(acceptance=(0.6, 0.9), step_s=0.006, limits=SHORT, link=LinkSpec(0.001)),
                DrafterSpec(kind="turncoat", step_s=0.035, link=LinkSpec(0.002)),
                DrafterSpec(kind="future_anchor", step_s=0.2, link=LinkSpec(0.002), starts_at_s=0.05),
            ),
        ),
    ),
)

#: The verifier dies; the owner opens the session on the other one with what it has, and the drafter follows with its
#: tree. Nothing is lost, nothing doubled.
FAILOVER = Scenario(
    seed=14,
    verifiers=(verifier(crash_at_s=0.11), verifier()),
    sessions=(
        SessionSpec(
            (1, 2, 3),
            10,
            drafters=(DrafterSpec(acceptance=(0.9,), step_s=0.004, limits=SHORT, link=LinkSpec(0.002)),),
            link=LinkSpec(0.001),
            cut_at_s=(0.24,),
        ),
    ),
)

STORIES = {"late_match": LATE_MATCH, "merging": MERGING, "failover": FAILOVER}


@pytest.mark.parametrize("story", STORIES)
def test_the_story_is_told_as_it_was_written_down(story: str) -> None:
    record: list[str] = []
    run_scenario(STORIES[story], record=record)
    told = "\n".join(record) + "\n"
    path = FOLDER / f"{story}.txt"
    if os.environ.get("NACRE_REWRITE_TRANSCRIPTS"):
        path.write_text(told)
    assert told == path.read_text(), f"{path.name} differs; if that is meant, run with NACRE_REWRITE_TRANSCRIPTS=1"


def test_every_transcript_belongs_to_a_story() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(STORIES)
