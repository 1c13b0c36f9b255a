"""Kernel tests need the compiled library: without it each of them fails with the remedy, none is skipped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from nacre_kernels import library


@pytest.fixture(autouse=True)
def compiled_kernels() -> Iterator[None]:
    library.require()
    before = library.isa()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    library.set_isa(before)


@pytest.fixture
def isas() -> tuple[str, ...]:
    """What this CPU can run, best first."""
    return library.supported_isas()[::-1]
