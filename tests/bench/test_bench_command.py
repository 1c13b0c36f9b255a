"""`nacre bench` as a user runs it: what there is, mistakes in one line, a small real run that can be gone on with."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest

from nacre.cli import main


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("NACRE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    monkeypatch.chdir(tmp_path)


def mistake(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line a mistake is told in."""
    assert main(["bench", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("nacre: ")
    assert err.count("\n") == 1, err
    return err


def test_the_list_names_scenarios_and_baselines(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--list", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert {"rtt", "throughput"} <= {scenario["name"] for scenario in found["scenarios"]}
    assert {"ar", "nacre", "sync", "pearl", "hf-assisted"} <= {baseline["name"] for baseline in found["baselines"]}
    assert main(["bench", "--list"]) == 0
    assert "pearl" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a scenario"),
        (["rttt"], "'rttt' is unknown"),
        (["rtt", "--baselines", "nacrd"], "'nacrd' is unknown"),
        (["rtt", "--baselines", "sync:nothing"], "policy 'nothing' is unknown"),
        (["rtt", "--baselines", ","], "baselines is empty"),
        (["rtt", "--methods", "suffix"], "methods is ['suffix']; a scenario of kind drafters"),
        (["drafters", "--methods", "sufix"], "'sufix' is unknown"),
        (["drafters", "--methods", "model+suffix+model"], "names model twice"),
        (["drafters", "--methods", ","], "methods is []"),
        (["rtt", "--rtt", "ten"], "--rtt is 'ten'"),
        (["rtt", "--rtt", "-1"], "rtt_ms has -1"),
        (["rtt", "--rtt", "nan"], "rtt_ms has nan"),
        (["rtt", "--temperature", "-1"], "temperature has -1"),
        (["rtt", "--prompts", "0"], "--prompts is 0"),
        (["rtt", "--tokens", "1"], "--tokens is 1"),
        (["rtt", "--burstiness", "0"], "--burstiness is 0"),
        (["throughput", "--parameters", "0", "--requests", "5"], "--requests is given, but all requests come at once"),
        (["rtt", "--parameters", "0", "--request-rate", "5"], "--request-rate is given, but no scenario here"),
        (["rtt", "--parameters", "0", "--goodput-ttft", "5"], "--goodput-ttft is given, but no scenario here"),
        (["batching", "--parameters", "0", "--request-rate", "5"], "hf-batching takes all requests at once"),
        (["rtt", "--parameters", "0", "--resume", "none.json"], "none.json does not exist"),
        (["rtt", "--parameters", "0", "--out", "no/where.json"], "no folder that can be written to"),
        (["rtt", "--parameters", "0", "--plot", "plot.txt"], "must end in one of"),
        (["rtt", "--parameters", "0", "--plot", "no/plot.png"], "name another --plot"),
        (["rtt", "--parameters", "0", "--spec-bench", "no/answers.jsonl"], "name another --spec-bench"),
        (["rtt", "--parameters", "0", "--spec-bench", "."], "--spec-bench is ., which is there and no file"),
        (["throughput", "--baselines", "sync"], "cannot measure baseline 'sync'; it can measure ar, hf-batching, "),
        (["throughput", "--baselines", "nacre,hf-ar"], "cannot measure baseline 'hf-ar'"),
        (["rtt", "--baselines", "hf-batching"], "(kind latency) cannot measure baseline 'hf-batching'"),
    ],
)
def test_mistakes(capfd: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert said in mistake(capfd, *arguments)


def test_two_scenarios_of_one_name_are_refused(capfd: pytest.CaptureFixture[str]) -> None:
    Path("rtt.toml").write_text('about = "mine"\n')
    assert "two scenarios are called 'rtt'" in mistake(capfd, "rtt", "./rtt.toml")


def test_a_row_with_a_mistake_is_told_before_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    Path("mine.toml").write_text('about = "mine"\n[[row]]\nname = "x"\nkind = "odd"\n')
    assert "row 'x' has 'no known kind'" in mistake(capfd, "mine.toml")


def test_a_missing_library_is_told_before_the_run(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nacre.bench.libraries.find_spec", lambda name: None if name == "psutil" else object())
    assert "'hf-batching' needs psutil" in mistake(capfd, "headline", "--quick")


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is not None, reason="matplotlib is here")
def test_a_plot_without_matplotlib_is_refused_before_anything_runs(capfd: pytest.CaptureFixture[str]) -> None:
    assert "pip install 'nacre[bench]'" in mistake(capfd, "rtt", "--parameters", "0", "--plot", "plot.png")


def test_a_file_that_is_there_is_not_overwritten(capfd: pytest.CaptureFixture[str]) -> None:
    Path("mine.json").write_text("precious")
    assert "--resume mine.json" in mistake(capfd, "rtt", "--parameters", "0", "--out", "mine.json")
    assert Path("mine.json").read_text() == "precious"


SCENARIO = """
about = "a small one"
baselines = ["ar", "nacre", "sync", "pearl", "none"]
rtt_ms = [4]
prompts = 2
tokens = 10
seeds = 1
warm_ups = 1
tune_tokens = 4
"""


@pytest.mark.processes
@pytest.mark.timeout(240)
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="the rig needs two cores")
def test_a_run_is_whole_exact_and_can_be_gone_on_with(capfd: pytest.CaptureFixture[str]) -> None:
    Path("small.toml").write_text(SCENARIO)
    arguments = ["bench", "small.toml", "--parameters", "0", "--json"]
    cores = os.sched_getaffinity(0)
    assert main([*arguments, "--out", "r.json", "--spec-bench", "answers.jsonl"]) == 0, capfd.readouterr().err
    assert os.sched_getaffinity(0) == cores
    found = json.loads(capfd.readouterr().out)
    samples = found["samples"]
    assert len(samples) == 5 * 2
    texts: dict[int, set[tuple[int, ...]]] = {}
    for sample in samples:
        assert sum(sample["arrival_tokens"]) == len(sample["tokens"]) == 10
        texts.setdefault(sample["prompt"], set()).add(tuple(sample["tokens"]))
    assert [len(same) for same in texts.values()] == [1, 1]
    _check_summary(found)
    assert len(Path("answers.jsonl").read_text().splitlines()) == len(samples)

    # What an interrupted run lacks is measured, what it has is kept.
    kept = [sample for sample in samples if sample["baseline"] != "none"]
    Path("r.json").write_text(json.dumps({**found, "samples": kept}))
    assert main([*arguments, "--resume", "r.json"]) == 0, capfd.readouterr().err
    again = json.loads(capfd.readouterr().out)["samples"]
    assert [sample for sample in again if sample["baseline"] != "none"] == kept
    assert len(again) == len(samples)

    # Another dial is another run.
    assert main([*arguments, "--resume", "r.json", "--tokens", "11"]) == 2
    assert "another scenarios" in capfd.readouterr().err


def _check_summary(found: dict[str, Any]) -> None:
    cells = {(cell["baseline"], cell["rtt_ms"]): cell for cell in found["summary"]["cells"]}
    assert len(cells) == 5
    for (baseline, _), cell in cells.items():
        assert cell["speedup"]["low"] <= cell["speedup"]["value"] <= cell["speedup"]["high"]
        assert cell["wire_up_bytes_per_token"] > 0
        if baseline in ("ar", "none"):
            assert cell["acceptance_length"] == pytest.approx(1.0)
        if baseline in ("sync", "pearl"):
            assert cell["settings"]["gamma"] >= 1
            assert cell["payload_up_bytes_per_token"] > 0
        assert 0 <= cell["verifier_idle_share"] < 1
        if baseline in ("nacre", "sync", "pearl"):
            assert 0 <= cell["drafter_idle_share"] <= 1  # counted in clock ticks: so short a run may have none
    assert found["finished"]
    assert found["identity"]["versions"]["torch"]
    assert found["system_fingerprint"]


DRAFTERS = """
about = "a few methods"
kind = "drafters"
text = ["code", "prose"]
baselines = ["ar"]
methods = ["suffix", "recycling", "suffix+recycling", "prediction"]
rows = [8]
rtt_ms = [4]
temperature = [1]
prompts = 2
tokens = 10
seeds = 1
warm_ups = 1
"""


@pytest.mark.processes
@pytest.mark.timeout(300)
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="the rig needs two cores")
def test_drafting_methods_side_by_side_can_be_gone_on_with(capfd: pytest.CaptureFixture[str]) -> None:
    Path("few.toml").write_text(DRAFTERS)
    arguments = ["bench", "few.toml", "--parameters", "0"]
    assert main([*arguments, "--json", "--out", "r.json"]) == 0, capfd.readouterr().err
    found = json.loads(capfd.readouterr().out)
    rows, cells = found["summary"]["drafters"]["rows"], found["summary"]["cells"]
    assert len(rows) == 2 * 4  # texts, methods
    assert len(cells) == 2 * 5  # texts, ar and methods
    assert len(found["samples"]) == 2 * len(cells)
    orderings = found["summary"]["drafters"]["orderings"]
    assert [ordering["figure"] for ordering in orderings] == ["tokens_per_pass"] * 2 + ["tokens_per_s"] * 2
    texts = {(s["scenario"], s["prompt"]): set() for s in found["samples"]}
    for sample in found["samples"]:
        texts[sample["scenario"], sample["prompt"]].add(tuple(sample["tokens"]))
    assert [len(same) for same in texts.values()] == [1] * 4

    # One cell of the first part and one sample of the second are missing: all prompts of that sample's seed are redone.
    kept = {name: value for name, value in found["kept"].items() if not name.endswith("prose/1/8/1/suffix+recycling")}
    gone = found["samples"][-1]
    samples = [sample for sample in found["samples"] if sample is not gone]
    Path("r.json").write_text(json.dumps({**found, "kept": kept, "samples": samples}))
    assert main([*arguments, "--resume", "r.json"]) == 0, capfd.readouterr().err
    shown = capfd.readouterr().out
    again = json.loads(Path("r.json").read_text())
    assert {**again["kept"], **kept} == again["kept"]
    assert set(again["kept"]) == set(found["kept"])
    place = [gone[name] for name in ("scenario", "baseline", "rtt_ms")]
    redone = [s for s in found["samples"] if [s[name] for name in ("scenario", "baseline", "rtt_ms")] == place]
    assert len(redone) == 2
    assert [s for s in found["samples"] if s in again["samples"]] == [s for s in found["samples"] if s not in redone]
    assert len(again["samples"]) == len(found["samples"])
    for method in ("(no drafter)", "suffix ", "suffix+recycling ", "prediction "):
        assert sum(line.startswith(method) for line in shown.splitlines()) >= 2
