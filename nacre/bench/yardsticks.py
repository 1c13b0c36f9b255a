"""transformers' own ways to generate, in a process of their own on the verifier's core: the yardsticks.

`python -m nacre.bench.yardsticks --socket PATH --target DIR --draft DIR …` does jobs for `nacre bench`: plain
`generate`, assisted generation, prompt lookup, continuous batching, and the micro-benchmarks. Texts are not Nacre's,
because the noise is another one; lengths are equal, because nobody stops at an end-of-text token.

Rule: nothing of the engine takes part but the loading of the weights (and in the micro-benchmarks, which compare it;
where drafting methods are followed along texts, the texts are the engine's own).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers

from nacre.bench.jobs import serve_jobs
from nacre.engine import load_model
from nacre.errors import FailedPrecondition, InvalidArgument, NacreError
from nacre.models import located
from nacre.runtime.service import freeze_loaded

#: transformers turns its confidence rule off at 0.
NO_CONFIDENCE = 0.0


class Stopwatch:
    """A streamer that only notes when tokens came and how many; the first call is the prompt's."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.counts: list[int] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(time.perf_counter())
        self.counts.append(value.numel())

    def end(self) -> None:
        pass


def write(
    model: Any, prompt: Sequence[int], tokens: int, temperature: float, seed: int, **options: Any
) -> tuple[list[int], list[float], list[int]]:
    """transformers' own `generate`: (tokens, when some came, counted from the call, how many came then)."""
    torch.manual_seed(seed)
    watch = Stopwatch()
    ids = torch.tensor([list(prompt)], device=model.device)
    sampled = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature > 0 else {}
    started = time.perf_counter()
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        streamer=watch,
        **({"do_sample": False} | sampled | options),
    )
    return output[0, len(prompt) :].tolist(), [moment - started for moment in watch.times[1:]], watch.counts[1:]


class Yardsticks:
    """The target and the draft model, each loaded when it is asked for. Jobs run one at a time, in the event loop."""

    def __init__(self, target: str, draft: str, dtype: str, threads: int) -> None:
        self._names = target, draft
        self._dtype, self._threads = dtype, threads
        self._target: Any = None
        self._assistant: Any = None
        self._assisted: Mapping[str, Any] | None = None
        self._proposer: Any = None
        self._traces: Any = None

    @property
    def _model(self) -> Any:
        if self._target is None:
            loaded = load_model(located(self._names[0]), dtype=self._dtype, device="cpu", threads=self._threads)
            self._target = never_ending(loaded.model)
            freeze_loaded()  # as Nacre's services do
        return self._target

    async def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """Raises NacreError."""
        match job["way"]:
            case "plain":
                return self._write(job)
            case "assisted":
                return self._write(job, assistant_model=self._assistant_with(job["settings"]))
            case "lookup":
                settings = job["settings"]
                return self._write(
                    job, prompt_lookup_num_tokens=settings["length"], max_matching_ngram_size=settings["ngram"]
                )
            case "batching":
                return self._batching(job)
            case "trace":
                return self._trace(job)
            case "drafter":
                return self._drafter(job)
            case "engine" | "draft-step":
                from nacre.bench import yardsticks_micro as micro

                if job["way"] == "engine":
                    return micro.engine_overhead(self._names[0], self._dtype, self._threads, **job["settings"])
                return micro.draft_step(self._names[1], **job["settings"])
            case other:
                raise InvalidArgument(f"there is no yardstick {other!r}")

    def _write(self, job: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        tokens, times, counts = write(
            self._model, job["prompt"], job["max_tokens"], job["temperature"], job["seed"], **options
        )
        return {"tokens": tokens, "arrivals_s": times, "arrival_tokens": counts}

    def _assistant_with(self, settings: Mapping[str, Any]) -> Any:
        """The draft model with these settings. While they stay the same, what transformers has made of them stays, too:
        its heuristic schedule carries the number of tokens from one generation to the next.
        """
        if self._assistant is None:
            loaded = load_model(located(self._names[1]), dtype="float32", device="cpu", threads=self._threads)
            self._assistant = never_ending(loaded.model)
            freeze_loaded()
        if settings != self._assisted:
            config = self._assistant.generation_config
            config.num_assistant_tokens = settings["length"]
            config.num_assistant_tokens_schedule = settings["schedule"]
            config.assistant_confidence_threshold = settings.get("confidence", NO_CONFIDENCE)
            self._assisted = dict(settings)
        return self._assistant

    def _trace(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """What the draft model guesses along a text of the target: the places of an acceptance trace."""
        from nacre.runtime.proposers import build_proposer
        from nacre.runtime.settings import DrafterSettings
        from nacre.sampling import SamplingParams, completion_key
        from nacre.sim.recording import record_places

        if self._proposer is None:
            self._proposer = build_proposer(DrafterSettings(draft=self._names[1], threads=self._threads)).proposer
        params = SamplingParams(temperature=job["temperature"])
        places = record_places(self._proposer, job["prompt"], job["output"], params, completion_key(job["seed"], 0))
        return {"places": [[[round(s, 4) for s in survivals], rank] for survivals, rank in places]}

    def _drafter(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """One drafting method along texts of `job["target"]`: what its guesses are worth, and what they cost."""
        from nacre.bench.drafter_trace import DrafterTraces, Task

        if self._traces is None:
            self._traces = DrafterTraces(job["target"], self._names[1], dtype=self._dtype, threads=self._threads)
        tasks = [
            Task(tuple(prompt), job["max_tokens"], job["temperature"], seed)
            for prompt, seed in zip(job["prompts"], job["seeds"], strict=True)
        ]
        told: dict[str, Any] = self._traces.measure(job["method"], tasks, job["rows"])
        return told

    def _batching(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """All prompts at once: (tokens of all, seconds). The first call of a process also builds the paged cache."""
        from transformers import ContinuousBatchingConfig, GenerationConfig

        sampled = {"do_sample": True, "temperature": job["temperature"], "top_k": 0, "top_p": 1.0}
        config = GenerationConfig(
            max_new_tokens=job["max_tokens"],
            eos_token_id=-1,
            pad_token_id=0,
            **(sampled if job["temperature"] > 0 else {"do_sample": False}),
        )
        prompts = [list(prompt) for prompt in job["prompts"]]
        longest = max(map(len, prompts)) + job["max_tokens"]
        # Blocks for all prompts at once and a batch that takes them all: as much as it can use, and no more.
        block = 32
        needed = len(prompts) * (longest // block + 2)
        batching = ContinuousBatchingConfig(
            page_size=block, num_blocks=needed, max_batch_tokens=max(512, sum(map(len, prompts)))
        )
        torch.manual_seed(job["seed"])
        try:
            started = time.perf_counter()
            outputs = self._model.generate_batch(
                prompts,
                generation_config=config,
                continuous_batching_config=batching,
                record_timestamps=True,
                persistent_manager=False,
                warmup=False,
            )
            seconds = time.perf_counter() - started
        except Exception as error:  # noqa: BLE001  whatever the library could not do here
            raise FailedPrecondition(f"transformers cannot batch on this machine: {error}") from None
        found = list(outputs.values())
        if len(found) != len(prompts) or any(len(o.generated_tokens) != job["max_tokens"] for o in found):
            raise FailedPrecondition("transformers' continuous batching did not finish all prompts")
        return {
            "tokens": sum(len(output.generated_tokens) for output in found),
            "seconds": seconds,
            "timestamps": [[moment - started for moment in output.timestamps] for output in found],
        }


def never_ending(model: Any) -> Any:
    """All runs write the same number of tokens, so that times compare: nobody stops at an end-of-text token."""
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="nacre yardsticks")
    for flag in ("--socket", "--target", "--draft", "--dtype"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--threads", type=int, required=True)
    flags = parser.parse_args(argv)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()  # its own calls warn of its own options
    try:
        yardsticks = Yardsticks(flags.target, flags.draft, flags.dtype, flags.threads)
        asyncio.run(serve_jobs(flags.socket, yardsticks.do, service="yardsticks"))
    except NacreError as error:
        print(f"nacre yardsticks: {error.message}", file=sys.stderr)  # noqa: T201  the one line the caller needs
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
