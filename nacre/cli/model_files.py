"""What a model directory holds, read without torch: shape, parameters, bytes; and the cache of models made here."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted

MAX_HEADER_BYTES = 100 * 1024 * 1024
#: With its checkpoint, while it is being trained.
_TEXT_DRAFT_BYTES = 16_000_000
#: What `--draft` calls the weak draft model of the recipe (`nacre train text-draft`).
TEXT_DRAFT = "text-draft"
#: What a bundled target is inflated to where it stands in for a large one.
INFLATED_PARAMETERS = 113_000_000


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """One model directory. `inflated_from` is the number of parameters that do the work, if it was inflated."""

    path: Path
    architecture: str
    parameters: int
    dtypes: tuple[str, ...]
    size_bytes: int
    vocabulary: int
    layers: int
    hidden: int
    max_positions: int
    inflated_from: int | None
    tokenizer: bool

    def as_dict(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "architecture": self.architecture,
            "parameters": self.parameters,
            "dtypes": list(self.dtypes),
            "size_bytes": self.size_bytes,
            "vocabulary": self.vocabulary,
            "layers": self.layers,
            "hidden": self.hidden,
            "max_positions": self.max_positions,
            "inflated_from": self.inflated_from,
            "tokenizer": self.tokenizer,
        }


def read_model_files(path: Path) -> ModelFiles:
    """Raises NotFound or FailedPrecondition where there is no readable model."""
    config = _json(path / "config.json", f"{path} is no model directory: it has no config.json")
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise FailedPrecondition(f"{path} has no weights (*.safetensors); fetch the model again")
    parameters, dtypes = 0, set()
    for file in files:
        for name, tensor in _tensors(file).items():
            if name == "__metadata__":
                continue
            count = 1
            for size in tensor["shape"]:
                count *= size
            parameters += count
            dtypes.add(tensor["dtype"])
    text = config.get("text_config") or config
    architectures = config.get("architectures") or [config.get("model_type") or "unknown"]
    return ModelFiles(
        path=path,
        architecture=str(architectures[0]),
        parameters=parameters,
        dtypes=tuple(sorted(dtypes)),
        size_bytes=sum(file.stat().st_size for file in files),
        vocabulary=int(text.get("vocab_size") or 0),
        layers=int(text.get("num_hidden_layers") or text.get("n_layer") or 0),
        hidden=int(text.get("hidden_size") or text.get("n_embd") or 0),
        max_positions=int(text.get("max_position_embeddings") or text.get("n_positions") or 0),
        inflated_from=config.get("nacre_inflated_from_parameters"),
        tokenizer=(path / "tokenizer.json").is_file(),
    )


def resolve(source: str) -> str:
    """A bundled model's name becomes its directory; everything else stays what it is. Raises NotFound."""
    from nacre.models import located

    return located(source)


def cache_folder() -> Path:
    """$NACRE_CACHE, else the user's cache directory."""
    chosen = os.environ.get("NACRE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nacre"


def cached_models() -> list[Path]:
    """The models made so far: inflated ones, then weak draft models."""
    kinds = [cache_folder() / kind for kind in ("inflated", "text-drafts")]
    return [file.parent for kind in kinds for file in sorted(kind.glob("*/*/config.json"))]


def inflated_path(source: Path, parameters: int) -> Path:
    """Where `source`, inflated, is kept: below a hash of what went into it, so a changed source is another model."""
    return cache_folder() / "inflated" / _digest(source) / f"{source.resolve().name}-{parameters / 1e6:g}M"


def make_inflated(source: Path, parameters: int) -> Path:
    """The inflated model, made if it is not in the cache yet. Imports torch. Raises NacreError."""
    wanted = inflated_path(source, parameters)
    if (wanted / "config.json").is_file():
        return wanted
    from nacre.training.inflate import inflate

    def make(folder: Path) -> None:
        inflate(source, folder, parameters=parameters)

    _make_once(wanted, make, about_bytes=2 * parameters)
    return wanted


def text_draft_path(target: Path) -> Path:
    """Where the weak draft model of `target` is kept; see `inflated_path`."""
    return cache_folder() / "text-drafts" / _digest(target) / TEXT_DRAFT


def make_text_draft(target: Path) -> Path:
    """The weak draft model of `target`, trained if it is not in the cache yet: minutes. Raises NacreError."""
    wanted = text_draft_path(target)
    if (wanted / "config.json").is_file():
        return wanted
    from nacre.training.text_draft import train_text_draft

    def make(folder: Path) -> None:
        train_text_draft(folder, target=target)
        shutil.rmtree(folder / "training", ignore_errors=True)

    _make_once(wanted, make, about_bytes=_TEXT_DRAFT_BYTES)
    return wanted


def draft_model(draft: str | None, target: str | None) -> str:
    """The directory or hub id that guesses; `text-draft` is trained for the target, once."""
    if draft != TEXT_DRAFT:
        return resolve(draft or "demo-draft")
    from nacre.cli.output import Steps

    folder = Path(resolve(target or "demo-target")).expanduser()
    if not folder.is_dir():
        raise InvalidArgument(f"--draft {TEXT_DRAFT} is trained for a model directory and {str(folder)!r} is none")
    if (text_draft_path(folder) / "config.json").is_file():
        return str(text_draft_path(folder))
    with Steps().step(f"training a weak draft model for {folder.name}, once; some minutes"):
        return str(make_text_draft(folder))


def inflated_target(target: str | None, parameters: str | None) -> str:
    """The directory or hub id to serve: a bundled target is inflated unless told otherwise, others only if told."""
    from nacre.cli.output import Steps
    from nacre.models import BUNDLED

    source = target or "demo-target"
    bundled = source in BUNDLED
    count = parse_count(parameters) if parameters is not None else INFLATED_PARAMETERS if bundled else 0
    source = resolve(source)
    if count == 0:
        return source
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise InvalidArgument(f"--parameters inflates a model directory and {source!r} is none; download it first")
    if (inflated_path(folder, count) / "config.json").is_file():
        return str(inflated_path(folder, count))
    with Steps().step(f"inflating {folder.name} to {count / 1e6:.0f} M parameters, once"):
        return str(make_inflated(folder, count))


def parse_count(text: str) -> int:
    """`113000000`, `113M`, `1.5B`. Raises InvalidArgument."""
    factor = {"K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9}.get(text[-1:].upper())
    try:
        count = round(float(text[:-1]) * factor) if factor else int(text.replace("_", ""))
    except (ValueError, OverflowError):
        raise InvalidArgument(f"{text!r} is no number of parameters; write 113000000 or 113M") from None
    return count


def _make_once(wanted: Path, make: Callable[[Path], None], *, about_bytes: int) -> None:
    """Made beside its place and moved there whole: what was interrupted is never taken for finished."""
    making = wanted.with_name(f".{wanted.name}.{os.getpid()}")
    try:
        make(making)
        try:
            making.rename(wanted)
        except OSError:
            if not (wanted / "config.json").is_file():  # else another process was faster
                raise
    except OSError as error:
        raise ResourceExhausted(
            f"cannot write the model to {wanted.parent} ({error.strerror or error}); "
            f"it takes about {about_bytes // 1_000_000} MB: make room or set NACRE_CACHE"
        ) from None
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _digest(path: Path) -> str:
    read_model_files(path)  # a message for what is no model, before its bytes are read
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.json")) + sorted(path.glob("*.safetensors")):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:12]


def _json(file: Path, missing: str) -> dict[str, Any]:
    if not file.is_file():
        raise NotFound(f"{missing}; give a Hugging Face model directory")
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise FailedPrecondition(f"{file} is not readable JSON ({error}); fetch it again") from None
    if not isinstance(content, dict):
        raise FailedPrecondition(f"{file} is no configuration; fetch it again")
    return content


def _tensors(file: Path) -> dict[str, Any]:
    """The header of a safetensors file: name -> dtype and shape."""
    try:
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            if size > MAX_HEADER_BYTES:
                raise ValueError(f"header of {size} bytes")
            header: dict[str, Any] = json.loads(stream.read(size))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        whole = 8 + size + max(ends)
        if whole != file.stat().st_size:
            raise ValueError(f"{file.stat().st_size} bytes instead of {whole}")
    except (OSError, ValueError, KeyError, IndexError, TypeError, struct.error) as error:
        raise FailedPrecondition(f"the weights in {file} are corrupt ({error}); fetch them again") from None
    return header
