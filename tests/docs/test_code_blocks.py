"""What the documents show exists: code, commands, flags, requests, links, files, settings, fields and metrics.

Nothing is started and no model is loaded. Blocks marked `python run` are executed; the others need a server and are
checked as far as that goes without one.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import re
import tomllib
from importlib.util import find_spec
from typing import Any

import pytest
import typer
from prometheus_client import CollectorRegistry

from drafter_service.metrics import DrafterMetrics
from gateway.metrics import GatewayMetrics
from gateway.openai import fields
from gateway.settings import GatewaySettings
from nacre.cli.app import app
from nacre.client import Request
from nacre.errors import InvalidArgument, NacreError
from nacre.runtime.settings import DrafterSettings, StoreSettings, VerifierSettings
from nacre.runtime.store_metrics import StoreMetrics
from nacre.store import LocalStore
from nacre.v1 import session_pb2
from tests.docs.pages import (
    PAGES,
    ROOT,
    Block,
    anchors,
    blocks,
    commands,
    inline_code,
    links,
    prose,
    rows,
    section,
)
from tests.test_layers import LAYERS
from verifier_service.metrics import VerifierMetrics

SETTINGS: dict[str, type] = {
    "verifier": VerifierSettings,
    "drafter": DrafterSettings,
    "gateway": GatewaySettings,
    "store": StoreSettings,
}
OPERATIONS = ROOT / "docs/operations.md"
HTTP_API = ROOT / "docs/http-api.md"
PROTOCOL = ROOT / "docs/protocol.md"
#: Commands of others that the pages may show.
FOREIGN = {"pip", "git", "cd"}
TREES = ("nacre", "gateway", "verifier_service", "drafter_service", "kernels", "protos", "tests", "docs", ".ci")
#: Methods of the client that take the fields of a request.
GENERATING = ("generate", "complete", "start")
ENDPOINTS = {"/v1/completions": fields.CompletionFields, "/v1/chat/completions": fields.ChatFields}


def _store_registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    StoreMetrics(LocalStore(), registry)
    return registry


def each(language: str) -> Any:
    found = blocks(language)
    assert found, f"no page shows {language}"
    return pytest.mark.parametrize("block", found, ids=[block.where for block in found])


# -- code ------------------------------------------------------------------------------------------------------------


@each("python")
def test_python_blocks_compile_and_what_they_import_is_there(block: Block) -> None:
    tree = ast.parse(block.text, block.where)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in TREES:
            module = importlib.import_module(node.module or "")
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in GENERATING:
            known = {item.name for item in dataclasses.fields(Request)}
            assert {keyword.arg for keyword in node.keywords} <= known, ast.unparse(node)
    if "run" in block.tags:
        exec(compile(tree, block.where, "exec"), {"__name__": "__main__"})


@each("json")
def test_json_blocks_are_json(block: Block) -> None:
    json.loads(block.text)


@each("toml")
def test_toml_blocks_set_settings_that_exist(block: Block) -> None:
    for service, values in tomllib.loads(block.text).items():
        assert set(values) <= {item.name for item in dataclasses.fields(SETTINGS[service])}


# -- commands --------------------------------------------------------------------------------------------------------


@each("sh")
def test_commands_and_their_flags_exist(block: Block) -> None:
    for words in commands(block.text):
        check_command(words)


def test_commands_in_the_text_exist_too() -> None:
    shown = [code for page in PAGES for code in inline_code(page) if re.match(r"(nacre|make) [a-z]", code)]
    assert len(shown) > 10
    for code in shown:
        for words in commands(code.replace("…", "")):
            check_command(words)


@pytest.mark.parametrize(
    "wrong",
    [
        "nacre pu",
        "nacre up --treads 4",
        "nacre models inflated a b",
        "nacre serve verifier --drafters 1",
        "nacre config show --service drafter --pass-rows 4",
        "make dem",
        "ncare up",
        "python -m verifier",
        "curl http://127.0.0.1:8000/v1/completion",
        """curl http://127.0.0.1:8000/v1/completions -d '{"prompt": "a", "max_token": 4}'""",
        """curl http://127.0.0.1:8000/v1/completions -d '{"max_tokens": 4}'""",
    ],
)
def test_a_command_that_does_not_exist_would_be_noticed(wrong: str) -> None:
    (words,) = commands(wrong)
    with pytest.raises((AssertionError, InvalidArgument)):
        check_command(words)


def check_command(words: list[str]) -> None:
    match words:
        case ["nacre", *rest]:
            _check_nacre(rest)
        case ["make", *targets]:
            known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert {target for target in targets if "=" not in target} <= set(known), words
        case ["python", "-m", module, *_]:
            assert find_spec(module.partition(".")[0]), words
            assert find_spec(module), words
        case ["curl", *rest]:
            _check_curl(rest)
        case [command, *_]:
            assert command in FOREIGN, words


def _check_nacre(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    path: list[str] = []
    while words and (found := getattr(command, "commands", {}).get(words[0])):
        command, path, words = found, [*path, words[0]], words[1:]
    known = {name for item in command.params for name in (*item.opts, *item.secondary_opts)} | {"--help"}
    positional = sum(item.param_type_name == "argument" for item in command.params)
    if path[:1] == ["serve"] and len(path) == 2:
        known |= _flags_of(path[1])
    if path == ["config", "show"] and "--service" in words:
        known |= _flags_of(words[words.index("--service") + 1])
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    assert set(flags) <= known, f"nacre {' '.join(path)} has no {sorted(set(flags) - known)}"
    if not positional and not flags:
        assert not words, f"nacre {' '.join(path)} takes no {words}"


def _flags_of(service: str) -> set[str]:
    return {f"--{item.name.replace('_', '-')}" for item in dataclasses.fields(SETTINGS[service])} | {"--config"}


def _check_curl(words: list[str]) -> None:
    url = next(word for word in words if word.startswith("http"))
    path = re.sub(r"^https?://[^/]+", "", url)
    assert path in routes_served(), f"nothing is served at {path}"
    if "-d" in words:
        request = fields.parse(words[words.index("-d") + 1].encode(), ENDPOINTS[path])
        assert not request.model_extra, f"unknown fields {sorted(request.model_extra or ())}"


def routes_served() -> set[str]:
    source = ast.parse((ROOT / "gateway/openai/app.py").read_text())
    calls = [node for node in ast.walk(source) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Route"]
    return {node.args[0].value for node in calls if isinstance(node.args[0], ast.Constant)}


# -- links and files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere_and_files_that_are_named_exist(page: Any) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{link}: {target.name} has no such heading"
    for code in inline_code(page):
        named = re.fullmatch(r"([\w.-]+)/[\w./-]+", code)
        if named and named[1] in TREES and "*" not in code:
            assert (ROOT / code).exists(), f"there is no {code}"


def test_the_map_shows_the_layers_that_are_enforced() -> None:
    shown = next(block.text for block in blocks("text") if block.text.startswith("cli | "))
    enforced = [[name for name in line if find_spec(name)] for line in LAYERS]
    assert shown.splitlines() == [" | ".join(name.removeprefix("nacre.") for name in line) for line in enforced]


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs/README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in links(index)}
    assert {page for page in PAGES if page.parent == index.parent and page != index} <= linked


# -- tables that must agree with the code ----------------------------------------------------------------------------


@pytest.mark.parametrize("service", SETTINGS)
def test_the_settings_table_is_the_settings(service: str) -> None:
    shown = {
        cells[0].strip("`"): cells[1].strip("`") for cells in rows(section(OPERATIONS, f"Settings of the {service}"))
    }
    assert shown == {item.name: json.dumps(item.default) for item in dataclasses.fields(SETTINGS[service])}


@pytest.mark.parametrize(
    ("title", "registry"),
    [
        ("Verifier", VerifierMetrics("model").registry),
        ("Drafter", DrafterMetrics("model").registry),
        ("Gateway", GatewayMetrics().registry),
        ("Store", _store_registry()),
    ],
    ids=["verifier", "drafter", "gateway", "store"],
)
def test_the_metrics_table_is_the_metrics(title: str, registry: CollectorRegistry) -> None:
    shown = {(cells[0].strip("`"), cells[1]) for cells in rows(section(OPERATIONS, title))}
    exposed = {
        (metric.name + ("_total" if metric.type == "counter" else ""), metric.type) for metric in registry.collect()
    }
    assert shown == exposed


def test_metrics_in_the_text_and_in_queries_exist() -> None:
    known = {
        cells[0].strip("`")
        for title in ("Verifier", "Drafter", "Gateway", "Store")
        for cells in rows(section(OPERATIONS, title))
    }
    said = {name for page in PAGES for name in re.findall(r"\bnacre_[a-z_]+\b", page.read_text("utf-8"))}
    others = {"nacre_kernels", "nacre_race_temperature"}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in said - others - {"nacre_"}} <= known


def test_every_request_field_is_described_and_nothing_else() -> None:
    described = {
        name.strip("`") for cells in rows(section(HTTP_API, "Request fields")) for name in cells[0].split(", ")
    }
    assert described == {*fields.CompletionFields.model_fields, *fields.ChatFields.model_fields}


def test_every_refused_field_is_named() -> None:
    text = prose(HTTP_API)
    named = set(re.findall(r"`([a-z_]+)`", text[text.index("Refused:") : text.index("Ignored,")]))
    assert named == {*fields._REFUSED, "best_of"} | ({"n"} & named)


def test_every_route_is_described() -> None:
    described = {path for cells in rows(HTTP_API.read_text("utf-8")) for path in re.findall(r"(/[\w/{}]+)`", cells[0])}
    assert {re.sub(r"\{.*\}", "{id}", path) for path in routes_served()} == described


def test_every_error_status_is_described() -> None:
    described = {cells[0]: cells[1].strip("`") for cells in rows(section(HTTP_API, "Errors"))}
    for kind in NacreError.__subclasses__():
        if kind.http_status != 499:  # the client that cancelled is gone
            assert described[str(kind.http_status)] == kind.openai_type


def test_the_message_fields_of_the_protocol_page_exist() -> None:
    messages = session_pb2.DESCRIPTOR.message_types_by_name
    shown = re.findall(r"(?:^|`)(Draft|Open|Reanchor)\{([^}]*)\}", PROTOCOL.read_text("utf-8"), re.MULTILINE)
    assert {message for message, _ in shown} == {"Draft", "Open", "Reanchor"}
    for message, inside in shown:
        named = re.findall(r"(\w+):", inside) or [inside]
        assert set(named) <= set(messages[message].fields_by_name), f"{message} {named}"


def test_the_readme_names_the_test_command_that_ci_runs() -> None:
    assert "exec make test" in (ROOT / ".ci/run").read_text()
    assert any(["make", "test"] in commands(block.text) for block in blocks("sh") if block.page.name == "README.md")
