"""How far and how wide to guess: one module per policy."""

from __future__ import annotations

from nacre.pacing.calibration import Calibration

__all__ = ["Calibration"]
