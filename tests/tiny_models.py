"""A tiny random target and draft model on disk, for tests that start real services. Needs no torch and no transformers.

Import the fixture where it is wanted: `from tests.tiny_models import tiny_pair`. The draft model is the target with a
little noise on its weights: it is right often, not always. The tokenizer is byte-level: it can spell every text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

END_OF_TEXT = "<|endoftext|>"
VOCABULARY = 1 + 256
MAX_POSITIONS = 1024

_HIDDEN, _INTERMEDIATE, _LAYERS, _HEADS = 64, 128, 2, 2


@dataclass(frozen=True, slots=True)
class TinyPair:
    """Two Hugging Face directories with one tokenizer."""

    target: Path
    draft: Path


@pytest.fixture(scope="session")
def tiny_pair(tmp_path_factory: pytest.TempPathFactory) -> TinyPair:
    """Made once per test session; copy it before changing anything in it."""
    return write_tiny_pair(tmp_path_factory.mktemp("tiny-models"))


def write_tiny_pair(folder: Path, *, seed: int = 0, noise: float = 0.1) -> TinyPair:
    """Writes `tiny-target` and `tiny-draft` below `folder`; the same files for the same arguments."""
    random = np.random.default_rng(seed)
    target = _random_weights(random)
    draft = {
        name: weight + noise * weight.std() * random.standard_normal(weight.shape, dtype=np.float32)
        for name, weight in target.items()
    }
    pair = TinyPair(folder / "tiny-target", folder / "tiny-draft")
    for path, weights in ((pair.target, target), (pair.draft, draft)):
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps(_CONFIG, indent=2))
        (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": END_OF_TEXT}))
        byte_tokenizer().save(str(path / "tokenizer.json"))
        save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return pair


def byte_tokenizer() -> Tokenizer:
    """One token per byte, and the end-of-text token with id 0."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {END_OF_TEXT: 0, **{char: index for index, char in enumerate(alphabet, start=1)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True)])
    return tokenizer


_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": _HIDDEN,
    "intermediate_size": _INTERMEDIATE,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "num_key_value_heads": _HEADS,
    "max_position_embeddings": MAX_POSITIONS,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "dtype": "float32",
}


def _random_weights(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Large enough that every logit matters, small enough that temperature 1 is no coin toss."""

    def matrix(rows: int, columns: int, gain: float = 1.0) -> np.ndarray:
        return (gain * columns**-0.5) * random.standard_normal((rows, columns), dtype=np.float32)

    ones = np.ones(_HIDDEN, dtype=np.float32)
    weights = {"model.embed_tokens.weight": matrix(VOCABULARY, _HIDDEN, 2.0), "model.norm.weight": ones.copy()}
    for layer in range(_LAYERS):
        prefix = f"model.layers.{layer}"
        weights |= {
            f"{prefix}.input_layernorm.weight": ones.copy(),
            f"{prefix}.post_attention_layernorm.weight": ones.copy(),
            **{f"{prefix}.self_attn.{name}_proj.weight": matrix(_HIDDEN, _HIDDEN) for name in "qkvo"},
            f"{prefix}.mlp.gate_proj.weight": matrix(_INTERMEDIATE, _HIDDEN),
            f"{prefix}.mlp.up_proj.weight": matrix(_INTERMEDIATE, _HIDDEN),
            f"{prefix}.mlp.down_proj.weight": matrix(_HIDDEN, _INTERMEDIATE),
        }
    return weights
