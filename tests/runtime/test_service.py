"""What every service process does alike."""

from __future__ import annotations

import gc
import json

import pytest

from nacre.runtime.service import announce_ready


def test_once_ready_nothing_that_is_loaded_is_looked_through_again(capsys: pytest.CaptureFixture[str]) -> None:
    gc.unfreeze()
    try:
        announce_ready(service="test", port=1)
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
    word, told = capsys.readouterr().out.split(maxsplit=1)
    assert word == "ready"
    assert json.loads(told) == {"service": "test", "port": 1}
