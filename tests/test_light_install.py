"""What a small device needs runs without torch and transformers."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKED = "import sys; sys.modules['torch'] = sys.modules['transformers'] = sys.modules['safetensors'] = None; "


@pytest.mark.parametrize(
    "work",
    [
        "import nacre.client",
        "import gateway.server",
        (
            "import drafter_service.server, nacre.store.redis_store; "
            "from nacre.runtime.proposers import build_proposer; "
            "from nacre.runtime.settings import DrafterSettings; "
            "assert all(build_proposer(DrafterSettings(method=name)).proposer.traits.name == name "
            "for name in ('lookup', 'stand', 'recycling-growth', 'suffix'))"
        ),
        "import nacre.cli.app",
    ],
    ids=["client", "gateway", "drafter without a model", "command line"],
)
def test_it_runs_without_torch(work: str) -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED + work], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
