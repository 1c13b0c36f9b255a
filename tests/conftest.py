"""Fixtures for all tests."""

from tests.services import slow_target
from tests.tiny_models import tiny_pair

__all__ = ["slow_target", "tiny_pair"]
