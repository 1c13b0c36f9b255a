"""`nacre store`: look into the store, carry it elsewhere, remove a tenant; make the keys that hide it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from nacre.cli import options as flags
from nacre.cli import store_build

if TYPE_CHECKING:
    from nacre.store import Store

T = TypeVar("T")

app = typer.Typer(
    help="""Look into the store of what drafters learnt, carry it elsewhere, remove a tenant; build a datastore.

\b
  nacre store stats
  nacre store export rows.nacre --tenant acme
  nacre store purge --tenant acme
  nacre store build docs src --out corpus.rest

Which store is meant says the section [store] of nacre.toml, or the flags of each command.
""",
    rich_markup_mode=None,
)

Url = Annotated[
    str | None, flags.word("--url", "Redis: redis://host:port/db, rediss://, redis+cluster:// or unix://.", "URL")
]
KeyFile = Annotated[str | None, flags.word("--key-file", "Tenant keys; needed for Redis.", "FILE")]
Snapshot = Annotated[str | None, flags.word("--snapshot", "Snapshot of a local store, instead of Redis.", "FILE")]
Tenant = Annotated[str | None, flags.word("--tenant", "Only this tenant.", "NAME")]


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
    from nacre.cli.output import print_json

    settings = _settings(url, key_file, snapshot, config)

    async def work(store: Store) -> Any:
        return await store.stats([tenant] if tenant else ())

    told = _run(settings, work)
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
        print("no rows" if tenant is None else f"no rows of tenant {tenant}")


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

    settings = _settings(url, key_file, snapshot, config)

    async def work(store: Store) -> list[Section]:
        sections = []
        for name in _tenants(store, settings, tenant):
            for namespace in await store.namespaces(name):
                rows: list[bytes] = []
                with Steps().step(f"reading {namespace}") as advance:
                    async for page in store.pages(namespace):
                        rows += map(pack, page)
                        advance(len(page))
                sections.append(Section(namespace, rows, await store.outputs(namespace)))
        return sections

    sections = _run(settings, work)
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
        str | None, flags.word("--model", "Refuse rows of another tokenizer than this model's.", "MODEL")
    ] = None,
    url: Url = None,
    key_file: KeyFile = None,
    snapshot: Snapshot = None,
    config: flags.Config = None,
    as_json: flags.Json = False,
) -> None:
    """Merge a file into the store, after its checksum was found right.

    \b
    nacre store import rows.nacre --model demo-target
    nacre store import corpus.nacre --tenant public
    """
    import dataclasses

    from nacre.cli.output import Steps, print_json
    from nacre.store.portable import fitting, read_file, rows_of

    settings = _settings(url, key_file, snapshot, config)
    fingerprint = _fingerprint(model) if model else None
    size = file.stat().st_size if file.is_file() else 0
    with Steps().step(f"checking {file}", size) if size > _LARGE_BYTES else nullcontext(_unseen) as advance:
        sections = list(read_file(file, progress=advance))
    for place, section in enumerate(sections):
        wanted = dataclasses.replace(
            section.namespace,
            tenant=tenant or section.namespace.tenant,
            tokenizer_fingerprint=fingerprint or section.namespace.tokenizer_fingerprint,
        )
        sections[place] = fitting(section, wanted)

    async def work(store: Store) -> int:
        total = 0
        for section in sections:
            rows = list(rows_of(section))
            with Steps().step(f"merging {section.namespace}", len(rows)) as advance:
                for at in range(0, len(rows), _PART):
                    await store.put(section.namespace, rows[at : at + _PART])
                    advance(len(rows[at : at + _PART]))
                if section.outputs:
                    await store.put(section.namespace, (), section.outputs)
            total += len(rows)
        return total

    rows = _run(settings, work, changes=True)
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

    settings = _settings(url, key_file, snapshot, config)

    async def work(store: Store) -> int:
        await store.namespaces(tenant)  # what cannot be asked is told before anything is begun
        with Steps().step(f"removing what {tenant} has"):
            return await store.purge(tenant)

    gone = _run(settings, work, changes=True)
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


app.command("build")(store_build.build)


#: Files that take long enough to check for a bar.
_LARGE_BYTES = 64 << 20
#: Rows handed to the store at a time: what a progress bar moves by.
_PART = 4096


def _unseen(amount: int) -> None:
    """Progress of what is over before anyone looks."""


def _settings(url: str | None, key_file: str | None, snapshot: str | None, config: str | None) -> Any:
    from nacre.runtime.settings import StoreSettings, load_settings

    given = {"--url": url, "--key-file": key_file, "--snapshot": snapshot, "--config": config}
    arguments = [word for flag, value in given.items() if value is not None for word in (flag, value)]
    return load_settings(StoreSettings, "store", arguments, prog="nacre store").settings


def _run(settings: Any, work: Callable[[Store], Awaitable[T]], *, changes: bool = False) -> T:
    import asyncio

    async def all_of_it() -> T:
        async with _opened(settings, changes) as store:
            return await work(store)

    return asyncio.run(all_of_it())


@asynccontextmanager
async def _opened(settings: Any, changes: bool) -> AsyncIterator[Store]:
    """Redis, or the snapshot of a local store; that is written back whole if it was to be changed."""
    from nacre.errors import InvalidArgument, NotFound
    from nacre.runtime.stores import build_store, local_store

    if settings.url:
        store = build_store(settings)
        try:
            yield store
        finally:
            await store.close()
        return
    if not settings.snapshot:
        raise InvalidArgument(
            "the store is inside the processes that use it; set url or snapshot in [store] of nacre.toml, or --url"
        )
    local = local_store(settings)
    try:
        local.load()
    except NotFound:
        if not changes:
            raise InvalidArgument(
                f"there is no snapshot {settings.snapshot} yet; a service writes it when it stops, and every minute"
            ) from None
    yield local
    if changes:
        await local.save()


def _tenants(store: Store, settings: Any, tenant: str | None) -> Sequence[str]:
    """Those asked for, or all there are. Raises InvalidArgument where that cannot be known."""
    from nacre.errors import InvalidArgument
    from nacre.runtime.stores import tenant_keys
    from nacre.store import PUBLIC, LocalStore

    if tenant is not None:
        return (tenant,)
    if isinstance(store, LocalStore):
        return store.tenants()
    listed = tenant_keys(settings).tenants
    if not listed:
        raise InvalidArgument("the key file names no tenant and Redis tells none; say which with --tenant")
    return (*listed, PUBLIC)


def _fingerprint(model: str) -> str:
    from nacre.cli.model_files import resolve
    from nacre.ids import tokenizer_fingerprint

    return tokenizer_fingerprint(Path(resolve(model)).expanduser() / "tokenizer.json")
