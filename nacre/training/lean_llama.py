"""A Llama in one screen, for training on a CPU; read from and written to ordinary Hugging Face directories.

Rule: the function is that of `transformers.LlamaForCausalLM` with tied embeddings and full attention heads,
so what is trained here is loaded there unchanged; only the storage differs (query, key and value in one
matrix, gate and up in another: fewer, larger products). Weights are read and written as safetensors, never
pickle.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn

from nacre.errors import FailedPrecondition


@dataclass(frozen=True, slots=True)
class Shape:
    """What fixes a lean Llama's parameters."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocab: int
    max_positions: int = 2048
    rope_theta: float = 10_000.0
    rms_eps: float = 1e-6

    def parameters(self) -> int:
        per_layer = 4 * self.hidden**2 + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return self.vocab * self.hidden + self.layers * per_layer + self.hidden

    def config(self) -> dict[str, Any]:
        """The `config.json` that makes transformers build the same function."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": 0,
            "dtype": "bfloat16",
            "eos_token_id": 0,
            "head_dim": self.hidden // self.heads,
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate,
            "max_position_embeddings": self.max_positions,
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.heads,
            "pad_token_id": None,
            "pretraining_tp": 1,
            "rms_norm_eps": self.rms_eps,
            "rope_parameters": {"rope_theta": self.rope_theta, "rope_type": "default"},
            "tie_word_embeddings": True,
            "use_cache": True,
            "vocab_size": self.vocab,
        }

    @staticmethod
    def of_config(config: dict[str, Any]) -> Shape:
        return Shape(
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            intermediate=config["intermediate_size"],
            vocab=config["vocab_size"],
            max_positions=config["max_position_embeddings"],
            rope_theta=config["rope_parameters"]["rope_theta"],
            rms_eps=config["rms_norm_eps"],
        )


class Cache:
    """Keys and values of a batch of equally long sequences, [layers][batch, heads, capacity, head_dim]."""

    def __init__(self, shape: Shape, batch: int, capacity: int) -> None:
        size = (batch, shape.heads, capacity, shape.hidden // shape.heads)
        self.keys = [torch.empty(size) for _ in range(shape.layers)]
        self.values = [torch.empty(size) for _ in range(shape.layers)]
        self.length = 0


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d, m = shape.hidden, shape.intermediate
        self.heads, self.eps = shape.heads, shape.rms_eps
        self.attention_norm = nn.Parameter(torch.ones(d))
        self.qkv = nn.Parameter(torch.empty(3 * d, d))
        self.out = nn.Parameter(torch.empty(d, d))
        self.mlp_norm = nn.Parameter(torch.ones(d))
        self.gate_up = nn.Parameter(torch.empty(2 * m, d))
        self.down = nn.Parameter(torch.empty(d, m))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache | None, layer: int) -> Tensor:
        x = self.attend(x, cos, sin, cache, layer)
        return x + F.linear(self.activity(x), self.down)

    def activity(self, x: Tensor) -> Tensor:
        """The gated neurons of the MLP, [batch, time, intermediate]."""
        h = F.rms_norm(x, (x.shape[-1],), self.mlp_norm, self.eps)
        gate, up = F.linear(h, self.gate_up).chunk(2, dim=-1)
        return F.silu(gate) * up

    def attend(self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache | None, layer: int) -> Tensor:
        b, t, d = x.shape
        h = F.rms_norm(x, (d,), self.attention_norm, self.eps)
        qkv = F.linear(h, self.qkv).view(b, t, 3, self.heads, d // self.heads)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))  # [batch, heads, time, head_dim]
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        if cache is None:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            end = cache.length + t
            cache.keys[layer][:, :, cache.length : end] = k
            cache.values[layer][:, :, cache.length : end] = v
            seen_k, seen_v = cache.keys[layer][:, :, :end], cache.values[layer][:, :, :end]
            mixed = F.scaled_dot_product_attention(q, seen_k, seen_v, is_causal=t > 1)
        return x + F.linear(mixed.transpose(1, 2).reshape(b, t, d), self.out)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)


class LeanLlama(nn.Module):
    """Token ids [batch, time] -> last hidden states [batch, time, hidden]; `logits` is the tied head."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: Shape, seed: int | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.empty(shape.vocab, shape.hidden))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.Parameter(torch.ones(shape.hidden))
        half = shape.hidden // shape.heads // 2
        inverse = 1.0 / shape.rope_theta ** (torch.arange(half, dtype=torch.float32) / half)
        angles = torch.outer(torch.arange(shape.max_positions, dtype=torch.float32), inverse)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        if seed is not None:
            self._initialise(torch.Generator().manual_seed(seed))

    def _initialise(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if weight.ndim != 2:
                    continue
                if name.endswith(("out", "down")):  # the residual stream starts as the embedding alone
                    weight.zero_()
                else:
                    weight.normal_(0.0, 0.02, generator=generator)

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        start = 0 if cache is None else cache.length
        end = start + tokens.shape[1]
        cos, sin = self.cos[start:end], self.sin[start:end]
        x = F.embedding(tokens, self.embedding)
        for layer, block in enumerate(self.blocks):
            x = block(x, cos, sin, cache, layer)
        if cache is not None:
            cache.length = end
        return F.rms_norm(x, (self.shape.hidden,), self.norm, self.shape.rms_eps)

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.embedding)  # [..., vocab]


def hugging_face_tensors(model: LeanLlama) -> dict[str, Tensor]:
    """The model's weights under transformers' names, bf16, contiguous (the tied head is not repeated)."""
    tensors: dict[str, Tensor] = {
        "model.embed_tokens.weight": model.embedding,
        "model.norm.weight": model.norm,
    }
    for layer, block in enumerate(model.blocks):
        tensors.update(_block_tensors(f"model.layers.{layer}.", block))
    return {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in tensors.items()}


def _block_tensors(prefix: str, block: nn.Module) -> Iterator[tuple[str, Tensor]]:
    assert isinstance(block, Block)
    yield prefix + "input_layernorm.weight", block.attention_norm
    yield prefix + "post_attention_layernorm.weight", block.mlp_norm
    for name, part in zip("qkv", block.qkv.chunk(3), strict=True):
        yield f"{prefix}self_attn.{name}_proj.weight", part
    yield prefix + "self_attn.o_proj.weight", block.out
    for name, part in zip(("gate", "up"), block.gate_up.chunk(2), strict=True):
        yield f"{prefix}mlp.{name}_proj.weight", part
    yield prefix + "mlp.down_proj.weight", block.down


def save_hugging_face(model: LeanLlama, folder: Path, more: dict[str, float]) -> None:
    """Write config.json (with `more`, keys of our own), generation_config.json, model.safetensors (bf16)."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", model.shape.config() | more)
    _write_json(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 0, "do_sample": True})
    (folder / "model.safetensors").write_bytes(save(hugging_face_tensors(model), metadata={"format": "pt"}))


def load_hugging_face(folder: Path) -> LeanLlama:
    """Read a directory written by `save_hugging_face`, as fp32."""
    model = LeanLlama(Shape.of_config(json.loads((folder / "config.json").read_text())))
    tensors = load_file(folder / "model.safetensors")
    with torch.no_grad():
        model.embedding.copy_(tensors["model.embed_tokens.weight"])
        model.norm.copy_(tensors["model.norm.weight"])
        for layer, block in enumerate(model.blocks):
            for name, part in _block_tensors(f"model.layers.{layer}.", block):
                part.copy_(tensors[name])
    return model


def load_of_recipe(folder: Path) -> LeanLlama:
    """As `load_hugging_face`, for a directory that a user has named. Raises FailedPrecondition."""
    try:
        return load_hugging_face(folder)
    except (OSError, KeyError, RuntimeError) as wrong:
        raise FailedPrecondition(
            f"{folder} is no model that `nacre train demo-pair` made ({type(wrong).__name__}: {wrong}); name one"
        ) from None


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
