"""Finds, loads and checks the compiled library; knows what to say when it is missing.

Rule: nothing here touches a tensor; the modules beside it turn validated tensors into the integers that C sees.
The library is plain C without Python's API: loading is `ctypes.CDLL` of the file that setup.py built beside this one.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import os
from pathlib import Path

ABI_VERSION = 6
ISAS = ("portable", "avx2", "avx512", "avx512_bf16")
MAX_THREADS = 64
REMEDY = "run `make setup` (or `pip install -e .`); it needs a C compiler (`cc`: gcc 9+ or clang 12+)"


class KernelsUnavailable(RuntimeError):
    """The compiled library is missing, stale or unloadable; the message says which, and the remedy."""


@functools.cache
def _load() -> ctypes.CDLL | str:
    """The library, or the one-line reason why there is none."""
    here = Path(__file__).parent
    candidates = [here / f"_cpu{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        return f"the compiled kernels are missing ({candidates[0]}): {REMEDY}"
    try:
        lib = ctypes.CDLL(str(path))
        found = int(lib.nk_abi_version())
    except (OSError, AttributeError) as error:
        return f"the compiled kernels at {path} do not load ({error}): {REMEDY}"
    if found != ABI_VERSION:
        return f"the compiled kernels at {path} have version {found}, expected {ABI_VERSION}: {REMEDY}"
    _declare(lib)
    wanted = os.environ.get("NACRE_KERNELS_ISA")
    if wanted is not None:
        if wanted not in ISAS:
            return f"NACRE_KERNELS_ISA={wanted!r} is not one of {', '.join(ISAS)}"
        if not lib.nk_set_isa(ISAS.index(wanted)):
            return f"NACRE_KERNELS_ISA={wanted!r}: this CPU does not have it; unset the variable"
    return lib


def _declare(lib: ctypes.CDLL) -> None:
    pointer, number, count = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    lib.nk_compiler.restype = ctypes.c_char_p
    lib.nk_packed_bytes.restype = count
    lib.nk_packed_bytes.argtypes = (number, count, count)
    lib.nk_prefer_large_pages.restype = None
    lib.nk_prefer_large_pages.argtypes = (pointer, count)
    lib.nk_pack.restype = None
    lib.nk_pack.argtypes = (pointer, number, count, count, pointer)
    lib.nk_linear.argtypes = (pointer, number, pointer, number, pointer, pointer, count, count, count, number)
    lib.nk_attention.argtypes = (pointer,)
    lib.nk_gate.restype = None
    lib.nk_gate.argtypes = (pointer, pointer, pointer, number, number, count, number)
    lib.nk_packed_8_bytes.restype = count
    lib.nk_packed_8_bytes.argtypes = (count, count)
    lib.nk_pack_8.restype = None
    lib.nk_pack_8.argtypes = (pointer, count, count, pointer)
    lib.nk_decode.argtypes = (pointer, pointer)
    lib.nk_race_top.argtypes = (pointer, count, count, count, pointer, pointer, pointer, number, pointer, pointer)
    lib.nk_rms_norm.argtypes = (pointer, pointer, pointer, number, number, count, count, ctypes.c_double, number)


def available() -> bool:
    """Whether the compiled kernels are loaded (or can be); False means the torch reference is used."""
    return not isinstance(_load(), str)


def require() -> ctypes.CDLL:
    """The loaded library; raises `KernelsUnavailable` with the remedy."""
    lib = _load()
    if isinstance(lib, str):
        raise KernelsUnavailable(lib)
    return lib


def isa() -> str:
    """The instruction set in use: `portable`, `avx2`, `avx512` or `avx512_bf16`; all give the same bits."""
    return ISAS[require().nk_get_isa()]


def supported_isas() -> tuple[str, ...]:
    """The instruction sets that this CPU can run, slowest first."""
    best = require().nk_best_isa()
    return ISAS[: best + 1]


def set_isa(name: str) -> None:
    """Choose the instruction set for the whole process (tests and benchmarks; the default is the best one)."""
    if name not in supported_isas():
        raise ValueError(f"instruction set {name!r} is not one of {', '.join(supported_isas())} on this CPU")
    require().nk_set_isa(ISAS.index(name))


def check_threads(threads: int) -> int:
    if not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"threads is {threads}; it must lie in 1..{MAX_THREADS}")
    return threads


def describe() -> str:
    """One line for `doctor` and logs: instruction set and compiler, or why the reference is in use."""
    lib = _load()
    if isinstance(lib, str):
        return f"torch reference: {lib}"
    return f"compiled, {isa()} (same bits on every instruction set), built with {lib.nk_compiler().decode()}"
