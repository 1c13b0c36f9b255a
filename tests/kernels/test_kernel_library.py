"""Loading: what the user is told when the compiled kernels are missing, stale or asked for the impossible."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import nacre_kernels
import pytest
from nacre_kernels import KernelsUnavailable, available, bench, describe, library, require


@pytest.fixture
def reloading() -> Iterator[None]:
    library._load.cache_clear()
    yield
    library._load.cache_clear()


def test_the_description_names_the_instruction_set_and_the_compiler() -> None:
    assert available()
    assert library.isa() in describe()
    assert "gcc" in describe() or "clang" in describe()


@pytest.mark.usefixtures("reloading")
def test_a_missing_library_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(library, "__file__", os.path.join(tmp_path, "library.py"))
        assert not available()
        assert describe().startswith("torch reference: the compiled kernels are missing")
        with pytest.raises(KernelsUnavailable, match="make setup"):
            require()
    library._load.cache_clear()


@pytest.mark.usefixtures("reloading")
def test_a_stale_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(library, "ABI_VERSION", library.ABI_VERSION + 1)
        with pytest.raises(KernelsUnavailable, match=r"have version \d+, expected \d+: run `make setup`"):
            require()
    library._load.cache_clear()


def test_a_file_that_is_no_library_is_refused(
    reloading: None, monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]
) -> None:
    suffix = library.importlib.machinery.EXTENSION_SUFFIXES[0]
    with open(os.path.join(tmp_path, f"_cpu{suffix}"), "wb") as file:
        file.write(b"not a library")
    with monkeypatch.context() as patch:
        patch.setattr(library, "__file__", os.path.join(tmp_path, "library.py"))
        with pytest.raises(KernelsUnavailable, match="do not load"):
            require()
    library._load.cache_clear()


@pytest.mark.usefixtures("reloading")
def test_the_environment_chooses_the_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("NACRE_KERNELS_ISA", "portable")
        assert library.isa() == "portable"
        library._load.cache_clear()
        patch.setenv("NACRE_KERNELS_ISA", "mmx")
        with pytest.raises(KernelsUnavailable, match="NACRE_KERNELS_ISA='mmx' is not one of portable, avx2, avx512"):
            require()
    library._load.cache_clear()


def test_an_instruction_set_that_the_cpu_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="'neon' is not one of portable"):
        library.set_isa("neon")


def test_everything_that_is_public_is_there() -> None:
    for name in nacre_kernels.__all__:
        assert getattr(nacre_kernels, name) is not None


def test_the_benchmark_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--json", "--budget", "0", "--shape", "64x64", "--rows", "1,3", "--dtype", "bfloat16"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [result["rows"] for result in report["results"]] == [1, 3]
    assert all(result["ours_us"] > 0 and result["torch_us"] > 0 for result in report["results"])
