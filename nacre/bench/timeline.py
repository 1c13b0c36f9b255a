"""What happened when in one generation: lanes of drafter, wire and verifier, read from the rig's own observations.

The wire's times are the proxy's, and without a wire (RTT 0) its lanes stay empty. A pass is placed before the message
that brought its tokens, as long as the verifier says it took. A drafter tells when its steps were; those before the
request are left out. All in milliseconds from the request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nacre.bench.one_session import Told

LANES = ("client", "verifier", "wire down", "wire up", "drafter")


@dataclass(frozen=True, slots=True)
class Span:
    """Something in a lane, from when to when; `size` is rows, tokens, bytes or guesses, as the lane has it."""

    lane: str
    begin_ms: float
    end_ms: float
    size: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def timeline(told: Told, rtt_ms: float) -> list[Span]:
    """The spans of one generation, in order of their beginning."""

    def ms(moment_s: float) -> float:
        return round((moment_s - told.started_s) * 1e3, 3)

    spans = []
    for commit in told.commits:
        end = ms(commit.arrived_s) - rtt_ms / 2
        spans.append(Span("verifier", end - commit.verify_ms, end, commit.rows))
        spans.append(Span("client", ms(commit.arrived_s), ms(commit.arrived_s), commit.tokens))
    steps = [step for step in told.draft_steps if step.began_s >= told.started_s]
    spans.extend(Span("drafter", ms(step.began_s), ms(step.ended_s), step.guesses) for step in steps)
    for passage in told.passages:
        lane = "wire up" if passage.up else "wire down"
        spans.append(Span(lane, ms(passage.entered_s), ms(passage.due_s), passage.size_bytes))
    return sorted(spans, key=lambda span: (span.begin_ms, span.lane))


def telling(timelines: Sequence[Sequence[Mapping[str, Any]]]) -> Sequence[Mapping[str, Any]]:
    """The one to show where there is room for one: in the middle of those with a wire; empty if there is none."""
    wired = [spans for spans in timelines if any(span["lane"] == "wire up" for span in spans)]
    found = wired or timelines
    return found[len(found) // 2] if found else []
