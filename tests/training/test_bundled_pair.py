"""The pair that ships: small enough, loadable by anyone, aligned, and measured on text it never saw."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import nacre.models
from nacre.models import BUNDLED, bundled, held_out_prompts, is_held_out
from nacre.training.demo_pair import FULL
from nacre.training.evaluate import race_acceptance
from nacre.training.lean_llama import Shape, load_hugging_face
from nacre.training.parallel import Workers

MAX_BYTES = 16_000_000
FILES = {
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}
HELD_OUT_RECORD = Path(nacre.models.__file__).parent / "held_out.json"


def test_both_models_with_tokenizers_and_cards_stay_within_sixteen_megabytes() -> None:
    assert sum(path.stat().st_size for name in BUNDLED for path in bundled(name).iterdir()) <= MAX_BYTES


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_model_is_an_ordinary_hugging_face_directory(name: str) -> None:
    folder = bundled(name)
    heads = {"acceptance_head.json"} if name == "demo-draft" else set()
    assert {path.name for path in folder.iterdir()} == FILES | heads
    config = AutoConfig.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    assert config.model_type == "llama"
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert config.vocab_size == len(tokenizer) == 4096
    text = "def f(x):\n    return x + 1\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_models_have_the_shapes_of_the_recipe() -> None:
    for name, shape in zip(BUNDLED, (FULL.target, FULL.draft), strict=True):
        assert Shape.of_config(json.loads((bundled(name) / "config.json").read_text())) == shape


def test_both_models_have_the_very_same_tokenizer() -> None:
    target, draft = ((bundled(name) / "tokenizer.json").read_bytes() for name in BUNDLED)
    assert target == draft


def test_the_lean_model_and_transformers_agree_on_the_bundled_target() -> None:
    folder = bundled("demo-target")
    tokens = torch.arange(200)[None] * 7 % 4096
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(tokens).logits
        model = load_hugging_face(folder)
        got = model.logits(model(tokens))
    assert float((expected - got).abs().max()) < 1e-3
    assert float((expected.argmax(-1) == got.argmax(-1)).float().mean()) > 0.99


def test_every_recorded_held_out_module_is_on_the_held_out_side_of_the_split() -> None:
    recorded = json.loads(HELD_OUT_RECORD.read_text())["modules"]
    assert len(recorded) > 20
    assert all(is_held_out(name) for name in recorded)


@pytest.mark.parametrize("name", BUNDLED)
def test_the_cards_state_loss_and_acceptance_by_children_and_depth(name: str) -> None:
    card = (bundled(name) / "README.md").read_text()
    assert re.search(r"\d\.\d{3}( nats per token| \|)", card)
    for head in ("1 child | 2 children | 4 children | 8 children", "| T | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 |"):
        assert head in card
    for temperature in ("1", "0.7", "0 (greedy)"):
        assert len(re.findall(rf"^\| {re.escape(temperature)} \| 0\.\d{{3}} \|", card, re.MULTILINE)) == 2


def test_the_stated_acceptance_at_temperature_one_reaches_the_goal() -> None:
    card = (bundled("demo-draft") / "README.md").read_text()
    stated = re.search(r"^\| 1 \| (0\.\d{3}) \|", card, re.MULTILINE)
    assert stated is not None
    assert float(stated[1]) >= 0.78


def test_the_drafts_race_temperature_is_recorded_in_its_config() -> None:
    config = json.loads((bundled("demo-draft") / "config.json").read_text())
    assert 0.02 < config["nacre_race_temperature"] < 1


def test_the_draft_is_accepted_on_held_out_prompts_and_a_strangers_guesses_are_not() -> None:
    target, draft = (load_hugging_face(bundled(name)) for name in BUNDLED)
    tokenizer = Tokenizer.from_file(str(bundled("demo-target") / "tokenizer.json"))
    prompts = [tokenizer.encode(text).ids[:64] for text in held_out_prompts(6)]
    stranger = load_hugging_face(bundled("demo-draft"))
    with torch.no_grad():
        stranger.embedding.copy_(stranger.embedding.roll(1, 0))
    with Workers(1) as workers:
        measured, negative = (
            race_acceptance(target, model, prompts, 1.0, workers, depth=32, seed=5) for model in (draft, stranger)
        )
    assert measured.positions == 6 * 32
    assert measured.by_children[1] >= 0.7
    assert measured.by_children[4] >= 0.85
    assert negative.by_children[1] < 0.3
