"""`nacre up` with real processes: it serves, survives the loss of a drafter, and one Ctrl-C leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from nacre.drafting.rest_datastore import build
from tests.cli.conftest import Nacre
from tests.tiny_models import MAX_POSITIONS, TinyPair, write_tiny_pair

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]

WAIT_S = 240


class Running:
    """A `nacre up` that is ready."""

    def __init__(self, process: subprocess.Popen[str], told: dict[str, Any], log: Path) -> None:
        self.process = process
        self.told = told
        self.log = log

    @property
    def pids(self) -> list[int]:
        return [entry["pid"] for entry in (self.told["gateway"], *self.told["verifiers"], *self.told["drafters"])]

    @property
    def grpc(self) -> str:
        return self.told["grpc"]


@contextmanager
def running(pair: TinyPair, folder: Path, *flags: object) -> Iterator[Running]:
    """Starts `nacre up --json` and waits until it says where it listens; kills what is left at the end."""
    command = [
        *(sys.executable, "-m", "nacre.cli", "up", "--json", "--http-port", "0", "--grpc-port", "0"),
        *("--target", str(pair.target), "--draft", str(pair.draft), "--dtype", "float32", *map(str, flags)),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NACRE_")}
    log = folder / "up.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=folder, env=environment
        )
    assert process.stdout is not None
    with process:
        try:
            told = json.loads(_one_object(process.stdout)) if process.stdout else {}
            yield Running(process, told, log)
        except json.JSONDecodeError:
            pytest.fail(f"nacre up said: {log.read_text()}")
        finally:
            process.kill()


def _one_object(stream: Any) -> str:
    lines = []
    for line in stream:
        lines.append(line)
        if line == "}\n":
            break
    return "".join(lines)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="module")
def up(tiny_pair: TinyPair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("up")
    with running(tiny_pair, folder, "--drafters", 2, "--network-delay-ms", 1, "--seed", 3) as started:
        yield started


def test_the_text_is_the_same_with_and_without_speculation(nacre: Nacre, up: Running):
    flags = ("--address", up.grpc, "--seed", 7, "--max-tokens", 48, "--json")
    guessed = json.loads(nacre("generate", "def fibonacci(n):", *flags).out)
    alone = json.loads(nacre("generate", "def fibonacci(n):", *flags, "--no-speculation").out)
    here = json.loads(nacre("generate", "def fibonacci(n):", *flags, "--draft-here", "--method", "lookup").out)
    assert len(guessed["tokens"]) == len(guessed["guessed_by"]) <= 48
    for other in (alone, here):
        assert (other["text"], other["tokens"], other["finish_reason"]) == (
            guessed["text"],
            guessed["tokens"],
            guessed["finish_reason"],
        )
    assert alone["statistics"]["verified_guesses"] == 0
    assert set(alone["guessed_by"]) == {0}
    assert guessed["seed"] == 7
    assert guessed["statistics"]["tokens"] == len(guessed["tokens"])


def test_a_prediction_changes_no_text(nacre: Nacre, up: Running, tmp_path: Path):
    flags = ("--address", up.grpc, "--seed", 7, "--max-tokens", 48, "--json")
    alone = json.loads(nacre("generate", "x = ", *flags, "--no-speculation").out)
    file = tmp_path / "expected.txt"
    file.write_text(alone["text"], encoding="utf-8")
    for more in ((), ("--draft-here", "--method", "prediction")):
        told = json.loads(nacre("generate", "x = ", *flags, "--prediction", file, *more).out)
        assert (told["text"], told["tokens"]) == (alone["text"], alone["tokens"])


def test_streamed_text_is_the_jsons_text(nacre: Nacre, up: Running):
    flags = ("--address", up.grpc, "--seed", 11, "--max-tokens", 32)
    told = json.loads(nacre("generate", "import ", *flags, "--json").out)
    plain = nacre("generate", "import ", *flags)
    assert (plain.code, plain.out, plain.err) == (0, told["text"], "")


def test_several_completions_are_one_object(nacre: Nacre, up: Running):
    flags = ("--address", up.grpc, "--seed", 5, "--max-tokens", 12, "--json")
    one = json.loads(nacre("generate", "x = ", *flags).out)
    told = json.loads(nacre("generate", "x = ", *flags, "--n", 2).out)["completions"]
    assert [completion["seed"] for completion in told] == [5, 5]
    assert told[0]["tokens"] == one["tokens"]
    assert told[1]["tokens"] != one["tokens"]


def test_the_http_face_writes_the_same_text(nacre: Nacre, up: Running):
    told = json.loads(nacre("generate", "import ", "--address", up.grpc, "--seed", 9, "--max-tokens", 16, "--json").out)
    body = {"model": up.told["model"], "prompt": "import ", "max_tokens": 16, "seed": 9, "temperature": 1}
    answer = httpx.post(f"{up.told['http']}/completions", json=body, timeout=WAIT_S)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["text"] == told["text"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x", "--top-p", "0"], ["top_p is 0.0", "above 0 and at most 1"]),
        (["x" * 2000], [str(MAX_POSITIONS)]),
        (["x", "--max-tokens", "100000"], ["100000", str(MAX_POSITIONS)]),
    ],
    ids=["top_p", "long prompt", "many tokens"],
)
def test_what_the_service_refuses_is_one_line(nacre: Nacre, up: Running, arguments: list[str], said: list[str]):
    message = nacre("generate", *arguments, "--address", up.grpc).mistake()
    for words in said:
        assert words in message


def test_a_draft_model_with_another_tokenizer_is_refused_by_both_values(nacre: Nacre, up: Running, tmp_path: Path):
    other = write_tiny_pair(tmp_path / "other").draft
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[1:3]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    message = nacre("generate", "x", "--address", up.grpc, "--draft-here", "--draft", other).mistake()
    assert "has tokenizer " in message
    assert "the target has " in message
    assert "name a draft model of the target's family" in message


def test_a_device_drafts_from_a_corpus_of_the_targets_tokenizer_only(
    nacre: Nacre, up: Running, tiny_pair: TinyPair, tmp_path: Path
):
    request = ("generate", "def fibonacci(n):", "--address", up.grpc, "--max-tokens", "24", "--seed", "1", "--json")
    text = json.loads(nacre(*request).out)["text"]
    (tmp_path / "notes.txt").write_text("def fibonacci(n):" + text, encoding="utf-8")
    corpus, other = tmp_path / "notes.rest", tmp_path / "other.rest"
    assert nacre("store", "build", tmp_path / "notes.txt", "--out", corpus, "--target", tiny_pair.target).out
    here = (*request, "--draft-here", "--method", "rest", "--datastore")
    assert json.loads(nacre(*here, corpus).out)["text"] == text
    build(other, [[1, 2, 3]], "f" * 32)
    message = nacre(*here, other).mistake()
    assert f"{other} has tokenizer {'f' * 32}" in message
    assert "build the datastore for that target" in message


def test_a_killed_drafter_comes_back_where_it_was(up: Running):
    lost = up.told["drafters"][0]
    os.kill(lost["pid"], signal.SIGKILL)
    until(lambda: f"{lost['name']} is back" in up.log.read_text())
    assert f"{lost['name']} was ended by SIGKILL" in up.log.read_text()
    listening = {c.laddr.port for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    assert lost["grpc_port"] in listening


def test_one_ctrl_c_stops_everything(tiny_pair: TinyPair, tmp_path: Path):
    with running(tiny_pair, tmp_path) as up:
        assert len(up.pids) == 3
        assert not any(gone(pid) for pid in up.pids)
        groups = {os.getpgid(pid) for pid in up.pids}
        assert os.getpgid(up.process.pid) not in groups
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(timeout=WAIT_S) == 130
        assert all(gone(pid) for pid in up.pids)
        assert "Traceback" not in up.log.read_text()


def test_a_killed_parent_takes_everything_with_it(tiny_pair: TinyPair, tmp_path: Path):
    with running(tiny_pair, tmp_path, "--method", "lookup") as up:
        up.process.kill()
        up.process.wait(timeout=WAIT_S)
        until(lambda: all(gone(pid) for pid in up.pids))


def test_the_loss_of_the_only_verifier_is_reported_and_ends_it(tiny_pair: TinyPair, tmp_path: Path):
    with running(tiny_pair, tmp_path, "--method", "lookup") as up:
        os.kill(up.told["verifiers"][0]["pid"], signal.SIGKILL)
        assert up.process.wait(timeout=WAIT_S) == 2
        assert up.log.read_text().splitlines()[-1].startswith("nacre: verifier was ended by SIGKILL")
        assert all(gone(pid) for pid in up.pids)


@pytest.mark.parametrize("broken", ["target", "draft"])
def test_a_child_that_fails_at_start_tells_why_and_leaves_nothing(
    nacre_process: Nacre, tiny_pair: TinyPair, tmp_path: Path, broken: str
):
    copy = write_tiny_pair(tmp_path / "broken")
    path = getattr(copy, broken)
    (path / "model.safetensors").write_bytes(b"\xff" * 64)
    outcome = nacre_process(
        *("up", "--http-port", 0, "--grpc-port", 0, "--target", copy.target, "--draft", copy.draft),
        *("--dtype", "float32"),
    )
    assert outcome.code == 2
    assert outcome.out == ""
    last = outcome.err.splitlines()[-1]
    who = "verifier" if broken == "target" else "drafter"
    assert last.startswith(f"nacre: {who}: the weights in '{path}' are corrupt")
    assert "Traceback" not in outcome.err
    left = [p for p in psutil.process_iter(["cmdline"]) if str(copy.target) in (p.info["cmdline"] or [])]
    assert left == []
