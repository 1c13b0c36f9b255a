"""A second copy of the pure core, with some source lines changed, loaded beside the real one.

`load` imports the tree, the session machines, the simulator and the suite's own behaviour tests anew, each module from
its file except where other source is given. Nothing on disk changes, and afterwards `sys.modules` is as before.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

#: Loaded anew together, so that they see one another and not the originals.
CORE = ("nacre.tree", "nacre.session", "nacre.sim")
SUITE = (
    "tests.test_tree",
    "tests.session.both_ends",
    "tests.session.verifier_steps",
    "tests.session.test_verifier_session",
    "tests.session.test_verifier_streams",
    "tests.session.test_verifier_replay",
    "tests.session.drafter_steps",
    "tests.session.test_drafter_session",
    "tests.session.test_drafter_thresholds",
)


class _Source(importlib.abc.SourceLoader):
    def __init__(self, path: str, source: str) -> None:
        self._path = path
        self._source = source

    def get_filename(self, fullname: str) -> str:
        return self._path

    def get_data(self, path: str) -> bytes:
        if path != self._path:
            raise OSError(path)  # no bytecode cache
        return self._source.encode()


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, sources: Mapping[str, tuple[str, str]]) -> None:
        self._sources = sources

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self._sources:
            return None
        file, source = self._sources[fullname]
        return importlib.util.spec_from_file_location(fullname, file, loader=_Source(file, source))


def load(changed: Mapping[str, str]) -> dict[str, ModuleType]:
    """`changed` maps module names of the core to source text. Returns the fresh modules by name."""
    files = {name: importlib.import_module(name).__file__ or "" for name in changed}
    finder = _Finder({name: (files[name], source) for name, source in changed.items()})
    saved = {name: module for name, module in sys.modules.items() if _is_ours(name)}
    for name in saved:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        for name in ("nacre.sim.chaos", *SUITE):
            importlib.import_module(name)
        return {name: module for name, module in sys.modules.items() if _is_ours(name)}
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if _is_ours(name)]:
            del sys.modules[name]
        sys.modules.update(saved)
        for name, module in saved.items():
            package, _, attribute = name.rpartition(".")
            if package in sys.modules:
                setattr(sys.modules[package], attribute, module)


def behaviours(modules: Mapping[str, ModuleType]) -> Iterator[None]:
    """Runs the suite's plain tests, one per step, each with its parameters."""
    for name in SUITE:
        for attribute, value in vars(modules[name]).items():
            if attribute.startswith("test_"):
                for arguments in _cases(value):
                    value(**arguments)
                    yield


def _cases(test: object) -> Iterator[dict[str, object]]:
    marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
    if not marks:
        yield {}
        return
    (mark,) = marks
    assert isinstance(mark, pytest.Mark)
    names = [name.strip() for name in mark.args[0].split(",")] if isinstance(mark.args[0], str) else list(mark.args[0])
    for values in mark.args[1]:
        yield dict(zip(names, values if len(names) > 1 else (values,), strict=True))


def _is_ours(name: str) -> bool:
    return name in SUITE or any(name == core or name.startswith(core + ".") for core in CORE)
