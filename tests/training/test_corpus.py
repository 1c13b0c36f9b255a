"""The split never moves, held-out text never leaks, and the tokenizer loses nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nacre.errors import InvalidArgument, NotFound
from nacre.models import bundled, held_out_modules, held_out_prompts
from nacre.models.python_text import Module, is_held_out, prompts_from, standard_library
from nacre.training.bpe import END_OF_TEXT, END_OF_TEXT_ID, train_bpe
from nacre.training.corpus import Windows, token_stream

# Written down once: if one of these changes side, every bundled figure was measured on text that training saw.
HELD_OUT = ("base64", "difflib", "random", "uuid", "venv", "urllib.request", "unittest.runner", "queue")
TRAINED_ON = ("argparse", "json.decoder", "typing", "socket", "ast", "textwrap", "asyncio.tasks", "logging")


def write_library(root: Path, names: list[str]) -> None:
    for name in names:
        path = root / (name.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""The {name} module."""\n' + "value = 1\n" * 400)


def test_recorded_modules_stay_on_their_side_of_the_split() -> None:
    assert all(is_held_out(name) for name in HELD_OUT)
    assert not any(is_held_out(name) for name in TRAINED_ON)


def test_the_split_does_not_depend_on_the_interpreters_hash_seed() -> None:
    code = "from nacre.models.python_text import is_held_out as h; print([h(str(i)) for i in range(200)])"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{[is_held_out(str(i)) for i in range(200)]}\n"}


def test_about_one_module_in_twelve_of_this_interpreter_is_held_out() -> None:
    modules = standard_library()
    share = sum(module.held_out for module in modules) / len(modules)
    assert len(modules) > 200
    assert 1 / 20 < share < 1 / 7


def test_tests_and_generated_tables_are_left_out(tmp_path: Path) -> None:
    write_library(tmp_path, ["kept", "test.test_kept", "pkg.tests.x", "encodings.cp1252", "_sysconfigdata_x"])
    assert [module.name for module in standard_library(tmp_path)] == ["kept"]


def test_a_package_is_named_without_its_init_file(tmp_path: Path) -> None:
    write_library(tmp_path, ["json.__init__", "json.decoder"])
    assert [module.name for module in standard_library(tmp_path)] == ["json", "json.decoder"]


def test_a_file_that_is_not_text_gives_empty_text_instead_of_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_bytes(b"\xff\xfe\x00bad")
    assert [module.text() for module in standard_library(tmp_path)] == [""]


def test_held_out_prompts_are_repeatable_distinct_and_taken_from_recorded_modules() -> None:
    prompts = held_out_prompts(24)
    assert prompts == held_out_prompts(24)
    assert len(set(prompts)) == 24
    texts = [module.text() for module in held_out_modules()]
    assert all(any(prompt in text for text in texts) for prompt in prompts)


def test_prompts_of_prose_are_documentation_and_prompts_of_code_are_source() -> None:
    modules = held_out_modules()
    for text, read in (("code", Module.text), ("prose", Module.documentation)):
        prompts = held_out_prompts(24, text=text)
        assert len(set(prompts)) == 24
        whole = [read(module) for module in modules]
        assert all(len(prompt) == 600 and any(prompt in one for one in whole) for prompt in prompts)
    assert held_out_prompts(4) == held_out_prompts(4, text="mixed")
    with pytest.raises(InvalidArgument, match="text is 'verse'"):
        held_out_prompts(4, text="verse")


def test_documentation_is_all_strings_that_document_and_nothing_else(tmp_path: Path) -> None:
    source = '"""One."""\nx = "no"\nclass A:\n    """Two.\n\n    More.\n    """\n    def f(self):\n        \'Three.\'\n'
    (tmp_path / "a.py").write_text(source)
    (tmp_path / "broken.py").write_text("def f(:")
    assert [module.documentation() for module in standard_library(tmp_path)] == ["One.\n\nTwo.\n\nMore.\n\nThree.", ""]


def test_every_recorded_module_is_held_out_by_the_hash_as_well() -> None:
    assert all(module.held_out for module in held_out_modules())


def test_a_missing_module_leaves_the_other_prompts_available(tmp_path: Path) -> None:
    write_library(tmp_path, ["base64", "difflib"])
    assert len(prompts_from(standard_library(tmp_path), 5, characters=200)) == 5
    (tmp_path / "difflib.py").unlink()
    assert len(prompts_from(standard_library(tmp_path), 5, characters=200)) == 5


def test_an_interpreter_without_library_source_is_told_to_give_a_prompt(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="give a prompt"):
        prompts_from(standard_library(tmp_path), 1)


def test_an_unknown_bundled_model_is_answered_with_the_known_names() -> None:
    with pytest.raises(NotFound, match="demo-target, demo-draft"):
        bundled("../../etc")


def test_the_tokenizer_gives_back_every_text_byte_for_byte() -> None:
    tokenizer = train_bpe(["def f(x):\n    return x\n" * 20], 300)
    for text in ("def f(y):\n\treturn  y\r\n", "naïve — 日本語 🙂\x00\x7f", "", "   \n\n  x"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.token_to_id(END_OF_TEXT) == END_OF_TEXT_ID


def test_training_the_tokenizer_twice_gives_the_same_tokenizer() -> None:
    texts = [module.text() for module in standard_library()[:10]]
    assert train_bpe(texts, 600).to_str() == train_bpe(texts, 600).to_str()


def test_the_stream_starts_every_module_with_the_end_of_text_token(tmp_path: Path) -> None:
    write_library(tmp_path, ["a", "b", "c"])
    modules = standard_library(tmp_path)
    tokenizer = train_bpe((module.text() for module in modules), 280)
    stream = token_stream(tokenizer, modules, seed=3)
    assert int((stream == END_OF_TEXT_ID).sum()) == 3
    assert torch.equal(stream, token_stream(tokenizer, modules, seed=3))
    assert not torch.equal(stream, token_stream(tokenizer, modules, seed=4))


def test_windows_of_one_epoch_do_not_overlap_and_any_batch_can_be_asked_for_again() -> None:
    windows = Windows(torch.arange(1000), 20, seed=5)
    per_epoch = (1000 - 1) // 20 - 1
    epoch = windows.batch(0, per_epoch)
    assert len(set(epoch[:, :-1].flatten().tolist())) == per_epoch * 20
    assert torch.equal(windows.batch(7, 3), epoch[7:10])
    assert not torch.equal(windows.batch(per_epoch, per_epoch), epoch)
