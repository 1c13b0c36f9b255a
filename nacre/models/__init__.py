"""The models that ship with Nacre, and text that they have never seen.

Rule: nothing here needs torch, transformers or a network; a bundled model is an ordinary Hugging Face
directory inside the package, and held-out text is read from the running interpreter's own standard library.
"""

from __future__ import annotations

import json
from pathlib import Path

from nacre.errors import NotFound
from nacre.models.python_text import TEXTS, Module, is_held_out, prompts_from, standard_library

BUNDLED = ("demo-target", "demo-draft")

_FOLDER = Path(__file__).parent

__all__ = [
    "BUNDLED",
    "TEXTS",
    "Module",
    "bundled",
    "held_out_modules",
    "held_out_prompts",
    "is_held_out",
    "located",
    "prompts_from",
    "standard_library",
]


def bundled(name: str) -> Path:
    """The directory of a bundled model; NotFound names those there are."""
    folder = _FOLDER / name
    if name not in BUNDLED or not (folder / "config.json").is_file():
        raise NotFound(f"no bundled model {name!r}; there are: {', '.join(BUNDLED)}", param="model")
    return folder


def located(source: str) -> str:
    """Where a model named on a command line is: a bundled name becomes its directory, all else stays as it is."""
    return str(bundled(source)) if source in BUNDLED else source


def held_out_modules() -> list[Module]:
    """The recorded held-out modules that this interpreter has and that training would hold out, sorted by
    name.

    The record (`held_out.json`) was written when the pair was trained; a module that this interpreter lacks
    is left out, one that it adds is not on the record and is left out too.
    """
    recorded = set(json.loads((_FOLDER / "held_out.json").read_text(encoding="utf-8"))["modules"])
    return [module for module in standard_library() if module.name in recorded]


def held_out_prompts(count: int, *, characters: int = 600, text: str = "mixed") -> list[str]:
    """`count` prompts of real text that the bundled models never saw, the same ones on every call.

    `text` is one of `TEXTS`. Mixed: every fourth begins with the English of a documentation string, the others with a
    line of code. Raises NotFound where the interpreter comes without its library's source.
    """
    return prompts_from(held_out_modules(), count, characters=characters, text=text)
