"""How many parameters the bundled target is inflated to, so that a pass takes about as long as a large model's.

Round-trip times are milliseconds, so what they mean depends on how long a pass takes: a row through 113 M parameters
takes 29 ms where memory gives 11 GB/s, as one through 70 B does on accelerators, and 7 ms where it gives 40. So the
target grows with what one core reads, in steps: a machine that is a little faster today measures the same model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nacre.bench.results import read_results

#: Reading all weights once takes about so long, and a pass of one row a third more.
READING_S = 0.018
BYTES_PER_PARAMETER = 2
#: Millions of parameters, a factor of the square root of two apart.
STEPS_M = (113, 160, 226, 320, 452, 640, 904)


def parameters_for(bytes_per_s: float) -> str:
    """The least step that is no faster than READING_S, or the largest; as `--parameters` takes it."""
    wanted = bytes_per_s * READING_S / BYTES_PER_PARAMETER / 1e6
    return f"{next((step for step in STEPS_M if step >= wanted), STEPS_M[-1])}M"


def parameters_of(results: Path) -> str | None:
    """What the target of an earlier run was inflated to; None if it was not. Raises NotFound or FailedPrecondition."""
    rig: dict[str, Any] = read_results(results)["identity"].get("rig", {})
    name, dash, parameters = str(rig.get("target", "")).rpartition("-")
    return parameters if dash and name and parameters[:-1].replace(".", "").isdigit() else None
