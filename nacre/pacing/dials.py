"""Checks of the numbers a policy is built with: InvalidArgument names the parameter, its value and its bounds."""

from __future__ import annotations

from nacre.errors import InvalidArgument


def whole(name: str, value: int, least: int, most: int) -> int:
    """`value` if it is an integer from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidArgument(f"{name} is {value}; it must be a whole number from {least} to {most}", param=name)
    return value


def real(name: str, value: float, low: float, high: float) -> float:
    """`value` as a float if it is a number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidArgument(f"{name} is {value}; it must be a number from {low:g} to {high:g}", param=name)
    return float(value)
