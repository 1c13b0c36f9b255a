"""An independent reference: plain transformers, one token after the other, no cache, no packing, no speculation."""

from __future__ import annotations

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from nacre.sampling import SamplingParams
from nacre.sampling.race_noise import noise_at


def load(directory: str) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


@torch.inference_mode()
def greedy(model: torch.nn.Module, prompt: list[int], count: int) -> list[int]:
    """transformers' own greedy `generate`."""
    output = model.generate(
        torch.tensor([prompt]),
        do_sample=False,
        max_new_tokens=count,
        pad_token_id=0,
        attention_mask=torch.ones(1, len(prompt)),
    )
    return output[0, len(prompt) :].tolist()


@torch.inference_mode()
def sampled(
    model: torch.nn.Module, prompt: list[int], count: int, params: SamplingParams, key: int, eos: set[int]
) -> list[int]:
    """The race rule as documented: argmax of logits / T - ln S over the tokens that top-k, top-p and min-p keep."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + count and not (len(tokens) > len(prompt) and tokens[-1] in eos):
        logits = model(torch.tensor([tokens])).logits[0, -1].double().numpy() / params.temperature
        order = np.lexsort((np.arange(len(logits)), -logits))
        if params.top_k:
            order = order[: params.top_k]
        probabilities = np.exp(logits[order] - logits[order[0]])
        probabilities /= probabilities.sum()
        before = np.cumsum(probabilities) - probabilities
        kept = order[(before < params.top_p) & (probabilities >= params.min_p * probabilities[0])]
        exponentials = noise_at(kept, key, len(tokens)).astype(np.float64)
        tokens.append(int(kept[np.argmax(logits[kept] - np.log(exponentials))]))
    return tokens[len(prompt) :]
