"""Builds the C kernels; everything else is declared in pyproject.toml.

They are optional at build time: without a C compiler the package installs and falls back to the torch reference
(`nacre doctor` says so), because a drafter without a model needs no kernel at all.
"""

from pathlib import Path

from setuptools import Extension, setup

FOLDER = Path("kernels/nacre_kernels")
SOURCES = ("dispatch", "pool", "linear", "attention", "rowwise", "decoder", "race", "growth")
SOURCES += ("isa_portable", "isa_avx2", "isa_avx512")
HEADERS = ("kernels", "tiles", "decoder", "decoder_tiles", "isa_x86", "fixed_order")

setup(
    ext_modules=[
        Extension(
            "nacre_kernels._cpu",  # plain C, loaded with ctypes
            sources=[str(FOLDER / f"{name}.c") for name in SOURCES],
            depends=[str(FOLDER / f"{name}.h") for name in HEADERS],
            # No contraction to fused multiply-add and no fast-math: fusing is explicit, so all rows round the same way
            # everywhere. Instruction sets are chosen per function and at run time, never by -march.
            extra_compile_args=[
                *("-O3", "-std=gnu11", "-pthread", "-fvisibility=hidden", "-Wall", "-Wextra"),
                *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fno-strict-aliasing"),
            ],
            extra_link_args=["-pthread"],
            libraries=["m"],
            optional=True,
        )
    ]
)
