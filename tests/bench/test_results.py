"""A results file is written whole, and gone on with only where figures compare."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from nacre.bench.results import Results, read_results, resumed, source_state
from nacre.bench.samples import Sample
from nacre.errors import FailedPrecondition, Internal, NotFound, ResourceExhausted

IDENTITY = {"commit": "abc", "dirty": "", "seed": 1}
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
