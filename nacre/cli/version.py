"""`nacre version`: this version and those of the libraries a bug report should name."""

from __future__ import annotations

import platform

from nacre.cli.options import Json

LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "grpcio", "protobuf")


def version(as_json: Json = False) -> None:
    """Show the versions of Nacre, Python and the libraries that matter.

    \b
    nacre version
    nacre version --json
    """
    from nacre.cli.output import print_json

    found = versions()
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        print(f"{name:<13} {value or 'not installed'}")


def versions() -> dict[str, str | None]:
    """Name -> version, None where it is not installed."""
    return {"nacre": installed("nacre"), "python": platform.python_version(), **{n: installed(n) for n in LIBRARIES}}


def installed(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    try:
        return version_of(distribution)
    except PackageNotFoundError:
        return None
