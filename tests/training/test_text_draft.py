"""The weak draft model's recipe in miniature: two layers, text alone, repeatable, and a draft model like any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from nacre.engine import Engine, load_model
from nacre.errors import FailedPrecondition, InvalidArgument
from nacre.models import bundled
from nacre.training.lean_llama import load_hugging_face, save_hugging_face
from nacre.training.text_draft import FULL, LAYERS, TextDraftResult, train_text_draft

TARGET = bundled("demo-target")
FILES = {
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


def product(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> TextDraftResult:
    out = tmp_path_factory.mktemp("weak")
    result = train_text_draft(out, target=TARGET, beside=bundled("demo-draft"), steps=12, seed=3, threads=1, quick=True)
    assert result is not None
    return result


def test_it_is_a_model_directory_of_two_layers_with_the_targets_tokenizer(finished: TextDraftResult) -> None:
    assert set(product(finished.path)) == FILES
    config = json.loads((finished.path / "config.json").read_text())
    assert config["num_hidden_layers"] == LAYERS == 2
    assert config["max_position_embeddings"] == 2048
    assert 0 < config["nacre_race_temperature"] <= 4
    mine, theirs = (AutoTokenizer.from_pretrained(folder) for folder in (finished.path, TARGET))
    assert mine.get_vocab() == theirs.get_vocab()


def test_the_engine_drafts_with_it_for_the_target(finished: TextDraftResult) -> None:
    draft = Engine(load_model(str(finished.path), dtype="bfloat16", device="cpu", threads=1), exact=False)
    target = load_model(str(TARGET), dtype="bfloat16", device="cpu", threads=1)
    assert draft.info.tree_mode
    assert draft.info.tokenizer_fingerprint == target.tokenizer_fingerprint


def test_transformers_computes_what_was_trained(finished: TextDraftResult) -> None:
    tokens = torch.arange(64)[None] * 61 % 4096
    ours = load_hugging_face(finished.path).double()
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(finished.path, dtype=torch.float64)(tokens).logits
        assert float((expected - ours.logits(ours(tokens))).abs().max()) < 1e-4


def test_a_run_cut_short_and_resumed_on_other_threads_ends_in_the_same_weights(
    finished: TextDraftResult, tmp_path: Path
) -> None:
    options = {"target": TARGET, "steps": 12, "seed": 3, "quick": True}
    assert train_text_draft(tmp_path / "out", threads=2, stop_after=5, **options) is None
    result = train_text_draft(tmp_path / "out", threads=2, **options)
    assert result is not None
    before, after = product(finished.path), product(result.path)
    for name in FILES - {"README.md"}:
        assert after[name] == before[name], name
    assert all(row.beside is None for row in result.figures)


def test_nothing_of_the_targets_weights_is_learned(finished: TextDraftResult, tmp_path: Path) -> None:
    stranger = load_hugging_face(TARGET)
    with torch.no_grad():
        stranger.embedding.copy_(stranger.embedding.roll(1, 0))
    save_hugging_face(stranger, tmp_path / "stranger", {})
    shutil.copy(TARGET / "tokenizer.json", tmp_path / "stranger")
    result = train_text_draft(tmp_path / "out", target=tmp_path / "stranger", steps=12, seed=3, quick=True)
    assert result is not None
    assert product(result.path)["model.safetensors"] == product(finished.path)["model.safetensors"]


def test_code_and_prose_are_measured_apart_and_the_card_says_so(finished: TextDraftResult) -> None:
    card = (finished.path / "README.md").read_text()
    assert [(row.kind, row.acceptance.temperature) for row in finished.figures] == [
        (kind, temperature) for kind in ("code", "prose") for temperature in (1.0, 0.7, 0.0)
    ]
    assert f"{finished.loss:.3f} nats per token" in card
    for row in finished.figures:
        assert row.beside is not None
        assert row.acceptance.by_children[1] < row.beside.by_children[1], "a dozen steps are no match"
        for name, acceptance in (("this one", row.acceptance), ("demo-draft", row.beside)):
            temperature = "0 (greedy)" if acceptance.temperature == 0 else f"{acceptance.temperature:g}"
            assert f"| {row.kind} | {name} | {temperature} | {acceptance.by_children[1]:.3f} |" in card


def test_the_full_recipe_is_small() -> None:
    assert FULL.hidden <= 128
    assert FULL.steps * FULL.phases[0].rows * FULL.phases[0].length < 4_000_000


def test_what_cannot_be_right_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InvalidArgument, match="steps is 9"):
        train_text_draft(out, target=TARGET, steps=9)
    with pytest.raises(InvalidArgument, match="threads is 0"):
        train_text_draft(out, target=TARGET, threads=0)
    with pytest.raises(FailedPrecondition, match="is no model"):
        train_text_draft(out, target=tmp_path)
    assert not out.exists()
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(FailedPrecondition, match="holds something else"):
        train_text_draft(out, target=TARGET, quick=True)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_a_run_is_not_continued_under_another_plan(finished: TextDraftResult) -> None:
    with pytest.raises(FailedPrecondition, match="choose another directory"):
        train_text_draft(finished.path, target=TARGET, steps=13, seed=3, quick=True)
