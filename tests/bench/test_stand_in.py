"""A bundled target is inflated by what the machine reads, and as before when a run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nacre.bench.results import FORMAT
from nacre.bench.stand_in import STEPS_M, parameters_for, parameters_of
from nacre.errors import NotFound


@pytest.mark.parametrize(
    ("gb_per_s", "parameters"), [(0.1, "113M"), (11, "113M"), (13, "160M"), (38, "452M"), (48, "452M"), (900, "904M")]
)
def test_a_faster_memory_gets_a_larger_target(gb_per_s: float, parameters: str) -> None:
    assert parameters_for(gb_per_s * 1e9) == parameters


@pytest.mark.parametrize(
    ("target", "parameters"), [(f"demo-target-{STEPS_M[2]}M", "226M"), ("demo-target", None), ("my-model-7B", "7B")]
)
def test_a_run_that_goes_on_has_the_target_that_it_had(tmp_path: Path, target: str, parameters: str | None) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"format": FORMAT, "identity": {"rig": {"target": target}}}))
    assert parameters_of(file) == parameters


def test_a_run_that_never_was_has_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        parameters_of(tmp_path / "none.json")
