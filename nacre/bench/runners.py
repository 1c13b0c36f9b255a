"""How each kind of baseline generates: a session with drafters, a lock-step client, transformers in its own process."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from nacre.bench.baselines import Baseline
from nacre.bench.given import write_corpus
from nacre.bench.jobs import Jobs
from nacre.bench.one_session import Asked, Commit, Told, generate
from nacre.bench.rig import LOCKSTEP_VERIFIER, Rig, Served, busy_ms, until_idle
from nacre.drafting import method_names, needs_model, proposer_class
from nacre.runtime.draft_totals import TakenStep
from nacre.runtime.draft_worker import LATEST_STEPS
from nacre.v1 import drafter_pb2, drafter_pb2_grpc

#: A lock-step client decides how much is verified; the verifier only has to hold it.
LOCKSTEP_ROWS = 64
LOCKSTEP = "nacre.bench.lockstep"
YARDSTICKS = "nacre.bench.yardsticks"


class Runners:
    """Generates for any baseline; starts what it needs. An async context manager; the rig outlives it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self._resources = AsyncExitStack()
        self._jobs: dict[str, Jobs] = {}
        self._pids: dict[str, int] = {}
        self._calls = 0

    async def __aenter__(self) -> Runners:
        folder = self._resources.enter_context(tempfile.TemporaryDirectory(prefix="nacre-bench-"))
        self._folder = Path(folder)
        return self

    async def __aexit__(self, *exception: Any) -> None:
        for jobs in self._jobs.values():
            jobs.close()
        self._jobs.clear()
        await self._resources.aclose()

    async def generate(
        self,
        baseline: Baseline,
        prompt: tuple[int, ...],
        *,
        tokens: int,
        temperature: float,
        seed: int,
        rtt_ms: float = 0.0,
        settings: Mapping[str, Any] | None = None,
        closely: bool = False,
        read_before: bool = False,
        tenant: str = "",
        prediction: tuple[int, ...] = (),
    ) -> Told:
        """Raises NacreError. With `read_before` the verifier may know the prompt from another such call.

        A `tenant` given is shared with other calls that give it; else each has one of its own. With `closely` it is
        told when wire and drafter did what.
        """
        self._calls += 1
        tenant = tenant or ("read-before" if read_before else f"bench-{self._calls}")
        asked = Asked(prompt, tokens, temperature, seed, tenant, baseline.mode, prediction)
        match baseline.kind:
            case "lockstep":
                told = await self._lockstep(baseline, asked, rtt_ms, settings or {})
            case "transformers":
                told = await self._transformers(baseline, asked, settings or {})
            case _:
                address = await self.rig.verifier_for(baseline)
                served = await self.rig.served(address)
                drafter = await self._drafter(baseline, served)
                wire = await self.rig.wire(address, rtt_ms)
                pid = self.rig.pid_at(drafter) if drafter is not None else None
                before, busy = await self._drafted(drafter), busy_ms(pid)
                told = await generate(self.rig, asked, wire, served, drafter=drafter, keep_passages=closely)
                _count_busy(told, pid, busy)
                told.counts |= {name: total - before[name] for name, total in (await self._drafted(drafter)).items()}
                if closely and drafter is not None:
                    told.draft_steps = await self._latest_steps(drafter)
        await until_idle()
        return told

    async def _lockstep(self, baseline: Baseline, asked: Asked, rtt_ms: float, settings: Mapping[str, Any]) -> Told:
        rows = {"session_rows": LOCKSTEP_ROWS, "pass_rows": LOCKSTEP_ROWS}
        # This verifier does not go by what its passes cost at the start, so the two may start at the same time.
        address, jobs = await asyncio.gather(
            self.rig.verifier({**rows, **baseline.verifier}, LOCKSTEP_VERIFIER), self._lockstep_jobs()
        )
        wire = await self.rig.wire(address, rtt_ms)
        before = wire.bytes_up, wire.bytes_down
        busy = busy_ms(self._pids[LOCKSTEP])
        answer = await jobs.do(
            {
                "address": wire.address,
                "tenant": asked.tenant,
                "prompt": asked.prompt,
                "max_tokens": asked.max_tokens,
                "temperature": asked.temperature,
                "seed": asked.seed,
                "style": baseline.style,
                "policy": baseline.policy or "fixed",
                "parameters": dict(settings),
            }
        )
        told = _told(answer)
        _count_busy(told, self._pids[LOCKSTEP], busy)
        if wire.delayed:
            told.counts["wire_up_bytes"] = wire.bytes_up - before[0]
            told.counts["wire_down_bytes"] = wire.bytes_down - before[1]
        return told

    async def _transformers(self, baseline: Baseline, asked: Asked, settings: Mapping[str, Any]) -> Told:
        jobs = await self.yardsticks()
        return _told(
            await jobs.do(
                {
                    "way": baseline.way,
                    "prompt": asked.prompt,
                    "max_tokens": asked.max_tokens,
                    "temperature": asked.temperature,
                    "seed": asked.seed,
                    "settings": dict(settings),
                }
            )
        )

    async def _drafter(self, baseline: Baseline, served: Served) -> str | None:
        """The address of the drafter that a baseline has, if it has one."""
        if baseline.drafter is None:
            return None
        settings = dict(baseline.drafter)
        names = method_names(settings.get("method", "model"))
        if any(not needs_model(name) and getattr(proposer_class(name), "needs_datastore", False) for name in names):
            path = self._folder / "corpus.rest"
            if not path.exists():
                await asyncio.to_thread(write_corpus, path, served.vocabulary)
            settings["datastore"] = str(path)
        return await self.rig.drafter(settings)

    async def _drafted(self, drafter: str | None) -> dict[str, float]:
        """Steps of a drafter so far, and the time they took; nothing without a drafter."""
        if drafter is None:
            return {}
        stub: Any = drafter_pb2_grpc.DrafterStub(self.rig.channel(drafter))
        now = await stub.GetDrafter(drafter_pb2.GetDrafterRequest())
        return {"draft_steps": now.steps, "draft_ms": now.busy_ms, "propose_ms": now.propose_ms}

    async def _latest_steps(self, drafter: str) -> list[TakenStep]:
        stub: Any = drafter_pb2_grpc.DrafterStub(self.rig.channel(drafter))
        answer = await stub.GetDrafter(drafter_pb2.GetDrafterRequest(latest_steps=LATEST_STEPS))
        now = asyncio.get_running_loop().time()
        return [
            TakenStep(now - step.ago_ms / 1e3, now - (step.ago_ms - step.took_ms) / 1e3, step.guesses)
            for step in answer.latest_steps
        ]

    async def yardsticks(self) -> Jobs:
        """transformers, on the verifier's core: it idles while they run."""
        options = self.rig.options
        flags = ("--target", options.target, "--draft", options.draft, "--dtype", options.dtype)
        return await self._child_jobs(YARDSTICKS, (*flags, "--threads", str(options.threads)), self.rig.cores.verifier)

    async def _lockstep_jobs(self) -> Jobs:
        return await self._child_jobs(LOCKSTEP, ("--draft", self.rig.options.draft), self.rig.cores.rest)

    async def _child_jobs(self, module: str, flags: tuple[str, ...], cores: tuple[int, ...]) -> Jobs:
        if module not in self._jobs:
            path = str(self._folder / f"{module.rpartition('.')[2]}.socket")
            self._pids[module] = (await self.rig.child(module, (*flags, "--socket", path), cores)).pid
            self._jobs[module] = await Jobs.connect(module, path)
        return self._jobs[module]


def _count_busy(told: Told, pid: int | None, before: float | None) -> None:
    """Counts what the drafter's process has used of its core since `before`, if that was told."""
    after = busy_ms(pid)
    if before is not None and after is not None:
        told.counts["drafter_busy_ms"] = after - before


def _told(answer: Mapping[str, Any]) -> Told:
    return Told(
        started_s=0.0,
        tokens=tuple(answer["tokens"]),
        arrivals_s=list(answer["arrivals_s"]),
        arrival_tokens=list(answer["arrival_tokens"]),
        commits=[
            Commit(arrived, tokens, rows, ms, 0.0)
            for arrived, tokens, rows, ms in zip(
                answer["arrivals_s"],
                answer["arrival_tokens"],
                answer.get("pass_rows", ()),
                answer.get("pass_ms", ()),
                strict=False,
            )
        ],
        counts=dict(answer.get("counts", {})),
        fingerprint=answer.get("fingerprint", ""),
        extra={key: answer[key] for key in ("draft_step_s", "verify_s") if key in answer},
    )
