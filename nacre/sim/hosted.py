"""What a simulated verifier is made of: its machine as data, a session it hosts, and what that session took."""

from __future__ import annotations

from dataclasses import dataclass, field

from nacre.scheduling import Arrivals, RowBudget
from nacre.session import Commit, SessionLimits, SpeculationMode, VerifierSession
from nacre.session.hearing import Hearing
from nacre.sim.checkers import VerifierChecks
from nacre.sim.messages import Opened
from nacre.sim.network import Stream
from nacre.sim.target import ToyEngine
from nacre.sim.world import Timer


@dataclass(frozen=True, slots=True)
class PassTime:
    """V(rows): duration of a verify pass, linear between measured points and beyond the last two."""

    points: tuple[tuple[int, float], ...] = ((1, 0.029), (8, 0.038), (16, 0.047), (32, 0.064))

    def __call__(self, rows: int) -> float:
        points = self.points
        if len(points) == 1 or rows <= points[0][0]:
            return points[0][1]
        upper = next((i for i, (at, _) in enumerate(points) if rows <= at), len(points) - 1)
        (low, low_s), (high, high_s) = points[upper - 1], points[upper]
        return low_s + (high_s - low_s) * (rows - low) / (high - low)


@dataclass(frozen=True, slots=True)
class VerifierSpec:
    """A verifier: its machine as data, its limits, and its bad luck.

    `row_budget` bounds a pass, `session_rows` one session's share of it (0: the same), `chunk_rows` its prompt
    rows. Each pass takes `pass_time` of its rows, `overhead_s` once and `commit_s` per session in it; each message
    in or out takes `message_s` of the core the passes run on. `pauses` and `calibrates` switch the shipped rules
    on: a checked world takes survivals at their word, as its checkers do. Without `rows_cost` every guess gets its
    row, and drafters are not told what could be used. `mode` is what owners ask for. `failed_pass` is the chance that
    a pass does not happen and is planned anew; `crash_at_s` is when it dies.
    """

    row_budget: int = 16
    session_rows: int = 0
    chunk_rows: int = 256
    pass_time: PassTime = PassTime()
    overhead_s: float = 0.0
    commit_s: float = 0.0
    message_s: float = 0.0
    pauses: bool = True
    rows_cost: bool = True
    calibrates: bool = False
    mode: SpeculationMode = SpeculationMode.LATENCY
    limits: SessionLimits = SessionLimits()  # noqa: RUF009  a frozen value
    max_positions: int = 4096
    grace_s: float = 0.5
    failed_pass: float = 0.0
    crash_at_s: float | None = None

    @property
    def budget(self) -> RowBudget:
        return RowBudget(pass_rows=self.row_budget, session_rows=self.session_rows or self.row_budget)


@dataclass(frozen=True, slots=True)
class Admitted(Opened):
    """The answer to a new drafter's Join: also the rows that its session could use now. 0: not told; 1: no guesses."""

    row_budget: int = 0


@dataclass(slots=True)
class Tally:
    """What a session took on one verifier: passes and rows, and what became of guesses and drafts."""

    passes: int = 0
    rows: int = 0
    prompt_rows: int = 0
    verified_guesses: int = 0
    accepted_guesses: int = 0
    live_guesses: int = 0
    late_guesses: int = 0
    dead_guesses: int = 0
    drafts: int = 0
    refused_drafts: int = 0


@dataclass(slots=True, eq=False)
class Hosted:
    """A session and everyone connected to it. `missing_rows` of its prompt are still to be computed.

    `drafters` are their ordinals, `told` the committed length that each has heard of; `last` is the last pass's commit.
    """

    name: str
    ticket: str
    session: VerifierSession
    engine: ToyEngine
    checks: VerifierChecks | None
    owner: Stream | None
    waiting_since_s: float
    turn: int  # order of its last pass among all sessions' (times tie, and a tie must not favour anyone for ever)
    missing_rows: int = 0
    begun: bool = False
    last: Commit | None = None
    arrivals: Arrivals = field(default_factory=Arrivals)
    hearing: Hearing = field(default_factory=Hearing)
    drafters: dict[Stream, int] = field(default_factory=dict)
    told: dict[Stream, int] = field(default_factory=dict)
    grace: Timer | None = None
    tally: Tally = field(default_factory=Tally)
