"""Every way in which a model can be missing or broken ends in one line, never in a traceback of a library."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nacre.engine import Engine, load_model
from nacre.engine.loading import weights_revision
from nacre.errors import FailedPrecondition, InvalidArgument, NacreError, NotFound, Unimplemented


def edit_config(directory: Path, **changes: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def truncate(directory: Path) -> None:
    with (directory / "model.safetensors").open("r+b") as stream:
        stream.truncate(5000)


def pickle_only(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def shard_missing(directory: Path) -> None:
    index = {"weight_map": {"model.embed_tokens.weight": "model-00001-of-00002.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


BROKEN: dict[str, tuple[Callable[[Path], object], type[NacreError], str]] = {
    "no config": (lambda d: (d / "config.json").unlink(), FailedPrecondition, "no config.json"),
    "config is not JSON": (lambda d: (d / "config.json").write_text("{"), FailedPrecondition, "not readable JSON"),
    "config is a list": (lambda d: (d / "config.json").write_text("[]"), FailedPrecondition, "names no model_type"),
    "config of another kind": (lambda d: edit_config(d, model_type="vit"), Unimplemented, "not a causal language"),
    "unknown architecture": (lambda d: edit_config(d, model_type="nope"), Unimplemented, "does not know .* 'nope'"),
    "config with a wrong type": (lambda d: edit_config(d, hidden_size="big"), FailedPrecondition, "not a valid"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), FailedPrecondition, "has no weights"),
    "pickle only": (pickle_only, FailedPrecondition, "pickled weights .pytorch_model.bin."),
    "shard missing": (shard_missing, FailedPrecondition, "lacks 1 of 1 weight files"),
    "index is not JSON": (
        lambda d: (d / "model.safetensors.index.json").write_text("{"),
        FailedPrecondition,
        "no shard index",
    ),
    "weights cut short": (truncate, FailedPrecondition, "corrupt"),
    "weights are garbage": (
        lambda d: (d / "model.safetensors").write_bytes(b"x" * 4096),
        FailedPrecondition,
        "corrupt",
    ),
    "layer missing": (lambda d: edit_config(d, num_hidden_layers=3), FailedPrecondition, "lack 9 tensors"),
    "other shape": (lambda d: edit_config(d, intermediate_size=256), FailedPrecondition, "do not fit their config"),
    "tokenizer is garbage": (
        lambda d: (d / "tokenizer.json").write_text("{}"),
        FailedPrecondition,
        "not a readable tokenizer.json",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_directory_is_named_with_its_fault(
    case: str, model_copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damage, error, message = BROKEN[case]
    damage(model_copy)
    with pytest.raises(error, match=message) as caught:
        load_model(str(model_copy))
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 500
    assert caught.value.__cause__ is None
    assert capfd.readouterr() == ("", "")


def test_a_directory_that_does_not_exist_is_not_taken_for_a_hub_id(tmp_path: Path) -> None:
    for source in (str(tmp_path / "nothing"), "./nothing", "~/no-such-model", "a/b/c", ""):
        with pytest.raises(NotFound, match="no directory"):
            load_model(source)


def test_a_file_is_not_a_model(model_copy: Path) -> None:
    with pytest.raises(InvalidArgument, match="is a file; give the directory"):
        load_model(str(model_copy / "config.json"))


def test_without_the_hub_an_unknown_name_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NotFound, match="no directory 'org/no-such-model', and the hub cannot be reached"):
        load_model("org/no-such-model")


def test_a_name_that_no_hub_would_take_is_not_found() -> None:
    with pytest.raises(NotFound, match="neither a directory nor a hub id"):
        load_model("not a model!")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "dtype 'float16' is not one of float32, bfloat16"),
        ({"device": "toaster"}, "device 'toaster' is no torch device"),
        ({"threads": 0}, r"threads is 0; it must lie in 1\.\."),
        ({"revision": "main"}, "revision 'main' was given for the directory"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, object], message: str, model_copy: Path) -> None:
    with pytest.raises(InvalidArgument, match=message):
        load_model(str(model_copy), **options)  # type: ignore[arg-type]


def test_a_good_directory_loads_quietly_and_knows_itself(
    model_directory: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    path = model_directory("llama")
    loaded = load_model(str(path), dtype="bf16", threads=1)
    assert capfd.readouterr() == ("", "")
    assert loaded.dtype == torch.bfloat16
    assert next(loaded.model.parameters()).dtype == torch.bfloat16
    assert (loaded.model_id, loaded.vocab_size, loaded.max_positions, loaded.eos_ids) == (path.name, 96, 256, (1,))
    assert loaded.tokenizer_path == path / "tokenizer.json"
    assert loaded.parameters == sum(parameter.numel() for parameter in loaded.model.parameters())
    assert not loaded.model.training


def test_a_model_without_a_tokenizer_loads_with_an_empty_fingerprint(model_copy: Path) -> None:
    (model_copy / "tokenizer.json").unlink()
    loaded = load_model(str(model_copy))
    assert (loaded.tokenizer_path, loaded.tokenizer_fingerprint) == (None, "")


def test_the_revision_follows_weights_and_config_and_nothing_else(model_copy: Path) -> None:
    before = weights_revision(model_copy)
    (model_copy / "README.md").write_text("words")
    assert weights_revision(model_copy) == before
    raw = bytearray((model_copy / "model.safetensors").read_bytes())
    raw[-7] ^= 1
    (model_copy / "model.safetensors").write_bytes(raw)
    other_weights = weights_revision(model_copy)
    edit_config(model_copy, rms_norm_eps=1e-5)
    assert len({before, other_weights, weights_revision(model_copy)}) == 3


def test_large_files_are_sampled_and_their_ends_are_always_seen(
    model_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nacre.engine.loading._WHOLE_FILE_BYTES", 1 << 10)
    before = weights_revision(model_copy)
    assert weights_revision(model_copy) == before
    file = model_copy / "model.safetensors"
    for place in (20, -20):
        raw = bytearray(file.read_bytes())
        raw[place] ^= 1
        file.write_bytes(raw)
        assert weights_revision(model_copy) != before
        before = weights_revision(model_copy)


def test_weights_that_are_not_numbers_are_refused_before_serving(model_copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = str(model_copy / "model.safetensors")
    tensors = load_file(file)
    tensors["model.norm.weight"].fill_(float("nan"))
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(FailedPrecondition, match="logits are not finite"):
        Engine(load_model(str(model_copy)), kv_bytes=1 << 20)
