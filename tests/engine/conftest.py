"""Tiny random models on disk, one directory per family and session, and engines over them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GptOssConfig,
    Llama4TextConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
)

from nacre.engine import Engine, LoadedModel, load_model
from nacre.engine.loading import quiet

VOCABULARY = 96

_SIZE = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128}
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
_IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
_TWO_KINDS = ["sliding_attention", "full_attention"]

FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_SIZE, **_HEADS, **_IDS, max_position_embeddings=256),
    "qwen3": lambda: Qwen3Config(**_SIZE, **_HEADS, **_IDS, max_position_embeddings=256),
    "gemma3": lambda: Gemma3TextConfig(
        **_SIZE, **_HEADS, **_IDS, sliding_window=5, layer_types=_TWO_KINDS, max_position_embeddings=256
    ),
    "gpt_oss": lambda: GptOssConfig(
        **_SIZE, **_HEADS, **_IDS, num_local_experts=4, num_experts_per_tok=2, sliding_window=5, layer_types=_TWO_KINDS
    ),
    "gpt2": lambda: GPT2Config(n_layer=2, n_embd=64, n_head=4, n_positions=256, vocab_size=VOCABULARY, **_IDS),
    "llama4": lambda: Llama4TextConfig(
        **_SIZE, **_HEADS, **_IDS, intermediate_size_mlp=128, num_local_experts=2, attention_chunk_size=5
    ),
}


def random_model(config: PretrainedConfig) -> PreTrainedModel:
    """Random weights large enough that every logit matters."""
    torch.manual_seed(0)
    with quiet():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
            elif name.endswith("sinks"):
                parameter.normal_()
    return model.eval()


def write_tokenizer(directory: Path, names: list[str] | None = None) -> Path:
    names = [f"t{index}" for index in range(VOCABULARY)] if names is None else names
    tokenizer = Tokenizer(WordLevel({name: index for index, name in enumerate(names)}, unk_token=names[0]))
    path = directory / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a family's tiny model; made once per test session. Do not write to it."""
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            with quiet():
                random_model(FAMILIES[family]()).save_pretrained(made[family])
            write_tokenizer(made[family])
        return made[family]

    return get


@pytest.fixture
def model_copy(model_directory: Callable[[str], Path], tmp_path: Path) -> Path:
    """A Llama directory of one's own, to break."""
    return Path(shutil.copytree(model_directory("llama"), tmp_path / "model"))


@pytest.fixture(scope="session")
def make_random_model() -> Callable[[PretrainedConfig], PreTrainedModel]:
    return random_model


@pytest.fixture(scope="session")
def plain(model_directory: Callable[[str], Path]) -> Callable[..., LoadedModel]:
    """The same model as transformers runs it."""

    def load(family: str, dtype: str = "float32") -> LoadedModel:
        return load_model(model_directory(family), dtype=dtype)

    return load


@pytest.fixture(scope="session")
def new_engine(model_directory: Callable[[str], Path]) -> Callable[..., Engine]:
    """A fresh engine over a family's tiny model."""

    def make(family: str = "llama", dtype: str = "float32", **options: object) -> Engine:
        options.setdefault("kv_bytes", 1 << 20)
        return Engine(load_model(model_directory(family), dtype=dtype), **options)  # type: ignore[arg-type]

    return make
