"""Sampling: parameters, logits processors, race noise and the race rule, exact to the bit and without torch.

Rule: a token is a pure function of the target's logits, the row's context and the key. numpy only; tensors on an
accelerator are sampled by `nacre.sampling.torch_sampler`, which callers import themselves.
"""

from __future__ import annotations

from nacre.sampling.drafts import ReducedVocabulary, draft_scores, race_scores
from nacre.sampling.keys import completion_key, seed_to_key
from nacre.sampling.params import (
    Choice,
    History,
    RowContext,
    SamplingParams,
    UnusableLogits,
    check_top_logprobs,
)
from nacre.sampling.processors import PROCESSOR_VERSION
from nacre.sampling.race_noise import NOISE_VERSION
from nacre.sampling.sampler import choose_rows

__all__ = [
    "NOISE_VERSION",
    "PROCESSOR_VERSION",
    "Choice",
    "History",
    "ReducedVocabulary",
    "RowContext",
    "SamplingParams",
    "UnusableLogits",
    "check_top_logprobs",
    "choose_rows",
    "completion_key",
    "draft_scores",
    "race_scores",
    "seed_to_key",
]
