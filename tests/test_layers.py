"""The house rules that can be checked by reading the source: who imports whom, what is never called, length of files.

Imports inside functions count like any other; only those under `if TYPE_CHECKING:` do not. Text is parsed, never
imported.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("nacre", "verifier_service", "drafter_service", "gateway", "kernels")

#: Each line may import only lines below it; names on one line do not import one another.
LAYERS = (
    ("nacre.cli", "drafter_service", "verifier_service", "gateway"),
    ("nacre.bench",),
    ("nacre.client", "nacre.sim", "nacre.training"),
    ("nacre.runtime",),
    ("nacre.engine", "nacre.store", "nacre.wire"),
    ("nacre.session", "nacre.scheduling"),
    ("nacre.drafting",),
    ("nacre.pacing", "nacre.acceptance"),
    ("nacre.sampling",),
    ("nacre.tree", "nacre.text", "nacre.models"),
    ("nacre.ids",),
    ("nacre.errors", "nacre.v1"),
)

#: Generated code and package data: no rules of ours for their text.
GENERATED = ("nacre/v1/",)

#: State machines and rules: time is an argument, randomness a key, effects are return values.
PURE = ("nacre.session", "nacre.scheduling", "nacre.pacing", "nacre.tree", "nacre.sim")
NOT_IN_PURE = {"asyncio", "time", "random", "logging", "grpc", "torch", "threading", "socket", "datetime", "secrets"}

#: Where torch may be imported: folders end in a slash.
TORCH = (
    "nacre/engine/",
    "nacre/training/",
    "nacre/sampling/torch_",
    "nacre/acceptance/torch_",
    "nacre/drafting/model.py",
    "nacre/bench/copy_worth.py",  # both models' logits along a text
    "nacre/bench/store_costs.py",  # times the search for the best tokens
    "nacre/bench/yardsticks",  # transformers' own ways to generate, in processes of their own
    "nacre/cli/reference.py",  # the yardstick: transformers' own generate, in a process of its own
    "kernels/nacre_kernels/",
)
#: Who may import the kernels; `nacre doctor` reports whether they were built.
KERNELS = (
    "nacre/engine/",
    "nacre/sampling/",
    "nacre/drafting/row_trees.py",
    "nacre/acceptance/torch_",
    "nacre/cli/doctor.py",
    "kernels/nacre_kernels/",
)

NEVER_IMPORTED = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
NEVER_CALLED = {"eval", "exec"}
MOST_LINES = 400


@dataclass(frozen=True)
class Import:
    """`where` imports module `name` (absolute) at `line`; `late` if inside a function."""

    where: Path
    name: str
    line: int
    late: bool

    def __str__(self) -> str:
        return f"{self.where.relative_to(ROOT)}:{self.line} imports {self.name}"


@cache
def sources() -> tuple[Path, ...]:
    found = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return tuple(path for path in found if not relative(path).startswith(GENERATED))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "kernels":
        parts = parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def imports(path: Path) -> tuple[Import, ...]:
    """All imports of a file but those for the type checker alone."""
    return tuple(_imports(path, parsed(path), late=False))


def _imports(path: Path, node: ast.AST, *, late: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from _imports(path, ast.Module([other], []), late=late)
            continue
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(path, alias.name, child.lineno, late)
        elif isinstance(child, ast.ImportFrom):
            base = _absolute(path, child)
            for alias in child.names:
                yield Import(path, f"{base}.{alias.name}", child.lineno, late)
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _imports(path, child, late=late or inside)
        if isinstance(child, ast.Call) and ast.unparse(child.func) in ("importlib.import_module", "__import__"):
            match child.args:
                case [ast.Constant(value=str(name)), *_]:
                    yield Import(path, name, child.lineno, late or inside)


def _absolute(path: Path, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def layer(name: str) -> tuple[int, str] | None:
    for level, packages in enumerate(LAYERS):
        for package in packages:
            if within(name, package):
                return level, package
    return None


def test_every_module_has_its_place_in_the_house() -> None:
    homeless = {
        module_name(path)
        for path in sources()
        if layer(module_name(path)) is None and module_name(path) not in ("nacre", "setup")
    }
    assert {name for name in homeless if not within(name, "nacre_kernels")} == set()


def test_imports_only_point_down() -> None:
    wrong = []
    for path in sources():
        here = layer(module_name(path))
        for item in imports(path):
            there = layer(item.name)
            if here is not None and there is not None and here[1] != there[1] and there[0] <= here[0]:
                wrong.append(str(item))
    assert wrong == []


def test_the_kernels_know_nothing_of_the_house_and_few_know_them() -> None:
    wrong = []
    for path in sources():
        inside = relative(path).startswith("kernels/")
        for item in imports(path):
            if inside and item.name.split(".")[0] in ("nacre", "verifier_service", "drafter_service", "gateway"):
                wrong.append(str(item))
            if within(item.name, "nacre_kernels") and not relative(path).startswith(KERNELS):
                wrong.append(str(item))
    assert wrong == []


def test_the_pure_folders_import_no_clock_no_chance_no_wire_and_no_torch() -> None:
    wrong = [
        str(item)
        for path in sources()
        if any(within(module_name(path), pure) for pure in PURE)
        for item in imports(path)
        if item.name.split(".")[0] in NOT_IN_PURE
    ]
    assert wrong == []


def test_torch_is_imported_only_where_models_live() -> None:
    wrong = [
        str(item)
        for path in sources()
        if not relative(path).startswith(TORCH)
        for item in imports(path)
        if within(item.name, "torch")
    ]
    assert wrong == []


def test_the_base_install_works_without_torch_and_transformers() -> None:
    script = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'safetensors', 'starlette', 'redis'):\n"
        "    sys.modules[name] = None\n"
        "import nacre.sampling, nacre.session, nacre.drafting.lookup, nacre.sim, nacre.wire.messages, nacre.store\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_there_is_no_package_called_kernels() -> None:
    # transformers imports Hugging Face's `kernels` by that name and would find ours.
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_nothing_unpickles_or_evaluates() -> None:
    wrong = []
    for path in sources():
        wrong += [str(item) for item in imports(path) if item.name.split(".")[0] in NEVER_IMPORTED]
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                pickled = any(
                    keyword.arg == "allow_pickle"
                    and not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
                    for keyword in node.keywords
                )
                if name in NEVER_CALLED or name.endswith("torch.load") or pickled:
                    wrong.append(f"{relative(path)}:{node.lineno} calls {name}")
    assert wrong == []


def test_no_file_is_longer_than_can_be_read_in_one_go() -> None:
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import torch", {"torch"}),
        ("from torch import nn", {"torch.nn"}),
        ("def f():\n    import torch.nn", {"torch.nn"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch", {"typing.TYPE_CHECKING"}),
        ("import typing\nif typing.TYPE_CHECKING:\n    import a\nelse:\n    import b", {"typing", "b"}),
        ("import importlib\nx = importlib.import_module('torch')", {"importlib", "torch"}),
        ("from . import verifier", {"nacre.session.verifier"}),
        ("from ..sampling import Choice", {"nacre.sampling.Choice"}),
        ("try:\n    import a\nexcept ImportError:\n    import b", {"a", "b"}),
    ],
)
def test_the_reader_of_imports_sees_what_python_would_do(text: str, expected: set[str]) -> None:
    path = ROOT / "nacre" / "session" / "imaginary.py"
    assert {item.name for item in _imports(path, ast.parse(text), late=False)} == expected
