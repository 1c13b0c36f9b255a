"""What a baseline needs beyond the base install is known, and its absence is told by name."""

from __future__ import annotations

import pytest

from nacre.bench.baselines import Baseline, load_baselines
from nacre.bench.libraries import check_libraries, needed_by
from nacre.errors import FailedPrecondition

BATCHING = load_baselines()["hf-batching"]
DENSE = Baseline("nacre-dense", "", verifier={"local": "suffix+dense"})
NEST = Baseline("nacre-nest", "", drafter={"method": "nest"})


def without(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setattr("nacre.bench.libraries.find_spec", lambda name: None if name == library else object())


@pytest.mark.parametrize(
    ("baseline", "library", "extra"),
    [(BATCHING, "psutil", "model"), (DENSE, "usearch", "dense"), (NEST, "usearch", "dense")],
    ids=["batching", "dense", "nest"],
)
def test_a_missing_library_is_told_with_the_baseline_that_needs_it(
    monkeypatch: pytest.MonkeyPatch, baseline: Baseline, library: str, extra: str
) -> None:
    ar = load_baselines()["ar"]
    without(monkeypatch, library)
    check_libraries([ar])
    with pytest.raises(FailedPrecondition) as caught:
        check_libraries([ar, baseline])
    assert f"{baseline.name!r} needs {library}" in caught.value.message
    assert f"pip install 'nacre[{extra}]'" in caught.value.message


def test_every_baseline_needs_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "torch")
    for baseline in load_baselines().values():
        assert needed_by(baseline)["torch"] == "model"
        with pytest.raises(FailedPrecondition, match="needs torch"):
            check_libraries([baseline])


def test_with_everything_there_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "")
    check_libraries([*load_baselines().values(), DENSE, NEST])
