"""Real services that share a Redis: their settings, what Redis has of a tenant, and what their metrics say."""

from __future__ import annotations

import asyncio
import contextlib
import json
import urllib.request
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from nacre.client import AsyncClient
from nacre.ids import tenant_name
from nacre.models import held_out_prompts
from nacre.runtime.processes import Child, ChildSpec
from nacre.sampling import SamplingParams
from nacre.store import Namespace
from nacre.store.keys import read_keys, write_key_file
from nacre.store.redis_store import RedisStore
from tests.services import Services, address
from tests.store.redis_cases import PATIENT_S, all_rows

TOKENS = 48


def settings_file(folder: Path, url: str) -> Path:
    """A nacre.toml whose section [store] names this Redis; everyone's outputs are logged."""
    if not (folder / "keys").exists():
        write_key_file(folder / "keys")
    file = folder / "nacre.toml"
    lines = [f"url = {json.dumps(url)}", f"key_file = {json.dumps(str(folder / 'keys'))}", 'log_tenants = ["*"]']
    file.write_text("\n".join(["[store]", *lines, ""]))
    return file


@contextlib.asynccontextmanager
async def gateway(running: Services, drafters: Sequence[Child], *keys: str) -> AsyncIterator[str]:
    """The address of one more gateway, with these drafters only."""
    arguments = ["--http-port", "0", "--grpc-port", "0", "--api-keys", ",".join(keys)]
    arguments += ["--verifiers", ",".join(map(address, running.verifiers))]
    if drafters:
        arguments += ["--drafters", ",".join(map(address, drafters))]
    child = await running.processes.start(ChildSpec("gateway", "gateway", tuple(arguments)))
    try:
        yield address(child)
    finally:
        await running.processes.end(child)


async def generated(where: str, key: str, *, drafters: int) -> tuple[list[int], int]:
    """One generation, always the same: (tokens, passes)."""
    async with AsyncClient(where, api_key=key) as client:
        vocabulary = await client.vocabulary()
        prompt = tuple(vocabulary.encode(held_out_prompts(1)[0], add_special_tokens=True)[:TOKENS])
        generation = await (await client.start(prompt, max_tokens=TOKENS, seed=3, drafters=drafters)).run()
        return list(generation.tokens), generation.statistics.passes


async def all_generated(where: str, key: str, prompts: int) -> tuple[list[list[int]], int]:
    """One generation of each of so many held-out prompts, at temperature 0.7: (their tokens, passes of all)."""
    texts, passes = [], 0
    async with AsyncClient(where, api_key=key) as client:
        for number, prompt in enumerate(held_out_prompts(prompts)):
            sampling = SamplingParams(temperature=0.7)
            generation = await (
                await client.start(prompt[-400:], max_tokens=TOKENS, seed=number, drafters=1, sampling=sampling)
            ).run()
            texts.append(list(generation.tokens))
            passes += generation.statistics.passes
    return texts, passes


async def until_stored(where: str, key: str, url: str, folder: Path, text: Sequence[int]) -> None:
    """Returns once Redis has every three tokens of a text, and the text itself."""
    wanted = {tuple(text[at : at + 3]) for at in range(len(text) - 3)}
    async with _store_of(where, key, url, folder) as (store, space), asyncio.timeout(60):
        while True:
            contexts = {context for _, context in await all_rows(store, space)}
            if wanted <= contexts and tuple(text) in await store.outputs(space):
                return
            await asyncio.sleep(0.2)


async def until_logged(where: str, key: str, url: str, folder: Path, texts: Sequence[Sequence[int]]) -> None:
    """Returns once Redis has all these outputs."""
    async with _store_of(where, key, url, folder) as (store, space), asyncio.timeout(60):
        while True:
            if set(map(tuple, texts)) <= set(await store.outputs(space)):
                return
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def _store_of(where: str, key: str, url: str, folder: Path) -> AsyncIterator[tuple[RedisStore, Namespace]]:
    """A store of our own, and what the gateway's model has there for a caller."""
    async with AsyncClient(where, api_key=key) as client:
        served = (await client.model()).handshake
    space = Namespace(tenant_name(key), served.model_id, served.model_revision, served.tokenizer_fingerprint)
    store = RedisStore(url, read_keys(folder / "keys"), timeout_s=PATIENT_S)
    try:
        yield store, space
    finally:
        await store.close()


async def metric(port: int, name: str) -> float:
    """A metric without labels, from a service's metrics port."""

    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    lines = (await asyncio.to_thread(read)).splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"nacre_store_{name} "))
    return float(value)


def warnings_of(child: Child) -> list[str]:
    """What a service has warned of its store so far."""
    return [line for line in child.tail if "WARNING nacre.store" in line]
