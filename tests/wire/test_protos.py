"""The wire format: generated code is what the protos say, and no change breaks a peer of an earlier release."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
)

ROOT = Path(__file__).parents[2]
PROTOS = sorted((ROOT / "protos/nacre/v1").glob("*.proto"))
RELEASED = ROOT / "protos/nacre/v1/released.binpb"
REMEDY = "run `make protos` and commit the result"


def _protoc(*arguments: str) -> None:
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-I{ROOT / 'protos'}",
        *arguments,
        *map(str, PROTOS),
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)


def _descriptors(path: Path) -> FileDescriptorSet:
    return FileDescriptorSet.FromString(path.read_bytes())


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory) -> FileDescriptorSet:
    target = tmp_path_factory.mktemp("protos") / "current.binpb"
    _protoc("--include_imports", f"--descriptor_set_out={target}")
    return _descriptors(target)


def test_generated_code_is_what_the_protos_generate(tmp_path: Path) -> None:
    _protoc(f"--python_out={tmp_path}", f"--pyi_out={tmp_path}", f"--grpc_python_out={tmp_path}")
    fresh = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.py*"))
    assert fresh
    for path in fresh:
        assert (ROOT / path).read_text() == (tmp_path / path).read_text(), f"{path} is stale: {REMEDY}"


def test_the_released_descriptor_still_fits(current: FileDescriptorSet) -> None:
    assert list(breaks(_descriptors(RELEASED), current)) == []


def test_the_released_descriptor_knows_everything_there_is(current: FileDescriptorSet) -> None:
    assert list(breaks(current, _descriptors(RELEASED))) == [], "new fields are not recorded: run `make release-protos`"


def test_every_field_says_what_it_is() -> None:
    undocumented = []
    for path in PROTOS:
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            declares = re.match(
                r"\s+(optional |repeated )?[\w.]+ \w+ = \d+;|\s*(message|service|enum) \w+|\s+rpc ", line
            )
            if declares and not line.strip().startswith("oneof"):
                above = lines[number - 1].strip()
                inside_oneof = any("oneof body" in earlier for earlier in lines[max(0, number - 5) : number])
                if not above.startswith("//") and not inside_oneof and line.strip() not in NAMED_BY_CONTENT:
                    undocumented.append(f"{path.name}:{number + 1}: {line.strip()}")
    assert undocumented == []


NAMED_BY_CONTENT = {
    "message LogitBias {",
    "message SessionRequest {",
    "message SessionEvent {",
    "message GetModelRequest {}",
    "message GetModelResponse {",
    "message GetTokenizerRequest {}",
    "message GetTokenizerResponse {",
    "message AttachRequest {",
    "message AttachResponse {",
    "message GetDrafterResponse {",
    "service Verifier {",
    "enum FinishReason {",
    "service Drafter {",
}


def test_an_incompatible_change_is_noticed() -> None:
    for spoil, expected in (
        (_renumber_a_field, "number"),
        (_retype_a_field, "type"),
        (_drop_a_field, "reserved"),
        (_drop_an_enum_value, "enum value"),
        (_change_a_method, "method"),
    ):
        changed = _descriptors(RELEASED)
        spoil(changed)
        assert any(expected in found for found in breaks(_descriptors(RELEASED), changed)), expected


def breaks(old: FileDescriptorSet, new: FileDescriptorSet) -> Iterator[str]:
    """What in `new` would break a peer or a caller built with `old`."""
    fresh = {file.name: file for file in new.file}
    for file in old.file:
        if file.name not in fresh:
            yield f"file {file.name} is gone"
            continue
        now = fresh[file.name]
        messages = {message.name: message for message in now.message_type}
        for message in file.message_type:
            yield from _message_breaks(message, messages.get(message.name))
        enums = {enum.name: enum for enum in now.enum_type}
        for enum in file.enum_type:
            yield from _enum_breaks(enum, enums.get(enum.name))
        methods = {(s.name, m.name): m for s in now.service for m in s.method}
        for service in file.service:
            for method in service.method:
                if methods.get((service.name, method.name)) != method:
                    yield f"method {service.name}.{method.name} changed or is gone"


def _message_breaks(old: DescriptorProto, new: DescriptorProto | None) -> Iterator[str]:
    if new is None:
        yield f"message {old.name} is gone"
        return
    by_name = {field.name: field for field in new.field}
    numbers = {field.number for field in new.field}
    for field in old.field:
        now = by_name.get(field.name)
        if now is None:
            kept = any(span.start <= field.number < span.end for span in new.reserved_range)
            if field.number in numbers or not kept or field.name not in new.reserved_name:
                yield f"{old.name}.{field.name} is gone and its number and name are not reserved"
            continue
        if now.number != field.number:
            yield f"{old.name}.{field.name} changed its number"
        if _shape(now) != _shape(field):
            yield f"{old.name}.{field.name} changed its type"


def _shape(field: FieldDescriptorProto) -> tuple[int, int, str, bool, bool]:
    return field.type, field.label, field.type_name, field.HasField("oneof_index"), field.proto3_optional


def _enum_breaks(old: EnumDescriptorProto, new: EnumDescriptorProto | None) -> Iterator[str]:
    values = {value.name: value.number for value in new.value} if new is not None else {}
    for value in old.value:
        if values.get(value.name) != value.number:
            yield f"enum value {value.name} changed or is gone"


def _message(descriptors: FileDescriptorSet, name: str) -> DescriptorProto:
    return next(m for file in descriptors.file for m in file.message_type if m.name == name)


def _renumber_a_field(descriptors: FileDescriptorSet) -> None:
    _message(descriptors, "Draft").field[0].number = 99


def _retype_a_field(descriptors: FileDescriptorSet) -> None:
    _message(descriptors, "Commit").field[0].type = FieldDescriptorProto.TYPE_INT32


def _drop_a_field(descriptors: FileDescriptorSet) -> None:
    del _message(descriptors, "Open").field[3]


def _drop_an_enum_value(descriptors: FileDescriptorSet) -> None:
    enum = next(e for file in descriptors.file for e in file.enum_type if e.name == "FinishReason")
    del enum.value[-1]


def _change_a_method(descriptors: FileDescriptorSet) -> None:
    service = next(s for file in descriptors.file for s in file.service if s.name == "Verifier")
    service.method[0].server_streaming = False
