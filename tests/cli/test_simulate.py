"""`nacre simulate`: tables, JSON, sweeps, traces, plots, and mistakes told in one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from nacre.sim.acceptance import load_acceptance
from nacre.sim.dials import load_dials
from tests.cli.conftest import Nacre

FOLDER = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "simulations"
SMALL = ("--set", "requests=2", "--set", "output_tokens=12", "--set", "prompt_tokens=4")


def test_a_run_is_a_table(nacre: Nacre) -> None:
    outcome = nacre("simulate", *SMALL)
    assert outcome.code == 0
    assert "tokens per pass" in outcome.out
    assert "speed-up of a session" in outcome.out


def test_a_sweep_has_a_column_and_a_point_per_value_and_repeats_itself(nacre: Nacre) -> None:
    outcome = nacre("simulate", *SMALL, "--sweep", "rtt=0,40", "--json")
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert [point["rtt"] for point in found["points"]] == [0, 40]
    near, far = (point["figures"]["session_tokens_per_s"] for point in found["points"])
    assert near > far
    assert nacre("simulate", *SMALL, "--sweep", "rtt=0,40", "--json").out == outcome.out
    assert nacre("simulate", *SMALL, "--sweep", "rtt=0,40", "--json", "--seed", "5").out != outcome.out
    assert "40" in nacre("simulate", *SMALL, "--sweep", "rtt=0,40").out


def test_growing_load_tells_where_it_saturates(nacre: Nacre) -> None:
    arguments = ("--set", "pass_ms=[[1,20],[2,40]]", "--set", "requests=8", "--sweep", "concurrency=1,2,4")
    found = json.loads(nacre("simulate", *SMALL, *arguments, "--json").out)
    assert found["saturated_at"] == 2 or found["saturated_at"] == 4
    assert "aturated" in nacre("simulate", *SMALL, *arguments).out


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_scenario_can_be_read_and_its_trace_is_there(nacre: Nacre, path: Path) -> None:
    dials, about, _ = load_dials(path)
    assert about
    assert load_acceptance(Path(dials.trace)).places > 1000
    outcome = nacre("simulate", path.stem, "--dials")
    assert outcome.code == 0
    assert "rtt_ms" in outcome.out


def test_a_scenario_of_ones_own(nacre: Nacre, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('about = "mine"\nrequests = 2\noutput_tokens = 8\n[sweep]\nrtt_ms = [0, 5]\n')
    outcome = nacre("simulate", path)
    assert outcome.code == 0
    assert "mine" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere",), "no scenario 'nowhere'"),
        (("gone.toml",), "no scenario 'gone.toml'"),
        (("--set", "rtt"), "must be DIAL=VALUE"),
        (("--set", "rtt=-1"), "dial rtt_ms is -1"),
        (("--set", "acceptance=[0.9, 0.1]"), "dial acceptance"),
        (("--set", "verifiers=0"), "dial verifiers is 0"),
        (("--set", "colour=red"), "no dial 'colour'"),
        (("--set", "trace=none.json"), "no acceptance trace none.json"),
        (("--sweep", "rtt"), "must be DIAL=VALUE,VALUE"),
        (("--sweep", "rtt="), "no values"),
        (("--sample", "5"), "sample is 5"),
        (("--plot", "x.png"), "--plot draws a sweep"),
        (("--sweep", "rtt=0,1", "--plot", "x.txt"), "must end in .png"),
        (("--sweep", "rtt=0,1", "--plot", "gone/x.png"), "no folder gone"),
        (("--record-trace", "gone/trace.json"), "no folder gone"),
    ],
)
def test_mistakes_are_one_line(nacre: Nacre, arguments: tuple[str, ...], told: str) -> None:
    outcome = nacre("simulate", *SMALL, *arguments) if "--set" in arguments else nacre("simulate", *arguments)
    assert outcome.code == 2, outcome
    assert told in outcome.err.splitlines()[-1]
    assert "Traceback" not in outcome.err
    assert outcome.out == ""


def test_without_matplotlib_the_plot_says_what_to_install(nacre: Nacre, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = nacre("simulate", *SMALL, "--sweep", "rtt=0,1", "--plot", "x.png")
    assert "nacre[bench]" in outcome.mistake()
    assert not Path("x.png").exists()


def test_a_plot_is_drawn_whole(nacre: Nacre) -> None:
    assert nacre("simulate", *SMALL, "--sweep", "rtt=0,20", "--plot", "x.svg").code == 0
    assert Path("x.svg").read_text().rstrip().endswith("</svg>")
    assert [path.name for path in Path().iterdir()] == ["x.svg"]


def test_an_interrupted_run_leaves_nothing(nacre: Nacre, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nacre.sim.capacity.predict", interrupted)
    assert nacre("simulate", *SMALL, "--sweep", "rtt=0,20", "--plot", "x.svg").code == 130
    assert list(Path().iterdir()) == []


def test_a_trace_of_the_bundled_pair_can_be_recorded_and_replayed(nacre: Nacre) -> None:
    pytest.importorskip("torch")
    outcome = nacre("simulate", "--record-trace", "trace.json", "--prompts", "2", "--tokens", "6", "--json")
    assert outcome.code == 0, outcome
    told = json.loads(outcome.out)
    assert told["places"] == 12
    assert told["draft_ms"][0][0] == 1
    assert all(ms > 0 for _, ms in told["draft_ms"])
    assert told["acceptance"] == sorted(told["acceptance"])
    trace = load_acceptance(Path("trace.json"))
    assert [len(text) for text in trace.texts] == [6, 6]
    # The committed trace begins with the same prompts, models and seed.
    kept = load_acceptance(FOLDER / "bundled-pair.json")
    assert [rank for _, rank in trace.texts[0]] == [rank for _, rank in kept.texts[0]][:6]
    assert nacre("simulate", *SMALL, "--set", "trace=trace.json").code == 0
