"""The benchmark of guessing from tables: every method is filled and guesses; speed itself is not tested."""

from __future__ import annotations

import json

import pytest

from nacre.bench import table_drafting
from nacre.bench.table_drafting import METHODS, NODES, SUFFIX_UPDATE


def test_it_tells_of_every_method_in_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert table_drafting.main(["--json", "--ngrams", "4000", "--proposals", "20"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["results"]) == [*METHODS, SUFFIX_UPDATE]
    for name, result in report["results"].items():
        assert 0 < result["median_us"] <= result["p95_us"]
        if name != SUFFIX_UPDATE:
            assert 0 < result["guesses"] <= NODES
            assert result["stored"] > 1500


def test_it_tells_of_one_method_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert table_drafting.main(["--ngrams", "800", "--proposals", "10", "--methods", "stand-race"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["stand-race", "median_us"]


def test_a_method_that_is_unknown_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        table_drafting.main(["--methods", "stand,x"])
    assert "unknown methods x; choose from stand" in capsys.readouterr().err
