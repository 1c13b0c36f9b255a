"""Settings come in layers, later ones win, and every mistake is named with where it was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from nacre.errors import InvalidArgument
from nacre.runtime.settings import DrafterSettings, VerifierSettings, load_settings


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("NACRE_CONFIG", "NACRE_VERIFIER_THREADS", "NACRE_VERIFIER_GRPC_PORT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_later_layers_win_and_every_value_knows_its_origin(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_folder / "nacre.toml").write_text('[verifier]\nthreads = 2\ngrpc_port = 9000\ndtype = "float32"\n')
    monkeypatch.setenv("NACRE_VERIFIER_GRPC_PORT", "9001")
    loaded = load_settings(VerifierSettings, "verifier", ["--dtype", "bfloat16"])
    assert (loaded.settings.threads, loaded.settings.grpc_port, loaded.settings.dtype) == (2, 9001, "bfloat16")
    assert loaded.origins["threads"] == "nacre.toml"
    assert loaded.origins["grpc_port"] == "NACRE_VERIFIER_GRPC_PORT"
    assert loaded.origins["dtype"] == "--dtype"
    assert loaded.origins["target"] == "default"


@pytest.mark.parametrize(
    ("toml", "named"),
    [
        ("[verifier]\nthread = 2\n", "'thread'"),
        ("[verifier]\nthreads = 0\n", "it must be 1 to"),
        ('[verifier]\nthreads = "many"\n', "it must be a int"),
        ("[verifer]\nthreads = 2\n", "'verifer'"),
        ("[verifier\n", "cannot be read"),
    ],
)
def test_a_mistake_in_the_file_names_the_key_and_the_file(empty_folder: Path, toml: str, named: str) -> None:
    (empty_folder / "nacre.toml").write_text(toml)
    with pytest.raises(InvalidArgument) as refused:
        load_settings(VerifierSettings, "verifier", [])
    assert named in refused.value.message
    assert "nacre.toml" in refused.value.message


def test_a_mistake_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NACRE_VERIFIER_COLOUR", "blue")
    with pytest.raises(InvalidArgument, match="NACRE_VERIFIER_COLOUR"):
        load_settings(VerifierSettings, "verifier", [])


def test_a_file_that_is_not_there_is_an_error_only_if_it_was_asked_for() -> None:
    load_settings(DrafterSettings, "drafter", [])
    with pytest.raises(InvalidArgument, match="does not exist"):
        load_settings(DrafterSettings, "drafter", ["--config", "missing.toml"])


def test_a_value_that_is_no_number_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="nan"):
        load_settings(DrafterSettings, "drafter", ["--least-survival", "nan"])
