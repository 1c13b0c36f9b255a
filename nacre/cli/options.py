"""Flags that mean the same in every command, and how their values are read.

Rule: a value that cannot be right is told by flag, value and bound, in our own words whatever typer's are.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nacre.errors import InvalidArgument

MAX_SEED = (1 << 63) - 1
MAX_UINT32 = (1 << 32) - 1


def whole(flag: str, text: str, least: int, most: int, metavar: str = "N") -> Any:
    """An option that is a whole number from `least` to `most`."""

    def read(value: object) -> int:
        try:
            number = int(str(value).replace("_", ""))
        except ValueError:
            number = None
        if number is None or not least <= number <= most:
            raise InvalidArgument(f"{flag} is {value}; it must be a whole number from {least} to {most}")
        return number

    return typer.Option(flag, help=text, parser=read, metavar=metavar)


def number(flag: str, text: str, least: float, most: float, metavar: str = "X") -> Any:
    """An option that is a number from `least` to `most`."""

    def read(value: object) -> float:
        try:
            amount = float(str(value))
        except ValueError:
            amount = float("nan")
        if not least <= amount <= most:
            raise InvalidArgument(f"{flag} is {value}; it must be a number from {least:g} to {most:g}")
        return amount

    return typer.Option(flag, help=text, parser=read, metavar=metavar)


def one_of(flag: str, text: str, choices: tuple[str, ...]) -> Any:
    """An option that is one of a few words."""

    def read(value: object) -> str:
        if value not in choices:
            raise InvalidArgument(f"{flag} is {value!r}; it must be one of {', '.join(choices)}")
        return str(value)

    return typer.Option(flag, help=f"{text}: {', '.join(choices)}.", parser=read, metavar="WORD")


def word(flag: str, text: str, metavar: str) -> Any:
    return typer.Option(flag, help=text, metavar=metavar)


Target = Annotated[
    str | None, word("--target", "Target model: a directory, a hub id, or the bundled demo-target.", "MODEL")
]
Draft = Annotated[
    str | None, word("--draft", "Draft model: a directory, a hub id, or the bundled demo-draft.", "MODEL")
]
Dtype = Annotated[
    str | None, word("--dtype", "The target's numbers: bfloat16 or float32. The draft model keeps its own.", "TYPE")
]
Parameters = Annotated[
    str | None, word("--parameters", "Inflate the target to so many, 0: not; default: 113M if it is bundled.", "N")
]
Device = Annotated[str | None, word("--device", "Where models run: cpu or cuda[:N].", "DEVICE")]
Threads = Annotated[int | None, whole("--threads", "Compute threads of each process.", 1, 1024)]
Seed = Annotated[int | None, whole("--seed", "The same seed gives the same text.", 0, MAX_SEED)]
Method = Annotated[
    str | None, word("--method", "Where guesses come from: model, lookup, …; fused if joined by +.", "NAME")
]
Local = Annotated[
    str | None, word("--local", "What guesses in the verifier itself: methods without a model, joined by +.", "NAMES")
]
Datastore = Annotated[str | None, word("--datastore", "Corpus for method rest, made by nacre store build.", "FILE")]
Config = Annotated[str | None, word("--config", "TOML file; default: ./nacre.toml if there is one.", "FILE")]
Temperature = Annotated[float, number("--temperature", "0 is greedy, 1 the model's own distribution.", 0, 1e6)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")]
