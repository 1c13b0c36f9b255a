"""What happened when in one generation: lanes of drafter, wire and verifier, read from the rig's own observations.

The wire's times are the proxy's; a pass is placed before the message that brought its tokens, as long as the verifier
says it took. A drafter tells how many steps it took and how long they were together, not when each one was: its lane
marks when drafts left it, where their bytes enter the wire. Without a wire (RTT 0) both lanes stay empty. All in
milliseconds from the request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nacre.bench.one_session import Told

LANES = ("client", "verifier", "wire down", "wire up", "drafter")


@dataclass(frozen=True, slots=True)
class Span:
    """Something in a lane, from when to when; `size` is rows, tokens or bytes, as the lane has it."""

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
    connections = {passage.connection for passage in told.passages}
    # The client's own connection carries the prompt up; whatever else goes up are drafts.
    owner = max(
        connections,
        key=lambda number: max((p.size_bytes for p in told.passages if p.up and p.connection == number), default=0),
        default=None,
    )
    for passage in told.passages:
        lane = "wire up" if passage.up else "wire down"
        spans.append(Span(lane, ms(passage.entered_s), ms(passage.due_s), passage.size_bytes))
        if passage.up and passage.connection != owner:
            spans.append(Span("drafter", ms(passage.entered_s), ms(passage.entered_s), passage.size_bytes))
    return sorted(spans, key=lambda span: (span.begin_ms, span.lane))


def telling(timelines: Sequence[Sequence[Mapping[str, Any]]]) -> Sequence[Mapping[str, Any]]:
    """The one to show where there is room for one: in the middle of those with a wire; empty if there is none."""
    wired = [spans for spans in timelines if any(span["lane"] == "wire up" for span in spans)]
    found = wired or timelines
    return found[len(found) // 2] if found else []
