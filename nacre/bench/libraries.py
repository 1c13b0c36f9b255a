"""Libraries that baselines need beyond those of the base install, looked for before anything is run.

Rule: nothing is imported to find out.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from nacre.bench.baselines import Baseline
from nacre.errors import FailedPrecondition

#: Library -> extra of Nacre that brings it.
_MODEL = {"torch": "model", "transformers": "model", "safetensors": "model"}
_OF_WAYS = {"batching": {"psutil": "model"}}
_OF_METHODS = {"dense": {"usearch": "dense"}, "nest": {"usearch": "dense"}}


def needed_by(baseline: Baseline) -> dict[str, str]:
    """Library -> extra. Every baseline has the target in a process of its own."""
    methods = f"{(baseline.drafter or {}).get('method', '')}+{baseline.verifier.get('local', '')}".split("+")
    found = {**_MODEL, **_OF_WAYS.get(baseline.way, {})}
    for method in methods:
        found |= _OF_METHODS.get(method.strip(), {})
    return found


def check_libraries(baselines: Iterable[Baseline]) -> None:
    """Raises FailedPrecondition naming baseline and library if one is missing."""
    for baseline in baselines:
        for library, extra in needed_by(baseline).items():
            if find_spec(library) is None:
                raise FailedPrecondition(
                    f"baseline {baseline.name!r} needs {library}, which is not installed; run: "
                    f"pip install 'nacre[{extra}]', or leave the baseline out"
                )
