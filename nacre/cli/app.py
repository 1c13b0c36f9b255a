"""All commands, in the order a newcomer meets them. Each module imports what it needs when it is called."""

from __future__ import annotations

import typer

from nacre.cli import bench, config, demo, doctor, generate, models, serve, simulate, store, train, up, version

_ABOUT = """Serve a large language model faster: drafters guess ahead, the verifier keeps the text exactly its own.

\b
  nacre demo                      see it work: three processes, one prompt, the same text, faster
  nacre up                        serve on http://127.0.0.1:8000 and gRPC 127.0.0.1:8001
  nacre generate 'import '        ask a running gateway; colours show who guessed each token
  nacre up --target my-model --draft my-draft --threads 4

Settings come from nacre.toml, NACRE_* environment variables and flags, later ones win: `nacre config show` tells.
"""

# Plain help: rich's takes longer to import than everything else together.
app = typer.Typer(
    name="nacre", help=_ABOUT, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False
)

app.command("demo")(demo.demo)
app.command("up")(up.up)
app.command("generate")(generate.generate)
app.add_typer(serve.app, name="serve")
app.add_typer(models.app, name="models")
app.add_typer(train.app, name="train")
app.add_typer(store.app, name="store")
app.add_typer(config.app, name="config")
app.command("bench")(bench.bench)
app.command("simulate")(simulate.simulate)
app.command("doctor")(doctor.doctor)
app.command("version")(version.version)
