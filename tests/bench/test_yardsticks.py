"""transformers as a rival: nothing that it would carry over is taken from it."""

from __future__ import annotations

from transformers import GenerationConfig

from nacre.bench.tuning import HF_DEFAULT
from nacre.bench.yardsticks import NO_CONFIDENCE, Yardsticks
from tests.tiny_models import TinyPair

HEURISTIC = {"schedule": "heuristic", "length": 4}


def test_what_a_schedule_has_come_to_stays_while_the_settings_do(tiny_pair: TinyPair) -> None:
    yardsticks = Yardsticks(str(tiny_pair.target), str(tiny_pair.draft), "float32", 1)
    config = yardsticks._assistant_with(HEURISTIC).generation_config
    assert (config.num_assistant_tokens_schedule, config.num_assistant_tokens) == ("heuristic", 4)
    config.num_assistant_tokens = 9  # as transformers does at the end of a generation
    assert yardsticks._assistant_with(dict(HEURISTIC)).generation_config.num_assistant_tokens == 9
    yardsticks._assistant_with(HF_DEFAULT)
    assert (config.num_assistant_tokens, config.assistant_confidence_threshold) == (20, 0.4)
    yardsticks._assistant_with(HEURISTIC)
    assert (config.num_assistant_tokens, config.assistant_confidence_threshold) == (4, NO_CONFIDENCE)


def test_the_default_that_is_tried_is_the_librarys_own() -> None:
    own = GenerationConfig._get_default_generation_params()
    assert {
        "schedule": own["num_assistant_tokens_schedule"],
        "length": own["num_assistant_tokens"],
        "confidence": own["assistant_confidence_threshold"],
    } == HF_DEFAULT
