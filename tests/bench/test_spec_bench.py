"""Spec-Bench's format: a line for each sample, and nothing of one scenario is taken for another's."""

from __future__ import annotations

import json
from pathlib import Path

from nacre.bench.samples import Sample
from nacre.bench.spec_bench import write_spec_bench


def sample(scenario: str, prompt: int, baseline: str = "nacre", seed: int = 1) -> Sample:
    return Sample(scenario, baseline, 50.0, 1.0, prompt, seed, (7, 8, 9), (100.0, 160.0), (1, 2), {"passes": 2.0})


def written(folder: Path, samples: list[Sample]) -> list[dict]:
    write_spec_bench(folder / "answers.jsonl", samples)
    assert list(folder.iterdir()) == [folder / "answers.jsonl"]
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def test_a_line_is_what_spec_bench_reads(tmp_path: Path) -> None:
    (line,) = written(tmp_path, [sample("rtt", 0)])
    assert line["model_id"] == "nacre-rtt50-temperature-1"
    (choice,) = line["choices"]
    assert (choice["new_tokens"], choice["wall_time"], choice["decoding_steps"]) == ([3], [0.16], [2])
    assert choice["accept_lengths"] == [1, 2]


def test_questions_of_two_scenarios_are_two_questions(tmp_path: Path) -> None:
    samples = [sample(name, prompt, seed=seed) for name in ("b", "a") for prompt in (0, 1) for seed in (1, 2)]
    samples += [sample("a", 0, "ar")]
    lines = written(tmp_path, samples)
    asked = {(line["category"], line["question_id"]) for line in lines}
    assert len(asked) == len({question for _, question in asked}) == 4
    assert {category for category, _ in asked} == {"a", "b"}
    assert len({line["answer_id"] for line in lines}) == len(lines)
    # Whoever answers, and with whatever seed: the question is the same.
    assert len({line["question_id"] for line in lines if line["category"] == "a"}) == 2


def test_questions_of_one_scenario_are_numbered_as_its_prompts(tmp_path: Path) -> None:
    lines = written(tmp_path, [sample("rtt", prompt) for prompt in (2, 0, 1)])
    assert [line["question_id"] for line in lines] == [2, 0, 1]
