"""What copies add at best: a share for every length of match, the draft's own where they add nothing."""

from __future__ import annotations

import json

import pytest

from nacre.bench.copy_worth import WEIGHTS, Place, main, worth


def place(matched: int, *right: float) -> Place:
    return Place(matched, {weight: weight in right for weight in (0.0, *WEIGHTS)} if matched else {0.0: 0.0 in right})


def test_the_best_weight_is_chosen_for_each_length_of_match() -> None:
    found = [place(0, 0.0), place(0), place(2, 0.0), place(3, 0.0, 0.5), place(16, 0.9), place(16, 0.9, 0.0)]
    told = worth(found)
    assert (told["places"], told["draft"], told["mixture"]) == (6, round(4 / 6, 4), round(5 / 6, 4))
    assert [
        (part["matched"], part["places"], part["draft"], part["mixture"], part["weight"]) for part in told["by_match"]
    ] == [
        (0, 2, 0.5, 0.5, 0.0),
        (2, 2, 1.0, 1.0, 0.0),
        (16, 2, 0.5, 1.0, 0.9),
    ]


@pytest.mark.parametrize("temperature", ["0", "0.7"])
def test_it_runs_over_the_bundled_pair(capsys: pytest.CaptureFixture[str], temperature: str) -> None:
    assert main(["--prompts", "2", "--tokens", "24", "--temperature", temperature, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["places"] == 48
    assert 0.6 < told["draft"] <= told["mixture"] <= 1.0
    assert main(["--prompts", "1", "--tokens", "4"]) == 0
    assert "all" in capsys.readouterr().out


def test_what_cannot_be_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--temperature", "3"])
    assert "temperature is 3.0; it must be 0 to 2" in capsys.readouterr().err
