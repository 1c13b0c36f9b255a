"""`nacre store`: look into the store, carry it elsewhere, remove a tenant; make the keys that hide it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nacre.cli import options as flags
from nacre.cli import store_build
from nacre.cli.store_access import KeyFile, Snapshot, Url, in_store, put_rows, store_settings, tenants_of

if TYPE_CHECKING:
    from nacre.cli.served_model import ServedModel
    from nacre.store import Store
    from nacre.store.portable import Section

app = typer.Typer(
    help="""Look into the store of what drafters learnt, carry it elsewhere, remove a tenant; fill it from a corpus.

\b
  nacre store stats
  nacre store tenant < api-key
  nacre store export rows.nacre --tenant acme
  nacre store purge --tenant acme
  nacre store build docs src --public --target ./my-model
  nacre store build docs src --out corpus.rest

A tenant is whoever has an API key: `nacre store tenant` tells its name. Behind a gateway without keys, and where a
verifier is called directly, it is `local`. Which store is meant says the section [store] of nacre.toml, or the flags of
each command.
""",
    rich_markup_mode=None,
)

Tenant = Annotated[str | None, flags.word("--tenant", "Only this tenant.", "NAME")]
_OTHERS = ("refuse", "adopt", "keep")


@app.command("stats")
def stats(
    tenant: Tenant = None,
    url: Url = None,
    key_file: KeyFile = None,
    snapshot: Snapshot = None,
    config: flags.Config = None,
    as_json: flags.Json = False,
) -> None:
    """Show how much the store holds, and how it is.

    \b
    nacre store stats
    nacre store stats --url redis://127.0.0.1:6379/0 --key-file keys --json
    """
    from nacre.cli.output import note, print_json
    from nacre.runtime.stores import tenant_keys
    from nacre.store import PUBLIC

    settings = store_settings(url, key_file, snapshot, config)
    named = tenant_keys(settings).tenants if settings.url else ()

    async def work(store: Store) -> Any:
        if tenant is not None or not settings.url:
            return await store.stats([tenant] if tenant else ())
        return await store.stats((*named, PUBLIC))  # Redis tells no names

    told = in_store(settings, work)
    if settings.url and tenant is None and not named:
        note("the key file names no tenant and Redis tells none, so only public rows are counted: say --tenant NAME")
    if as_json:
        print_json(told.as_dict())
        return
    print(f"{told.kind:<12} {'well' if told.healthy else 'not well'}")
    print(f"{'size':<12} {told.size_bytes / 1e6:,.1f} MB")
    for key, value in told.details.items():
        print(f"{key.replace('_', ' '):<12} {value}")
    for namespace, rows in told.namespaces:
        print(f"{rows:>10,} rows  {namespace}")
    if not told.namespaces:
        only_public = " in the public tier" if settings.url and not named else ""
        print(f"no rows of tenant {tenant}" if tenant is not None else f"no rows{only_public}")


@app.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    tenant: Tenant = None,
    url: Url = None,
    key_file: KeyFile = None,
    snapshot: Snapshot = None,
    config: flags.Config = None,
    as_json: flags.Json = False,
) -> None:
    """Write rows and logged outputs to a file, with a checksum. Token ids stand in it in clear.

    \b
    nacre store export rows.nacre --tenant acme
    """
    from nacre.cli.output import Steps, print_json
    from nacre.store.packing import pack
    from nacre.store.portable import Section, write_file

    settings = store_settings(url, key_file, snapshot, config)

    async def work(store: Store) -> list[Section]:
        sections = []
        for name in tenants_of(store, settings, tenant):
            for namespace in await store.namespaces(name):
                rows: list[bytes] = []
                with Steps().step(f"reading {namespace}") as advance:
                    async for page in store.pages(namespace):
                        rows += map(pack, page)
                        advance(len(page))
                sections.append(Section(namespace, rows, await store.outputs(namespace)))
        return sections

    sections = in_store(settings, work)
    size = write_file(file, sections)
    done = {
        "file": str(file),
        "size_bytes": size,
        "namespaces": len(sections),
        "rows": sum(len(section.rows) for section in sections),
        "outputs": sum(len(section.outputs) for section in sections),
    }
    if as_json:
        print_json(done)
        return
    print(f"{file}: {done['rows']:,} rows and {done['outputs']:,} outputs of {done['namespaces']} namespaces")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A file that `nacre store export` wrote.")],
    tenant: Annotated[
        str | None, flags.word("--tenant", "Whose rows they become; default: as in the file.", "NAME")
    ] = None,
    model: Annotated[
        str | None,
        flags.word("--model", "The target they are for; default: the verifier's, if settings name one.", "MODEL"),
    ] = None,
    other_models: Annotated[
        str, flags.one_of("--other-models", "What becomes of rows of another target or revision", _OTHERS)
    ] = "refuse",
    url: Url = None,
    key_file: KeyFile = None,
    snapshot: Snapshot = None,
    config: flags.Config = None,
    as_json: flags.Json = False,
) -> None:
    """Merge a file into the store, after its checksum was found right.

    Rows are read only by drafters for the very target, revision and tokenizer they are kept for. So rows that are not
    of the model are refused. `--other-models adopt` takes those of another target or revision as the model's own, as
    after another training step; those of another tokenizer never are, their token ids mean other words.
    `--other-models keep` asks nothing and keeps all rows as those of the model they are of: to move a whole store.

    \b
    nacre store import rows.nacre --model demo-target
    nacre store import rows.nacre --model ./my-model-v2 --other-models adopt
    nacre store import corpus.nacre --tenant public
    """
    from nacre.cli.output import Steps, note, print_json
    from nacre.cli.served_model import named_model
    from nacre.errors import InvalidArgument
    from nacre.store.portable import read_file, rows_of

    settings = store_settings(url, key_file, snapshot, config)
    size = file.stat().st_size if file.is_file() else 0
    with Steps().step(f"checking {file}", size) if size > _LARGE_BYTES else nullcontext(_unseen) as advance:
        sections = list(read_file(file, progress=advance))
    served = None if other_models == "keep" else named_model(model, config)
    if served is None and other_models == "adopt":
        raise InvalidArgument("--other-models adopt makes rows a model's own; say which with --model")
    sections = [_fitted(section, tenant, served, adopt=other_models == "adopt") for section in sections]

    async def work(store: Store) -> int:
        total = 0
        for section in sections:
            rows = list(rows_of(section))
            await put_rows(store, section.namespace, rows, f"merging {section.namespace}")
            if section.outputs:
                await store.put(section.namespace, (), section.outputs)
            total += len(rows)
        return total

    rows = in_store(settings, work, creates=True)
    if served is None and other_models == "refuse":
        note("no model is named (--model), so it was not asked whether the rows fit one")
    done = {
        "file": str(file),
        "rows": rows,
        "outputs": sum(len(section.outputs) for section in sections),
        "namespaces": [str(section.namespace) for section in sections],
    }
    if as_json:
        print_json(done)
        return
    print(f"{rows:,} rows and {done['outputs']:,} outputs merged into {len(sections)} namespaces")
    for section in sections:
        print(f"  {section.namespace}")


@app.command("purge")
def purge(
    tenant: Annotated[str, flags.word("--tenant", "Whose rows, outputs and names to remove.", "NAME")],
    url: Url = None,
    key_file: KeyFile = None,
    snapshot: Snapshot = None,
    config: flags.Config = None,
    as_json: flags.Json = False,
) -> None:
    """Remove everything a tenant has in the store. Verifiers that still serve it will write again.

    \b
    nacre store purge --tenant acme
    """
    from nacre.cli.output import Steps, print_json

    settings = store_settings(url, key_file, snapshot, config)

    async def work(store: Store) -> int:
        await store.namespaces(tenant)  # what cannot be asked is told before anything is begun
        with Steps().step(f"removing what {tenant} has"):
            return await store.purge(tenant)

    gone = in_store(settings, work, changes=True)
    if as_json:
        print_json({"tenant": tenant, "removed": gone})
        return
    print(f"{tenant}: {gone:,} {'keys' if settings.url else 'rows'} removed")


@app.command("key")
def key(
    file: Annotated[Path, typer.Argument(help="The key file to write; it must not exist yet.")],
    tenant: Annotated[
        str, flags.word("--tenant", "A tenant's own key; default: a root from which all tenants' come.", "NAME")
    ] = "*",
    as_json: flags.Json = False,
) -> None:
    """Make a key file, readable by you only. Whoever holds a tenant's key can read its rows.

    \b
    nacre store key keys
    nacre store key acme.key --tenant acme
    """
    from nacre.cli.output import print_json
    from nacre.store.keys import write_key_file

    write_key_file(file, (tenant,))
    if as_json:
        print_json({"file": str(file), "tenant": tenant})
    else:
        print(f"{file}: a key for {'all tenants' if tenant == '*' else tenant}; set key_file in [store] to it")


@app.command("tenant")
def tenant_(as_json: flags.Json = False) -> None:
    """Print the name of the tenant that an API key makes: what --tenant, log_tenants and key files want to know.

    The key is read from standard input, or from NACRE_API_KEY, so that no list of processes shows it.

    \b
    nacre store tenant < api-key
    nacre store purge --tenant "$(NACRE_API_KEY=... nacre store tenant)"
    """
    import os
    import sys

    from nacre.cli.output import print_json
    from nacre.errors import InvalidArgument
    from nacre.ids import tenant_name

    given = os.environ.get("NACRE_API_KEY", "")
    if not given and sys.stdin.isatty():
        given = typer.prompt("API key", hide_input=True, err=True)
    elif not given:
        given = sys.stdin.readline()
    given = given.strip()
    if not given:
        raise InvalidArgument("no API key was given; write it to standard input or set NACRE_API_KEY")
    name = tenant_name(given)
    if as_json:
        print_json({"tenant": name})
    else:
        print(name)


app.command("build")(store_build.build)


#: Files that take long enough to check for a bar.
_LARGE_BYTES = 64 << 20


def _unseen(amount: int) -> None:
    """Progress of what is over before anyone looks."""


def _fitted(section: Section, tenant: str | None, served: ServedModel | None, *, adopt: bool) -> Section:
    """The section as it goes into the store. Raises FailedPrecondition if it is not of the model."""
    from dataclasses import replace

    from nacre.errors import FailedPrecondition
    from nacre.store.portable import fitting

    found = section.namespace
    if served is None:
        return replace(section, namespace=replace(found, tenant=tenant or found.tenant))
    wanted = served.namespace(tenant or found.tenant)
    if found.tokenizer_fingerprint == wanted.tokenizer_fingerprint:
        if adopt:
            return replace(section, namespace=wanted)
        if (found.target, found.revision) != (wanted.target, wanted.revision):
            raise FailedPrecondition(
                f"these rows are of {found.target}@{found.revision or '-'} and {served.source} is "
                f"{wanted.target}@{wanted.revision or '-'}, whose drafters would never read them; the tokenizer is the "
                "same: take them as its own with --other-models adopt, or name the right --model"
            )
    return fitting(section, wanted)
