"""`nacre models`: what is bundled, what is cached, what a directory holds; and widening a model for benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nacre.cli import options as flags

if TYPE_CHECKING:
    from nacre.cli.model_files import ModelFiles

app = typer.Typer(rich_markup_mode=None, invoke_without_command=True)


@app.callback()
def models(context: typer.Context, as_json: flags.Json = False) -> None:
    """List the bundled models and the cache, look into a model directory, or inflate a model.

    \b
    nacre models
    nacre models show ./my-model
    nacre models inflate demo-target ./big --parameters 113M
    """
    if context.invoked_subcommand is not None:
        return
    from nacre.cli.model_files import cache_folder, cached_models, read_model_files
    from nacre.cli.output import print_json
    from nacre.errors import NacreError
    from nacre.models import BUNDLED, bundled

    shipped: dict[str, Any] = {}
    for name in BUNDLED:
        try:
            shipped[name] = read_model_files(bundled(name))
        except NacreError as error:
            shipped[name] = error.message
    cached = []
    for path in cached_models():
        try:
            cached.append(read_model_files(path))
        except NacreError:  # somebody is deleting it
            continue
    if as_json:
        print_json(
            {
                "bundled": {name: f if isinstance(f, str) else f.as_dict() for name, f in shipped.items()},
                "cache": {"path": str(cache_folder()), "models": [files.as_dict() for files in cached]},
            }
        )
        return
    print("bundled")
    for name, found in shipped.items():
        print(f"  {name:<12} {found if isinstance(found, str) else _one_line(found)}")
    print(f"cache ({cache_folder()}; may be deleted at any time)")
    for files in cached:
        print(f"  {files.path.name}  {_one_line(files)}")
    if not cached:
        print("  empty")


@app.command("show")
def show(
    model: Annotated[str, typer.Argument(help="A model directory, or the name of a bundled model.")],
    as_json: flags.Json = False,
) -> None:
    """Show what a model directory holds, and its card.

    \b
    nacre models show demo-target
    nacre models show ./my-model --json
    """
    from nacre.cli.model_files import read_model_files, resolve
    from nacre.cli.output import print_json

    files = read_model_files(Path(resolve(model)).expanduser())
    if as_json:
        print_json(files.as_dict())
        return
    for key, value in files.as_dict().items():
        if value is None:
            continue
        text = ", ".join(value) if isinstance(value, list) else f"{value:,}" if type(value) is int else value
        print(f"{key.replace('_', ' '):<14} {text}")
    card = files.path / "README.md"
    if card.is_file():
        print("\n" + card.read_text("utf-8").strip())


@app.command("inflate")
def inflate(
    source: Annotated[str, typer.Argument(help="A model directory, or the name of a bundled model.")],
    out: Annotated[Path, typer.Argument(help="The directory to write; it must not exist yet, or be empty.")],
    parameters: Annotated[str, flags.word("--parameters", "About how many parameters, e.g. 113M.", "N")] = "113M",
    seed: flags.Seed = None,
    as_json: flags.Json = False,
) -> None:
    """Write a wider model that computes the same function, to measure serving at a larger model's memory traffic.

    The added neurons contribute exactly nothing: the text stays the source's. Say "inflated" with every figure.

    \b
    nacre models inflate demo-target ./big-target
    nacre models inflate demo-target ./huge-target --parameters 300M
    """
    from nacre.cli.model_files import parse_count, read_model_files, resolve
    from nacre.cli.output import Steps, print_json
    from nacre.errors import InvalidArgument

    count = parse_count(parameters)
    folder = Path(resolve(source)).expanduser()
    read_model_files(folder)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidArgument(f"{out} exists and is not empty; choose another directory")
    with Steps().step(f"inflating {folder.name} to {count / 1e6:.0f} M parameters"):
        from nacre.training.inflate import inflate as write_inflated

        write_inflated(folder, out, parameters=count, seed=seed or 0)
    files = read_model_files(out)
    if as_json:
        print_json(files.as_dict())
    else:
        print(f"{out}: {_one_line(files)}")


def _one_line(files: ModelFiles) -> str:
    told = f"{files.architecture}, {files.parameters / 1e6:.1f} M parameters, {files.size_bytes / 1e6:.1f} MB"
    if files.inflated_from:
        told += f" (inflated: {files.inflated_from / 1e6:.1f} M do the work)"
    return told
