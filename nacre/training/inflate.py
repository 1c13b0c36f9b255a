"""Inflate a model: the same function from many more parameters, to measure serving at a real model's memory
traffic.

Method: every gated MLP gets extra neurons with random gate and up rows whose down-projection columns are
zero.

Guarantee: an extra neuron's activity is finite and is multiplied by zero, so it adds exactly 0 to every
sum; the original weights keep their bits and their order, ahead of the zeros. Adding 0 changes no partial
sum, so wherever a product accumulates over the neurons in order, the logits are bitwise those of the
source. (A library that splits long sums otherwise than short ones may associate the same terms differently:
a rounding difference, never another function.)

An inflated model is for benchmarks: it is no better than its source, and its model card says so.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from nacre.errors import FailedPrecondition, InvalidArgument, NotFound

DEFAULT_PARAMETERS = 113_000_000
_NEURON_MULTIPLE = 64
_MAX_PARAMETERS = 20_000_000_000
_MLP = re.compile(r"^model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight$")
_COPIED = ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def inflate(source: Path, out: Path, *, parameters: int = DEFAULT_PARAMETERS, seed: int = 0) -> int:
    """Write to `out` a bf16 Hugging Face directory of about `parameters` parameters that computes
    `source`'s function.

    Returns the exact number of parameters. Raises NotFound if `source` is no model directory,
    FailedPrecondition if it has no gated MLPs, InvalidArgument if `parameters` is below the source's or
    beyond the bound.
    """
    config = _read_config(source)
    tensors = _read_tensors(source)
    layers = _gated_layers(source, config, tensors)
    old = sum(tensor.numel() for tensor in tensors.values())
    if not old < parameters <= _MAX_PARAMETERS:
        raise InvalidArgument(
            f"parameters is {parameters:,}, must be above the source's {old:,} and at most {_MAX_PARAMETERS:,}",
            param="parameters",
        )
    hidden, neurons = config["hidden_size"], config["intermediate_size"]
    extra = max(1, round((parameters - old) / (3 * hidden * layers * _NEURON_MULTIPLE))) * _NEURON_MULTIPLE
    generator = torch.Generator().manual_seed(seed)
    widened = {name: _widen(name, tensor, extra, generator) for name, tensor in sorted(tensors.items())}
    new = sum(tensor.numel() for tensor in widened.values())

    out.mkdir(parents=True, exist_ok=True)
    config |= {
        "intermediate_size": neurons + extra,
        "dtype": "bfloat16",
        "nacre_inflated_from_parameters": old,
    }
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_file(widened, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)  # the writer leaves it readable by its owner alone
    for name in _COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    (out / "README.md").write_text(_card(source, old, new, neurons, neurons + extra, seed), encoding="utf-8")
    return new


def _read_config(source: Path) -> dict[str, Any]:
    path = source / "config.json"
    if not path.is_file():
        raise NotFound(f"{source} is no model directory: it has no config.json", param="source")
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FailedPrecondition(f"{path} is not JSON ({error}); fetch the model again", param="source") from error
    return config


def _read_tensors(source: Path) -> dict[str, Tensor]:
    files = sorted(source.glob("*.safetensors"))
    if not files:
        raise NotFound(f"{source} has no *.safetensors; convert its weights to safetensors", param="source")
    tensors = {}
    for file in files:
        with safe_open(file, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118 - a safetensors handle, not a dict
                tensors[name] = handle.get_tensor(name).to(torch.bfloat16)
    return tensors


def _gated_layers(source: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> int:
    """The number of layers, after checking that each one's MLP is gate, up and down and nothing else."""
    found: dict[int, set[str]] = {}
    for name in tensors:
        if match := _MLP.match(name):
            found.setdefault(int(match[1]), set()).add(match[2])
    layers = config.get("num_hidden_layers", 0)
    others = [name for name in tensors if ".mlp." in name and not _MLP.match(name)]
    complete = sorted(found) == list(range(layers)) and all(len(parts) == 3 for parts in found.values())
    if not layers or others or not complete or "intermediate_size" not in config:
        raise FailedPrecondition(
            f"{source} ({config.get('model_type', 'unknown type')}) cannot be inflated: every MLP must be "
            "gate_proj, up_proj and down_proj alone; take a Llama, Mistral or Qwen model",
            param="source",
        )
    return int(layers)


def _widen(name: str, tensor: Tensor, extra: int, generator: torch.Generator) -> Tensor:
    match = _MLP.match(name)
    if match is None:
        return tensor.contiguous()
    if match[2] == "down":  # [hidden, neurons]
        return torch.cat((tensor, tensor.new_zeros(tensor.shape[0], extra)), dim=1)
    noise = torch.empty(extra, tensor.shape[1]).normal_(0.0, 0.02, generator=generator)
    return torch.cat((tensor, noise.to(tensor.dtype)))  # [neurons, hidden]


def _card(source: Path, old: int, new: int, neurons: int, wide: int, seed: int) -> str:
    return f"""# {source.name}, inflated to {new / 1e6:.0f} M parameters

**Inflated: this model computes exactly the function of `{source.name}`.** Of its {new:,} parameters the
source's {old:,} do all the work. Each MLP was widened from {neurons:,} to {wide:,} neurons; the
added neurons have random gate and up weights (seed {seed}) and zero down-projection, so they add
exactly 0. Use it to measure serving at the memory traffic of a larger model.
It is no better than its source, and a figure measured with it must
say that it is inflated.

Made by `nacre models inflate`.
"""
