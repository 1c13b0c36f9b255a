"""From a directory or a hub id to a model in memory, or to one line that says why not.

Rules: weights come from safetensors only, never from pickle; no code from a model repository is run; every
tensor of the model must come from the checkpoint (a missing one is an error, not a fresh random matrix);
whatever a broken file makes the libraries raise leaves here as a NacreError of one line.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from nacre.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable, Unimplemented
from nacre.ids import tokenizer_fingerprint

DTYPES = {"float32": torch.float32, "fp32": torch.float32, "bfloat16": torch.bfloat16, "bf16": torch.bfloat16}
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
DEFAULT_MAX_POSITIONS = 2048
MAX_THREADS = 64
_WHOLE_FILE_BYTES = 64 << 20
_SAMPLES = 1024
_SAMPLE_BYTES = 4096


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A model ready for an engine, and everything about it that peers compare.

    `revision` is the hub's commit, or for a directory a hash of config and weights (see `weights_revision`).
    """

    model: PreTrainedModel
    model_id: str
    revision: str
    path: Path
    tokenizer_path: Path | None
    tokenizer_fingerprint: str
    vocab_size: int
    max_positions: int
    eos_ids: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    threads: int
    parameters: int


def load_model(
    source: str | os.PathLike[str],
    *,
    dtype: str = "bfloat16",
    device: str = "cpu",
    threads: int = 1,
    revision: str | None = None,
) -> LoadedModel:
    """Loads a Hugging Face directory or hub id. Sets torch's thread count, which is one per process.

    Raises NotFound (no such directory, no such repository), InvalidArgument (dtype, device, threads),
    FailedPrecondition (no model in there, weights missing, corrupt or pickled), Unimplemented (architecture),
    Unavailable (the hub cannot be reached).
    """
    torch_dtype, torch_device = _dtype(dtype), _device(device)
    if not 1 <= threads <= MAX_THREADS:
        raise InvalidArgument(f"threads is {threads}; it must lie in 1..{MAX_THREADS}", param="threads")
    path, model_id, hub_revision = locate(os.fspath(source), revision)
    with quiet():
        config = _read_config(path)
        _require_safetensors(path)
        torch.set_num_threads(threads)
        model = _read_weights(path, config, torch_dtype)
        model = model.to(torch_device).eval().requires_grad_(False)
    tokenizer = path / "tokenizer.json"
    text_config = config.get_text_config()
    return LoadedModel(
        model=model,
        model_id=model_id,
        revision=hub_revision or weights_revision(path),
        path=path,
        tokenizer_path=tokenizer if tokenizer.is_file() else None,
        tokenizer_fingerprint=tokenizer_fingerprint(tokenizer) if tokenizer.is_file() else "",
        vocab_size=int(text_config.vocab_size),
        max_positions=int(getattr(text_config, "max_position_embeddings", None) or DEFAULT_MAX_POSITIONS),
        eos_ids=_eos_ids(model),
        dtype=torch_dtype,
        device=torch_device,
        threads=threads,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def locate(source: str, revision: str | None = None) -> tuple[Path, str, str]:
    """Where the model's files are: (directory, model id, hub commit or '')."""
    path = Path(source).expanduser()
    if source and path.is_dir():
        if revision is not None:
            raise InvalidArgument(
                f"revision {revision!r} was given for the directory {source!r}; a revision names a hub commit",
                param="revision",
            )
        return path, path.resolve().name, ""
    if source and path.exists():
        raise InvalidArgument(f"{source!r} is a file; give the directory that holds config.json and *.safetensors")
    if not source or source[0] in "./~" or source.count("/") > 1:
        raise NotFound(f"no directory {source!r}; give a Hugging Face model directory or a hub id like org/name")
    return _fetch(source, revision)


def weights_revision(path: Path) -> str:
    """What stands in for a directory's commit: 16 hex digits over its config and safetensors.

    Files up to 64 MiB are hashed whole. Of larger ones the hash covers the size, the header and 1,024 pages
    of 4 KiB spread evenly: any training step changes all of them, and 100 GB must not be read just to be
    named. A hand-made edit of a few bytes in a large file can therefore go unseen.
    """
    digest = hashlib.sha256()
    for file in [path / "config.json", *sorted(path.glob("*.safetensors"))]:
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as stream:
            if size <= _WHOLE_FILE_BYTES:
                digest.update(stream.read())
                continue
            header_bytes = int.from_bytes(stream.read(8), "little")
            digest.update(stream.read(min(header_bytes, _WHOLE_FILE_BYTES)))
            for index in range(_SAMPLES):
                stream.seek((size - _SAMPLE_BYTES) * index // (_SAMPLES - 1))
                digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def _fetch(repo: str, revision: str | None) -> tuple[Path, str, str]:
    """Downloads, or finds in the hub's cache, those files of a repository that a model needs."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        snapshot = huggingface_hub.snapshot_download(
            repo, revision=revision, allow_patterns=["*.json", "*.safetensors", "*.jinja"], ignore_patterns=["*/*"]
        )
    except errors.HFValidationError:
        raise NotFound(
            f"{repo!r} is neither a directory nor a hub id; give a Hugging Face model directory or an id like org/name"
        ) from None
    except errors.GatedRepoError:
        raise FailedPrecondition(
            f"hub model {repo!r} is gated; accept its licence and log in (`hf auth login`)"
        ) from None
    except errors.RevisionNotFoundError:
        raise NotFound(f"hub model {repo!r} has no revision {revision!r}; see its list of commits") from None
    except errors.RepositoryNotFoundError:
        raise NotFound(f"no directory {repo!r} and no hub model of that name; check the spelling") from None
    except errors.LocalEntryNotFoundError:
        raise NotFound(
            f"no directory {repo!r}, and the hub cannot be reached to look for a model of that name; "
            f"give a local directory or restore the connection"
        ) from None
    except (OSError, errors.HfHubHTTPError) as error:
        raise Unavailable(
            f"hub model {repo!r} cannot be fetched ({one_line(error)}); try again or use a directory"
        ) from None
    path = Path(snapshot)
    return path, repo, path.name


def _read_config(path: Path) -> PretrainedConfig:
    file = path / "config.json"
    if not file.is_file():
        raise FailedPrecondition(f"{str(path)!r} is no model directory: it has no config.json")
    try:
        raw = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise FailedPrecondition(f"{str(file)!r} is not readable JSON ({one_line(error)}); fetch it again") from None
    model_type = raw.get("model_type") if isinstance(raw, dict) else None
    if not model_type:
        raise FailedPrecondition(f"{str(file)!r} names no model_type; it is not a transformers model")
    if model_type not in transformers.CONFIG_MAPPING:
        raise Unimplemented(f"transformers {transformers.__version__} does not know the architecture {model_type!r}")
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # noqa: BLE001 - a config's validators raise whatever they like
        raise FailedPrecondition(f"{str(file)!r} is not a valid {model_type!r} config ({one_line(error)})") from None
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise Unimplemented(f"{model_type!r} is not a causal language model; Nacre serves those only")
    return config


def _require_safetensors(path: Path) -> None:
    """Fails with a precise message where from_pretrained would look for something else."""
    index = path / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise FailedPrecondition(f"{str(index)!r} is no shard index ({one_line(error)}); fetch it again") from None
        missing = [shard for shard in shards if not (path / shard).is_file()]
        if missing:
            raise FailedPrecondition(
                f"{str(path)!r} lacks {len(missing)} of {len(shards)} weight files, e.g. {missing[0]}; fetch it again"
            )
    elif not (path / "model.safetensors").is_file():
        pickles = sorted(file.name for pattern in PICKLES for file in path.glob(pattern))
        if pickles:
            raise FailedPrecondition(
                f"{str(path)!r} has only pickled weights ({pickles[0]}), which can run code when opened; "
                f"convert them to model.safetensors"
            )
        raise FailedPrecondition(f"{str(path)!r} has no weights (model.safetensors); fetch the model again")


def _read_weights(path: Path, config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    from safetensors import SafetensorError

    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except SafetensorError as error:
        raise FailedPrecondition(
            f"the weights in {str(path)!r} are corrupt ({one_line(error)}); fetch them again"
        ) from None
    except ImportError as error:
        raise FailedPrecondition(f"loading {str(path)!r} needs another package ({one_line(error)})") from None
    except Exception as error:  # noqa: BLE001 - loaders of ~400 architectures raise whatever they like
        raise FailedPrecondition(f"the weights in {str(path)!r} do not fit their config ({one_line(error)})") from None
    missing = sorted(report["missing_keys"])
    if missing:
        raise FailedPrecondition(
            f"the weights in {str(path)!r} lack {len(missing)} tensors, e.g. {missing[0]}; fetch the model again"
        )
    strange = next((name for name, tensor in model.named_parameters() if not tensor.is_floating_point()), None)
    if strange is not None:
        raise Unimplemented(f"{str(path)!r} has quantised weights ({strange}); use a float checkpoint")
    return model


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise InvalidArgument(f"dtype {name!r} is not one of float32, bfloat16", param="dtype")
    return DTYPES[name]


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InvalidArgument(f"device {name!r} is no torch device; use cpu or cuda:0", param="device") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidArgument(f"device {name!r} was asked for, but torch sees no CUDA device; use cpu", param="device")
    return device


def _eos_ids(model: PreTrainedModel) -> tuple[int, ...]:
    generation = getattr(model, "generation_config", None)
    found: Any = getattr(generation, "eos_token_id", None)
    if found is None:
        found = model.config.get_text_config().eos_token_id
    if found is None:
        return ()
    return tuple(int(token) for token in found) if isinstance(found, list | tuple) else (int(found),)


def one_line(error: BaseException) -> str:
    """A library's complaint as one line of bounded length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


@contextmanager
def quiet() -> Iterator[None]:
    """Mutes transformers: what matters comes as exceptions or in its loading report."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
