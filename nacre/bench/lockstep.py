"""A client that drafts and waits: classic remote speculative decoding, and PEARL in lock-step, the rivals of Nacre.

`python -m nacre.bench.lockstep --socket PATH --draft DIR` does jobs for `nacre bench`. It owns its session and drafts
on the owner's own stream, in the event loop itself: between a verdict and the next draft is no thread and no queue.
Wire, engine, draft model and noise are Nacre's; the verifier (`verifier_service.lockstep`) starts pass k only once k
messages have come.

`sync` (Leviathan et al. 2023, over a network): the first pass reads the prompt; then draft as a pacing policy says,
send, wait for the verdict, repeat. `pearl` (Liu et al. 2024): a window ahead. The first window is drafted while the
prompt is read; after each verdict the next one is drafted, below the window that is being verified meanwhile, or below
the text if that has died. As everywhere here, the token after the last right guess comes for free.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import uvloop

from nacre.bench.jobs import serve_jobs
from nacre.bench.lockstep_round import Drafting, Rounds, Stream, Times, Windows
from nacre.bench.one_session import TENANT_METADATA, counted
from nacre.drafting import Proposer
from nacre.errors import InvalidArgument, NacreError, Unavailable
from nacre.pacing import policy_named
from nacre.runtime.drafter_stream import draft_context
from nacre.runtime.grpc_options import CHANNEL_OPTIONS
from nacre.runtime.proposers import build_proposer
from nacre.runtime.service import freeze_loaded
from nacre.runtime.settings import DrafterSettings
from nacre.sampling import SamplingParams
from nacre.session import Draft
from nacre.v1 import session_pb2 as pb
from nacre.v1 import verifier_pb2_grpc
from nacre.wire import messages
from nacre.wire.errors import error_of
from nacre.wire.streams import send

#: Two verdicts that come as one leave both ends waiting: then the sample is given up and taken again.
STALL_S = 5.0


class Stalled(Unavailable):
    """Both ends wait for each other."""


@dataclass(slots=True)
class Log:
    """What a run has to tell, in the words of `one_session.Told`; moments are seconds from the request."""

    started: float
    tokens: list[int] = field(default_factory=list)
    arrivals_s: list[float] = field(default_factory=list)
    arrival_tokens: list[int] = field(default_factory=list)
    pass_rows: list[int] = field(default_factory=list)
    pass_ms: list[float] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)
    fingerprint: str = ""

    def came(self, commit: pb.Commit) -> None:
        self.arrivals_s.append(time.perf_counter() - self.started)
        self.arrival_tokens.append(len(commit.tokens))
        self.tokens.extend(commit.tokens)
        self.pass_rows.append(commit.rows)
        self.pass_ms.append(commit.verify_ms)
        self.counts["commit_bytes"] = self.counts.get("commit_bytes", 0) + commit.ByteSize()


class LockstepClient:
    """Runs jobs one at a time; keeps proposers, channels and measured times between them."""

    def __init__(self, draft: str) -> None:
        self._draft = draft
        self._proposers: dict[tuple[int, bool], Proposer] = {}
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._times: dict[str, Times] = {}
        self._next = 1

    async def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """Raises NacreError."""
        for attempt in (1, 2, 3):
            try:
                return await self._generate(job)
            except Stalled:
                if attempt == 3:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _generate(self, job: dict[str, Any]) -> dict[str, Any]:
        address: str = job["address"]
        stub = verifier_pb2_grpc.VerifierStub(self._channel(address))
        if job["style"] == "pearl":
            policy, children, features = None, 1, False
        else:
            policy = policy_named(job["policy"], **job["parameters"])
            children, features = policy.traits.children, policy.traits.features
        proposer = self._proposer(children, features)
        number, self._next = self._next, self._next + 1
        call = stub.Session(metadata=((TENANT_METADATA, job["tenant"]),))
        log = Log(time.perf_counter())
        try:
            events = aiter(call)
            await send(call, pb.SessionRequest(open=_open(job)))
            opened = (await _next(events)).opened
            log.fingerprint = opened.system_fingerprint
            opened.tokens.extend(job["prompt"])  # an owner knows them
            proposer.open(number, draft_context(opened))
            stream = Stream(
                proposer,
                number,
                list(job["prompt"]),
                opened.end_position,
                most_nodes=min(opened.window_nodes, opened.row_budget - 1),
            )
            rounds: Drafting
            if policy is None:
                rounds = Windows(stream, job["parameters"]["gamma"])
                await _send(call, rounds.draft())
            else:
                rounds = Rounds(stream, policy, self._times.setdefault(address, Times()))
            while True:
                event = await _next(events)
                match event.WhichOneof("body"):
                    case "commit":
                        log.came(event.commit)
                        rounds.verdict(messages.commit_from_wire(event.commit))
                        if len(stream.tokens) < opened.end_position:
                            await _send(call, rounds.draft())
                    case "finished":
                        log.counts |= counted(event.finished.statistics)
                        log.counts |= {"draft_steps": stream.steps, "draft_ms": stream.busy_s * 1e3}
                        break
        except grpc.aio.AioRpcError as failure:
            raise error_of(failure, address) from None
        finally:
            call.cancel()
            proposer.close(number)
        return {
            "tokens": log.tokens,
            "arrivals_s": log.arrivals_s,
            "arrival_tokens": log.arrival_tokens,
            "pass_rows": log.pass_rows,
            "pass_ms": log.pass_ms,
            "counts": log.counts,
            "fingerprint": log.fingerprint,
            "draft_step_s": stream.step_s,
        }

    def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            self._channels[address] = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        return self._channels[address]

    def _proposer(self, children: int, features: bool) -> Proposer:
        key = (children, features)
        if key not in self._proposers:
            settings = DrafterSettings(draft=self._draft, children=children, threads=1)
            self._proposers[key] = build_proposer(settings, features=features).proposer
            freeze_loaded()  # as every service does, so that rivals are not the only ones whose answers it interrupts
        return self._proposers[key]


async def _send(call: grpc.aio.StreamStreamCall, draft: Draft) -> None:
    # PEARL drafts on while the last window is verified: the generation may be over before the draft is there.
    await send(call, pb.SessionRequest(draft=messages.draft_to_wire(draft)))


async def _next(events: AsyncIterator[pb.SessionEvent]) -> pb.SessionEvent:
    try:
        async with asyncio.timeout(STALL_S):
            return await anext(events)
    except TimeoutError:
        raise Stalled(f"no verdict within {STALL_S:g} s") from None
    except StopAsyncIteration:
        raise Unavailable("the verifier ended the stream before the generation was finished") from None


def _open(job: dict[str, Any]) -> pb.Open:
    return pb.Open(
        handshake=messages.handshake(),
        prompt=job["prompt"],
        sampling=messages.sampling_to_wire(SamplingParams(temperature=job["temperature"])),
        seed=job["seed"],
        max_tokens=job["max_tokens"],
        ignore_eos=True,
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="nacre lockstep")
    for flag in ("--socket", "--draft"):
        parser.add_argument(flag, required=True)
    flags = parser.parse_args(argv)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    client = LockstepClient(flags.draft)

    async def serve() -> None:
        try:
            client._proposer(1, False)
        except ModuleNotFoundError as missing:
            raise InvalidArgument(f"{missing.name} is not installed; run: pip install 'nacre[model]'") from None
        await serve_jobs(flags.socket, client.do, service="lockstep")

    try:
        uvloop.run(serve())
    except NacreError as error:
        print(f"nacre lockstep: {error.message}", file=sys.stderr)  # noqa: T201  the one line the caller needs
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
