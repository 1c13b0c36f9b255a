"""What commands print: pure JSON where asked for, origins of settings, colours that follow the text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from nacre.cli import doctor as doctor_module
from nacre.cli.colours import ColouredText, coloured, harmless, legend
from nacre.cli.doctor import Finding, Verdict
from nacre.cli.model_files import (
    cached_models,
    draft_model,
    inflated_path,
    make_inflated,
    parse_count,
    read_model_files,
    text_draft_path,
)
from nacre.client import Piece
from nacre.errors import InvalidArgument
from nacre.text import Vocabulary
from nacre.training import text_draft
from tests.cli.conftest import Nacre
from tests.tiny_models import MAX_POSITIONS, VOCABULARY, TinyPair, byte_tokenizer


@pytest.mark.parametrize(
    "arguments", [["version"], ["models"], ["config", "show"], ["config", "show", "--service", "drafter"]]
)
def test_json_is_one_object_and_nothing_else(nacre: Nacre, arguments: list[str]):
    outcome = nacre(*arguments, "--json")
    assert outcome.code == 0
    assert isinstance(json.loads(outcome.out), dict)
    assert nacre(*arguments).out != outcome.out


def test_settings_tell_which_layer_they_came_from(nacre: Nacre, monkeypatch: pytest.MonkeyPatch):
    Path("nacre.toml").write_text("[verifier]\nthreads = 2\nkv_mb = 64\nseed = 5\n[gateway]\nmax_queue = 7\n")
    monkeypatch.setenv("NACRE_VERIFIER_KV_MB", "65")
    monkeypatch.setenv("NACRE_VERIFIER_SEED", "6")
    told = json.loads(nacre("config", "show", "--service", "verifier", "--seed", "8", "--json").out)["verifier"]
    assert told["dtype"]["from"] == "default"
    assert told["threads"] == {"value": 2, "from": "nacre.toml"}
    assert told["kv_mb"] == {"value": 65, "from": "NACRE_VERIFIER_KV_MB"}
    assert told["seed"] == {"value": 8, "from": "--seed"}
    everyone = json.loads(nacre("config", "show", "--json").out)
    assert everyone["gateway"]["max_queue"] == {"value": 7, "from": "nacre.toml"}
    assert everyone["drafter"]["method"] == {"value": "model", "from": "default"}
    assert "threads" in nacre("config", "show", "--service", "verifier").out


def test_secrets_are_not_shown(nacre: Nacre, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NACRE_GATEWAY_API_KEYS", "hunter2")
    for more in ([], ["--json"]):
        out = nacre("config", "show", "--service", "gateway", *more).out
        assert "hunter2" not in out
        assert "(set)" in out


def finding(verdict: Verdict) -> Finding:
    return Finding("gears", verdict, "3 of 4", "buy a gear" if verdict is not Verdict.ok else "")


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.ok, 0), (Verdict.warn, 0), (Verdict.fail, 1)])
def test_doctor_fails_only_if_a_check_fails(nacre: Nacre, monkeypatch: pytest.MonkeyPatch, verdict: Verdict, code: int):
    monkeypatch.setattr(doctor_module, "_CHECKS", (lambda: finding(Verdict.ok), lambda: finding(verdict)))
    shown = nacre("doctor")
    assert shown.code == code
    assert shown.out.splitlines()[-1].startswith(verdict.value)
    assert ("buy a gear" in shown.out) == (verdict is not Verdict.ok)
    told = nacre("doctor", "--json")
    assert told.code == code
    assert json.loads(told.out)["ok"] == (code == 0)


def test_every_real_check_has_a_remedy_unless_it_is_fine(nacre: Nacre):
    told = json.loads(nacre("doctor", "--json").out)
    checks = {check["check"]: check for check in told["checks"]}
    assert {"python", "kernels", "cores", "memory", "bundled pair", "ports"} <= set(checks)
    for check in told["checks"]:
        assert (check["verdict"] == "ok") == (check["remedy"] == ""), check
    assert checks["python"]["verdict"] == "ok"


def test_models_show_what_a_directory_holds(nacre: Nacre, tiny_pair: TinyPair):
    told = json.loads(nacre("models", "show", tiny_pair.target, "--json").out)
    assert told["architecture"] == "LlamaForCausalLM"
    assert told["vocabulary"] == VOCABULARY
    assert told["max_positions"] == MAX_POSITIONS
    assert told["tokenizer"] is True
    assert told["inflated_from"] is None
    attention_and_mlp = 2 * (4 * 64 * 64 + 3 * 64 * 128)
    assert told["parameters"] == VOCABULARY * 64 + attention_and_mlp + 5 * 64
    assert "LlamaForCausalLM" in nacre("models", "show", tiny_pair.target).out


def test_inflating_keeps_the_promise_in_the_listing(nacre: Nacre, tiny_pair: TinyPair):
    source = read_model_files(tiny_pair.target)
    outcome = nacre("models", "inflate", tiny_pair.target, "big", "--parameters", "1M", "--json")
    assert outcome.code == 0
    told = json.loads(outcome.out)
    assert told["inflated_from"] == source.parameters
    assert 900_000 < told["parameters"] < 1_100_000
    assert "do the work" in nacre("models", "inflate", tiny_pair.target, "big2", "--parameters", "1M").out


def test_the_cache_makes_a_model_once_and_again_if_its_source_changes(tiny_pair: TinyPair):
    made = make_inflated(tiny_pair.target, 1_000_000)
    assert made == inflated_path(tiny_pair.target, 1_000_000)
    stamp = (made / "model.safetensors").stat().st_mtime_ns
    assert make_inflated(tiny_pair.target, 1_000_000) == made
    assert (made / "model.safetensors").stat().st_mtime_ns == stamp
    assert inflated_path(tiny_pair.draft, 1_000_000) != made
    assert inflated_path(tiny_pair.target, 2_000_000) != made
    assert cached_models() == [made]
    assert [path.name for path in made.parent.iterdir()] == [made.name], "nothing half-made is left"


def test_the_weak_draft_model_is_trained_once_for_a_target(tiny_pair: TinyPair, monkeypatch: pytest.MonkeyPatch):
    trained: list[Path] = []

    def train(out: Path, *, target: Path) -> None:
        trained.append(target)
        (out / "training").mkdir(parents=True)
        (out / "config.json").write_text("{}")

    monkeypatch.setattr(text_draft, "train_text_draft", train)
    made = [draft_model("text-draft", str(tiny_pair.target)) for _ in range(2)]
    assert made == [str(text_draft_path(tiny_pair.target))] * 2
    assert trained == [tiny_pair.target]
    assert [path.name for path in Path(made[0]).iterdir()] == ["config.json"], "no checkpoint is kept"
    assert Path(made[0]) in cached_models()
    draft_model("text-draft", str(tiny_pair.draft))
    assert trained == [tiny_pair.target, tiny_pair.draft]
    assert draft_model(str(tiny_pair.draft), None) == str(tiny_pair.draft)


@pytest.mark.parametrize(
    ("text", "count"), [("113M", 113_000_000), ("1.5b", 1_500_000_000), ("7_000", 7000), ("64k", 64_000)]
)
def test_counts_may_be_written_short(text: str, count: int):
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "M", "1e999", "infB", "one"])
def test_what_is_no_count_is_refused(text: str):
    with pytest.raises(InvalidArgument, match="is no number of parameters"):
        parse_count(text)


# -- colours ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(byte_tokenizer().to_str().encode())


def test_the_coloured_runs_are_exactly_the_text(vocabulary: Vocabulary):
    tokens = tuple(vocabulary.encode("naïve ☃ text", add_special_tokens=False))
    guessers = tuple(index % 3 for index in range(len(tokens)))
    split = ColouredText(vocabulary)
    runs = split.split(Piece("naï", tokens[:4], guessers[:4]))
    # Text may be held back (a stop string in the making) and come later than its tokens.
    runs += split.split(Piece("", tokens[4:8], guessers[4:8]))
    runs += split.split(Piece("ve ☃ text", tokens[8:], guessers[8:]))
    assert "".join(text for _, text in runs) == "naïve ☃ text"
    assert {text: guesser for guesser, text in runs}["n"] == guessers[0]
    # A character of several tokens has the colour of the one that completed it.
    assert {text: guesser for guesser, text in runs}["ï"] == guessers[3]
    assert sum(split.tokens_by.values()) == len(tokens)
    assert coloured(runs).plain == "naïve ☃ text"


def test_an_incomplete_character_at_the_end_is_shown_as_released(vocabulary: Vocabulary):
    tokens = tuple(vocabulary.encode("☃", add_special_tokens=False))[:2]
    split = ColouredText(vocabulary)
    assert split.split(Piece("", tokens, (1, 1))) == []
    assert split.split(Piece("\N{REPLACEMENT CHARACTER}", (), ())) == [(0, "\N{REPLACEMENT CHARACTER}")]


def test_a_model_cannot_drive_the_terminal():
    assert harmless("a\x1b[2Jb\tc\nd\r\x07\u202e☃") == "a·[2Jb\tc\nd···☃"


def test_the_legend_counts_every_guesser():
    shown = legend({0: 3, 2: 5, 1: 4}).plain
    assert shown == "who chose first: the verifier itself 3, drafter 1 4, drafter 2 5 tokens"


def test_an_exit_code_survives_main(nacre: Nacre, monkeypatch: pytest.MonkeyPatch):
    def stop() -> Finding:
        raise typer.Exit(7)

    monkeypatch.setattr(doctor_module, "_CHECKS", (stop,))
    assert nacre("doctor").code == 7
