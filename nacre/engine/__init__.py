"""Models: loading, the packed ragged forward pass, the KV pool and its prefix cache. See `engine.py`."""

from __future__ import annotations

from nacre.engine.engine import DEFAULT_KV_BYTES, Engine, EngineInfo
from nacre.engine.kv_pool import PoolUse
from nacre.engine.loading import LoadedModel, load_model
from nacre.engine.rows import TIP, Admission, RowBlock, StepResult

__all__ = [
    "DEFAULT_KV_BYTES",
    "TIP",
    "Admission",
    "Engine",
    "EngineInfo",
    "LoadedModel",
    "PoolUse",
    "RowBlock",
    "StepResult",
    "load_model",
]
