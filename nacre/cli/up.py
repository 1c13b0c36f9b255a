"""`nacre up`: verifiers, drafters and a gateway on this machine, until Ctrl-C."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated, Any

from nacre.cli import options as flags

LEVELS = ("debug", "info", "warning", "error")

if TYPE_CHECKING:
    from nacre.cli.stack import Stack, StackOptions
    from nacre.runtime.processes import Child, Processes


def up(
    http_port: Annotated[
        int, flags.whole("--http-port", "HTTP port of the gateway; 0 picks a free one.", 0, 65535, "PORT")
    ] = 8000,
    grpc_port: Annotated[
        int, flags.whole("--grpc-port", "gRPC port of the gateway; 0 picks a free one.", 0, 65535, "PORT")
    ] = 8001,
    verifiers: Annotated[int, flags.whole("--verifiers", "Verifiers to start.", 1, 64)] = 1,
    drafters: Annotated[int, flags.whole("--drafters", "Drafters to start.", 0, 64)] = 1,
    network_delay_ms: Annotated[
        float, flags.number("--network-delay-ms", "Delay between drafters and verifiers, one way.", 0, 60_000, "MS")
    ] = 0.0,
    target: flags.Target = None,
    draft: flags.Draft = None,
    dtype: flags.Dtype = None,
    device: flags.Device = None,
    threads: flags.Threads = None,
    seed: flags.Seed = None,
    method: flags.Method = None,
    local: flags.Local = None,
    datastore: flags.Datastore = None,
    config: flags.Config = None,
    log_level: Annotated[str, flags.one_of("--log-level", "What the services log", LEVELS)] = "warning",
    as_json: flags.Json = False,
) -> None:
    """Serve on this machine: verifiers, drafters and a gateway as child processes. Ctrl-C stops them all.

    A drafter that dies is started again, and so is one of several verifiers. What no flag says comes from nacre.toml
    and NACRE_* variables, as for the services themselves.

    \b
    nacre up
    nacre up --target Qwen/Qwen3-8B --draft Qwen/Qwen3-0.6B --dtype bfloat16 --threads 8
    nacre up --method lookup --drafters 2       # no draft model: guess from the text itself
    nacre up --local suffix                     # the verifier guesses, too
    nacre up --method model+rest --datastore corpus.rest
    nacre up --network-delay-ms 25              # as if the drafters were 50 ms round trip away
    """
    from nacre.cli.stack import StackOptions
    from nacre.runtime.processes import run_until_signalled

    wanted = StackOptions(
        target=target,
        draft=draft,
        dtype=dtype,
        device=device,
        threads=threads,
        seed=seed,
        method=method,
        local=local,
        datastore=datastore,
        verifiers=verifiers,
        drafters=drafters,
        http_port=http_port,
        grpc_port=grpc_port,
        network_delay_ms=network_delay_ms,
        log_level=log_level,
        config=config,
    )
    run_until_signalled(_serve(wanted, as_json))


async def _serve(wanted: StackOptions, as_json: bool) -> None:
    from nacre.cli.output import ChildLog, note, print_json
    from nacre.cli.stack import check, start_stack
    from nacre.runtime.processes import Processes

    check(wanted)

    log = ChildLog()
    async with AsyncExitStack() as resources:
        processes = await resources.enter_async_context(Processes(on_line=log))
        note("starting; a large model takes a while to load …")
        stack = await start_stack(wanted, processes, resources, say=note)
        if as_json:
            print_json(_addresses(stack))
        else:
            _introduce(stack)
        try:
            await _watch(stack, processes, note)
        finally:
            log.hush()
            note("stopping …")


async def _watch(stack: Stack, processes: Processes, note: Any) -> None:
    """Returns never; raises the failure of a child that nothing can do without."""
    from nacre.cli.stack import in_parallel
    from nacre.runtime.processes import with_flag

    # A sole verifier is not started again: what made it die would be hidden, and every session with it is lost anyway.
    replaceable = [*stack.drafters, *(stack.verifiers if len(stack.verifiers) > 1 else [])]
    vital = [child for child in stack.children if child not in replaceable]
    await in_parallel(
        *(_until_lost(child) for child in vital),
        *(
            processes.keep(child, with_flag(child.spec, "--grpc-port", child.ready["grpc_port"]), note)
            for child in replaceable
        ),
    )


async def _until_lost(child: Child) -> None:
    await child.wait()
    raise child.failure()


def _addresses(stack: Stack) -> dict[str, Any]:
    def of(child: Child) -> dict[str, Any]:
        return {"name": child.name, "pid": child.pid, **{k: v for k, v in child.ready.items() if k.endswith("port")}}

    assert stack.gateway is not None
    return {
        "model": stack.model,
        "http": f"http://{stack.http_address}/v1",
        "grpc": stack.grpc_address,
        "gateway": of(stack.gateway),
        "verifiers": [of(child) for child in stack.verifiers],
        "drafters": [of(child) for child in stack.drafters],
    }


def _introduce(stack: Stack) -> None:
    body = json.dumps({"model": stack.model, "prompt": "def fibonacci(n):", "max_tokens": 48, "temperature": 0.7})
    address = "" if stack.grpc_address.endswith(":8001") else f" --address {stack.grpc_address}"
    print(
        f"""
nacre is up and serves {stack.model} ({len(stack.verifiers)} verifier(s), {len(stack.drafters)} drafter(s))

  HTTP   http://{stack.http_address}/v1   (OpenAI-compatible)
  gRPC   {stack.grpc_address}

try:
  curl -s http://{stack.http_address}/v1/completions -H 'content-type: application/json' \\
    -d '{body}'
  nacre generate 'def fibonacci(n):'{address}

Ctrl-C stops everything.
""",
        flush=True,
    )
