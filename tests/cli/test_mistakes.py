"""Whatever a user gets wrong: one line that names the value and the remedy, exit code 2, no traceback."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Nacre
from tests.tiny_models import TinyPair


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demmo"], ["No such command 'demmo'", "Did you mean", "'demo'"]),
        (["up", "--verifers", "2"], ["No such option: --verifers", "--verifiers"]),
        (["up", "--verifiers", "0"], ["--verifiers is 0", "a whole number from 1 to 64"]),
        (["up", "--network-delay-ms", "-1"], ["--network-delay-ms is -1", "from 0 to 60000"]),
        (["up", "--threads", "many"], ["--threads is many", "a whole number from 1 to 1024"]),
        (["up", "--method", "guesswork", "--target", "x"], ["guesswork", "choose one of", "lookup"]),
        (["up", "--local", "suffix+model", "--target", "x"], ["model needs a model", "run a drafter for it"]),
        (["up", "--log-level", "loud"], ["--log-level is 'loud'", "debug, info, warning, error"]),
        (["generate"], ["Missing argument 'prompt'"]),
        (["generate", ""], ["the prompt is empty", "give"]),
        (["generate", "x", "--address", "nowhere"], ["--address is 'nowhere'", "must be host:port"]),
        (["generate", "x", "--address", "h:99999"], ["--address is 'h:99999'"]),
        (["generate", "x", "--address", "127.0.0.1:1"], ["127.0.0.1:1 is unreachable", "is it running?"]),
        (["generate", "x", "--max-tokens", "0"], ["--max-tokens is 0", "from 1 to"]),
        (["generate", "x", "--seed", "-1"], ["--seed is -1", "from 0 to"]),
        (["generate", "x", "--n", "1000"], ["--n is 1000", "from 1 to 128"]),
        (["generate", "x", "--stop", ""], ["--stop is empty", "give at least one character"]),
        (["generate", "x", "--prediction", "lost.txt"], ["--prediction lost.txt cannot be read", "name a text file"]),
        (["generate", "x", "--top-p", "1.5"], ["--top-p is 1.5", "from 0 to 1"]),
        (["generate", "x", "--no-speculation", "--draft-here"], ["--no-speculation", "drop --draft-here"]),
        (["generate", "x", "--draft-here", "--method", "magic"], ["'magic' is unknown", "lookup"]),
        (["demo", "--temperature", "nan"], ["--temperature is nan", "a number from 0 to"]),
        (["demo", "--temperature", "-0.1"], ["--temperature is -0.1", "a number from 0 to"]),
        (["demo", "--target", "org/name", "--parameters", "113M"], ["'org/name' is none", "download it first"]),
        (["demo", "--parameters", "lots"], ["'lots' is no number of parameters", "113M"]),
        (["models", "show", "nowhere"], ["nowhere is no model directory", "give a Hugging Face model directory"]),
        (["models", "inflate", "nowhere", "out"], ["nowhere is no model directory"]),
        (["models", "dance"], ["No such command 'dance'"]),
        (["config", "show", "--threads", "2"], ["--threads belongs to one service", "--service"]),
        (["config", "show", "--service", "cook"], ["--service is 'cook'", "verifier, drafter, gateway, store"]),
        (["config", "show", "--service", "verifier", "--threads", "0"], ["threads is 0", "1 to 1024"]),
        (["config", "show", "--service", "verifier", "--config", "no.toml"], ["no.toml does not exist"]),
        (["config", "show", "--service", "gateway", "--grpc-port", "70000"], ["grpc_port is 70000", "0 to 65535"]),
        (["store", "dance"], ["No such command 'dance'"]),
        (["store", "stats"], ["inside the processes that use it", "set url or snapshot"]),
        (["store", "stats", "--snapshot", "none"], ["there is no snapshot none yet"]),
        (["store", "stats", "--url", "redis://h"], ["key_file is not", "nacre store key FILE"]),
        (["store", "stats", "--url", "redis://h", "--key-file", "none"], ["there is no key file none"]),
        (["store", "import", "none", "--snapshot", "s"], ["there is no file none", "nacre store export"]),
        (["store", "purge", "--snapshot", "s"], ["Missing option '--tenant'"]),
        (["store", "key", "no/where"], ["cannot write no/where"]),
        (["serve", "cook"], ["No such command 'cook'"]),
        (["train", "demo-pair", "--target-steps", "1"], ["--target-steps is 1", "from 10 to 1000000"]),
        (["train", "text-draft", "--steps", "1"], ["--steps is 1", "from 10 to 1000000"]),
        (
            ["bench", "first", "--draft", "text-draft", "--target", "org/name"],
            ["is trained for", "org/name"],
        ),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_one_line_says_what_is_wrong_and_what_to_do(nacre: Nacre, arguments: list[str], said: list[str]):
    message = nacre(*arguments).mistake()
    for words in said:
        assert words in message


def test_a_port_in_use_is_known_before_any_model_is_loaded(nacre: Nacre, taken_port: int):
    for flag in ("--http-port", "--grpc-port"):
        other = "--grpc-port" if flag == "--http-port" else "--http-port"
        message = nacre("up", flag, taken_port, other, 0, "--target", "nowhere", "--method", "lookup").mistake()
        assert f"{flag} is {taken_port}, which cannot be had on 127.0.0.1" in message
        assert "choose another" in message


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("NACRE_VERIFIER_THREADS", "0", "NACRE_VERIFIER_THREADS: threads is 0; it must be 1 to 1024"),
        ("NACRE_VERIFIER_COLOUR", "red", "NACRE_VERIFIER_COLOUR sets 'colour', which verifier does not have"),
        ("NACRE_CONFIG", "lost.toml", "configuration file lost.toml does not exist"),
    ],
)
def test_a_wrong_environment_is_told_by_the_variables_name(
    nacre: Nacre, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
):
    monkeypatch.setenv(variable, value)
    assert said in nacre("config", "show", "--service", "verifier").mistake()
    assert said in nacre("up", "--target", "x", "--method", "lookup").err


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[verifier]\nthreads = 'two'", "nacre.toml: threads is 'two'; it must be a int"),
        ("[verifyer]\nthreads = 2", "nacre.toml has a section 'verifyer'; known are verifier, drafter"),
        ("[verifier", "nacre.toml cannot be read"),
    ],
)
def test_a_wrong_file_is_told_by_its_name(nacre: Nacre, toml: str, said: str):
    Path("nacre.toml").write_text(toml)
    assert said in nacre("config", "show", "--service", "verifier").mistake()


def test_a_broken_model_directory_is_told_by_what_is_broken(nacre: Nacre, tiny_pair: TinyPair):
    def copy(name: str) -> Path:
        return Path(shutil.copytree(tiny_pair.target, name))

    (copy("no-weights") / "model.safetensors").unlink()
    weights = copy("cut-weights") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    (copy("no-header") / "model.safetensors").write_bytes(b"\xff" * 64)
    (copy("no-json") / "config.json").write_text("{")
    assert "no-weights has no weights" in nacre("models", "show", "no-weights").mistake()
    assert "cut-weights/model.safetensors are corrupt" in nacre("models", "show", "cut-weights").mistake()
    assert "no-header/model.safetensors are corrupt" in nacre("models", "show", "no-header").mistake()
    assert "no-json/config.json is not readable JSON" in nacre("models", "show", "no-json").mistake()


def test_inflating_never_writes_over_something(nacre: Nacre, tiny_pair: TinyPair):
    Path("out").mkdir()
    Path("out/thesis.txt").write_text("years of work")
    message = nacre("models", "inflate", tiny_pair.target, "out").mistake()
    assert message == "out exists and is not empty; choose another directory"
    assert [path.name for path in Path("out").iterdir()] == ["thesis.txt"]


def test_a_services_mistake_keeps_its_exit_code(nacre_process: Nacre):
    outcome = nacre_process("serve", "drafter", "--grpc-port", "70000")
    assert outcome.code == 2
    assert outcome.err == "nacre drafter: --grpc-port: grpc_port is 70000; it must be 0 to 65535\n"
    assert outcome.out == ""
