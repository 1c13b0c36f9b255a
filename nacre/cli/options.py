"""Flags that mean the same in every command."""

from __future__ import annotations

from typing import Annotated

import typer

MAX_SEED = (1 << 63) - 1

Target = Annotated[
    str | None, typer.Option("--target", help="Target model: a directory, a hub id, or the bundled demo-target.")
]
Draft = Annotated[
    str | None, typer.Option("--draft", help="Draft model: a directory, a hub id, or the bundled demo-draft.")
]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help="The target's number format: bfloat16 or float32. The draft model keeps its own."),
]
Device = Annotated[str | None, typer.Option("--device", help="Where models run: cpu or cuda[:N].")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, max=1024, help="Compute threads of each process.")]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, max=MAX_SEED, help="Seed: the same seed gives the same text.")
]
Method = Annotated[str | None, typer.Option("--method", help="Where guesses come from: model or lookup.")]
Config = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="TOML file; default: ./nacre.toml if there is one.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")]
