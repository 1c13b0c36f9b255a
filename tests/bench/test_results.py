"""A results file is written whole, and gone on with only where figures compare."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from nacre.bench.results import Results, check_place, machine, read_results, resumed, source_state
from nacre.bench.rig import RigOptions
from nacre.bench.run import Plan
from nacre.bench.samples import Sample
from nacre.errors import FailedPrecondition, Internal, InvalidArgument, NotFound, ResourceExhausted

IDENTITY = {"commit": "abc", "dirty": "", "machine": {"processor": "one", "cores": 2}, "seed": 1}
SAMPLE = Sample("s", "ar", 0.0, 1.0, 0, 1, (1, 2, 3), (1.0, 2.0), (1, 2), {"passes": 2.0}, {"gamma": 4})


def test_what_was_saved_is_there_again(tmp_path: Path) -> None:
    results = Results(dict(IDENTITY), tmp_path / "r.json", fingerprint="f")
    results.add(SAMPLE)
    results.keep("tuned/sync/0/1", {"best": {"gamma": 4}})
    results.memory_mb["verifier-1"] = 9.0
    with results.timed("a step"):
        pass
    with results.timed("a step"), contextlib.suppress(KeyError):
        raise KeyError
    results.save()
    again = resumed(tmp_path / "r.json", IDENTITY)
    assert again.samples == {SAMPLE.key: SAMPLE}
    assert again.kept == results.kept
    assert again.memory_mb == results.memory_mb
    assert again.took_s == results.took_s
    assert list(again.took_s) == ["a step"]
    assert (again.fingerprint, again.started) == ("f", results.started)
    assert list(tmp_path.iterdir()) == [tmp_path / "r.json"]


@pytest.mark.parametrize("key", sorted(IDENTITY))
def test_a_run_of_something_else_is_refused_by_name(tmp_path: Path, key: str) -> None:
    results = Results(dict(IDENTITY), tmp_path / "r.json")
    results.add(SAMPLE)
    results.save()
    with pytest.raises(FailedPrecondition) as caught:
        resumed(tmp_path / "r.json", {**IDENTITY, key: "other"})
    assert f"another {key}" in caught.value.message


def test_a_file_that_is_no_result(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    with pytest.raises(NotFound):
        resumed(file, IDENTITY)
    for text in ("{", "[]", '{"format": 0}'):
        file.write_text(text)
        with pytest.raises(FailedPrecondition):
            read_results(file)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "r.json"
    results = Results(dict(IDENTITY), file)
    results.keep("x", 1)
    results.save()
    before = file.read_text()
    results.samples[SAMPLE.key] = SAMPLE

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(ResourceExhausted, match="No space left"):
            results.save()
    assert file.read_text() == before
    assert list(tmp_path.iterdir()) == [file]


def test_another_text_than_the_reference_wrote_is_an_alarm() -> None:
    results = Results(dict(IDENTITY))
    results.add(SAMPLE)
    results.check_text(replace(SAMPLE, baseline="nacre", rtt_ms=50.0), "ar")
    with pytest.raises(Internal, match="another text"):
        results.check_text(replace(SAMPLE, baseline="nacre", rtt_ms=50.0, tokens=(1, 2, 4)), "ar")
    # Another prompt is another text.
    results.check_text(replace(SAMPLE, baseline="nacre", prompt=1, tokens=(9,)), "ar")


def test_another_verifier_than_before_is_refused() -> None:
    results = Results(dict(IDENTITY))
    results.check_fingerprint("one")
    results.check_fingerprint("one")
    with pytest.raises(FailedPrecondition, match="two"):
        results.check_fingerprint("two")


def test_nothing_measured_leaves_no_file(tmp_path: Path) -> None:
    results = Results(dict(IDENTITY), tmp_path / "r.json")
    results.save()
    assert not results.saved
    assert list(tmp_path.iterdir()) == []


def test_json_is_plain(tmp_path: Path) -> None:
    results = Results(dict(IDENTITY), tmp_path / "r.json")
    results.add(SAMPLE)
    results.save()
    raw = json.loads((tmp_path / "r.json").read_text())
    assert raw["samples"][0]["tokens"] == [1, 2, 3]
    assert raw["hardware"]["cores"] >= 1


def test_the_source_has_a_state() -> None:
    assert set(source_state()) == {"commit", "dirty"}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not here")
def test_source_that_git_does_not_know_yet_has_changed(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        own = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(tmp_path), *own, *arguments], check=True, capture_output=True)

    (tmp_path / "nacre" / "deep").mkdir(parents=True)
    (tmp_path / "nacre" / "a.py").write_text("a = 1\n")
    git("init")
    git("add", "nacre")
    git("commit", "-m", "first")
    clean = source_state(tmp_path)
    assert clean["commit"]
    assert clean["dirty"] == ""
    for harmless in ("notes.py", "nacre/notes.txt"):  # neither runs
        (tmp_path / harmless).write_text("")
    assert source_state(tmp_path) == clean
    new = tmp_path / "nacre" / "deep" / "b.py"
    states = []
    for text in ("b = 1\n", "b = 2\n"):
        new.write_text(text)
        states.append(source_state(tmp_path))
    assert {state["commit"] for state in states} == {clean["commit"]}
    assert len({clean["dirty"], *(state["dirty"] for state in states)}) == 3
    (tmp_path / ".gitignore").write_text("b.py\n")
    assert source_state(tmp_path) == clean


def test_figures_of_another_machine_do_not_compare() -> None:
    identity = Plan((), {}, RigOptions("target", "draft")).identity()
    assert identity["machine"] == machine()
    assert machine()["cores"] == os.cpu_count()
    assert machine()["processor"]


def test_a_place_that_cannot_be_written_is_told_before_the_run(tmp_path: Path) -> None:
    check_place(tmp_path / "new.json", "--plot")
    (tmp_path / "old.json").write_text("")
    check_place(tmp_path / "old.json", "--plot")
    with pytest.raises(InvalidArgument, match="no folder that can be written to; name another --plot"):
        check_place(tmp_path / "gone" / "new.json", "--plot")
    with pytest.raises(InvalidArgument, match="which is there and no file"):
        check_place(tmp_path, "--plot")


def test_writing_takes_only_a_small_share_of_a_run(tmp_path: Path) -> None:
    results = Results(dict(IDENTITY), tmp_path / "r.json")
    results.keep("first", 1)
    results.save()

    def kept_after_ten_seconds(name: str, saving_s: float) -> bool:
        results._saved_at -= 10.0
        results._saving_s = saving_s
        results.keep(name, 1)
        return name in json.loads((tmp_path / "r.json").read_text())["kept"]

    assert not kept_after_ten_seconds("dear", 1e6)
    assert kept_after_ten_seconds("cheap", 0.1)
