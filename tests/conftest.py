"""Fixtures for all tests."""

from tests.tiny_models import tiny_pair

__all__ = ["tiny_pair"]
