"""Lanes of one generation, from hand-made observations; a plot of them where matplotlib is."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from nacre.bench.one_session import Commit, Told
from nacre.bench.plots import plot
from nacre.bench.timeline import LANES, telling, timeline
from nacre.runtime.delay_proxy import Passage
from nacre.runtime.draft_totals import TakenStep

TOLD = Told(
    started_s=10.0,
    commits=[Commit(arrived_s=10.100, tokens=2, rows=4, verify_ms=30.0, queue_ms=0.0)],
    passages=[
        Passage(1, up=True, entered_s=10.001, due_s=10.026, size_bytes=900),  # the prompt
        Passage(2, up=True, entered_s=10.040, due_s=10.065, size_bytes=40),  # a draft
        Passage(1, up=False, entered_s=10.075, due_s=10.100, size_bytes=50),
    ],
    draft_steps=[TakenStep(9.9, 9.95, 3), TakenStep(10.030, 10.039, 4)],
)


def test_a_pass_lies_before_the_message_that_brought_its_tokens() -> None:
    spans = {span.lane: span for span in timeline(TOLD, rtt_ms=50.0)}
    assert set(spans) == set(LANES)
    verifier = spans["verifier"]
    assert (verifier.begin_ms, verifier.end_ms, verifier.size) == pytest.approx((45.0, 75.0, 4))
    assert spans["client"].begin_ms == pytest.approx(100.0)
    drafter = spans["drafter"]
    assert (drafter.begin_ms, drafter.end_ms, drafter.size) == pytest.approx((30.0, 39.0, 4))
    assert sum(span.lane == "drafter" for span in timeline(TOLD, rtt_ms=50.0)) == 1, "one was of another request"


def test_without_a_wire_there_are_still_passes_and_steps() -> None:
    bare = Told(started_s=10.0, commits=TOLD.commits, draft_steps=TOLD.draft_steps)
    assert {span.lane for span in timeline(bare, rtt_ms=0.0)} == {"verifier", "client", "drafter"}


def test_the_timeline_that_is_shown_has_a_wire() -> None:
    wired = [span.as_dict() for span in timeline(TOLD, 50.0)]
    bare = [span for span in wired if span["lane"] == "verifier"]
    assert telling([bare, wired, bare]) == wired
    assert telling([bare]) == bare
    assert telling([]) == []


CELL = {
    "scenario": "s",
    "temperature": 1.0,
    "baseline": "nacre",
    "speedup": {"value": 2.0, "low": 1.9, "high": 2.2},
}
SUMMARY = {"cells": [{**CELL, "rtt_ms": 0.0}, {**CELL, "rtt_ms": 50.0}]}


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    plot(tmp_path / "plot.svg", SUMMARY, [span.as_dict() for span in timeline(TOLD, 50.0)])
    assert (tmp_path / "plot.svg").read_text().count("<path") > 10
    assert list(tmp_path.iterdir()) == [tmp_path / "plot.svg"]


def test_a_plot_that_is_not_finished_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(self: object, where: Path | io.BytesIO, **options: object) -> None:
        where.write_bytes(b"half") if isinstance(where, Path) else where.write(b"half")
        raise KeyboardInterrupt

    file = tmp_path / "plot.svg"
    file.write_text("old")
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half)
    with pytest.raises(KeyboardInterrupt):
        plot(file, SUMMARY, [])
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
