"""The scenarios that ship can be run, and every impossible dial is told by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from nacre.bench.baselines import check_kinds, chosen_baselines, load_baselines, runs_in
from nacre.bench.scenarios import load_scenario, scenario_files
from nacre.errors import InvalidArgument, NotFound


@pytest.mark.parametrize("path", scenario_files(), ids=lambda path: path.stem)
@pytest.mark.parametrize("quick", [False, True])
def test_every_scenario_loads_and_names_known_baselines(path: Path, quick: bool) -> None:
    scenario = load_scenario(path.stem, quick=quick)
    assert scenario.about
    chosen = chosen_baselines(load_baselines(), scenario.baselines)
    assert chosen[0].name == "ar"
    assert {baseline.name for baseline in chosen} == {"ar", *scenario.baselines}


def test_a_quick_run_is_no_longer_than_a_full_one() -> None:
    for path in scenario_files():
        full, quick = load_scenario(path.stem), load_scenario(path.stem, quick=True)
        assert quick.prompts * quick.tokens * quick.seeds <= full.prompts * full.tokens * full.seeds


def test_at_temperature_zero_one_seed_is_enough() -> None:
    scenario = load_scenario("rtt")
    assert list(scenario.seeds_at(0.0)) == [1]
    assert list(scenario.seeds_at(1.0)) == [1, 2]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rtt_ms = [-1]", "rtt_ms has -1"),
        ("rtt_ms = [true]", "rtt_ms has True"),
        ("rtt_ms = []", "rtt_ms has None"),
        ("prompts = 0", "prompts is 0"),
        ("tokens = 1", "tokens is 1"),
        ("kind = 'odd'", "kind is 'odd'"),
        ("sessions = [0]", "sessions has 0"),
        ("baselines = []", "baselines is empty"),
        ("colour = 1", "has 'colour'"),
        ("prompts = ", "cannot be read"),
        ("prompts = true", "prompts is True"),
        ("baselines = [1]", "baselines has 1; it must be a list of names"),
        ("baselines = 1", "baselines has 1; it must be a list of names"),
        ("methods = [[]]", "methods has []; it must be a list of names"),
        ("text = [2]", "text has 2; it must be a list of names"),
        ("quick = 3", "quick is 3"),
    ],
)
def test_impossible_dials(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(InvalidArgument, match="mine") as caught:
        load_scenario(str(file))
    assert told in caught.value.message


def test_an_unknown_scenario_names_those_there_are() -> None:
    for name in ("rttt", "baselines", "no/such.toml"):
        with pytest.raises(InvalidArgument) as caught:
            load_scenario(name)
        assert "headline, " in caught.value.message
        assert "rtt" in caught.value.message


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["nacrd"], "baseline 'nacrd' is unknown; there are ar,"),
        (["sync:nothing"], "policy 'nothing' is unknown"),
        (["nacre:fixed"], "only sync takes one"),
    ],
)
def test_an_unknown_baseline_or_policy(names: list[str], told: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        chosen_baselines(load_baselines(), names)
    assert told in caught.value.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[a]\nkind = 'odd'", "kind is 'odd'"),
        ("[a]\ncolour = 1", "has 'colour'"),
        ("[a]\ndrafter = { children = 0 }", "children is 0"),
        ("[a]\ndrafter = { colour = 0 }", "colour"),
        ("a = 1", "is no table"),
        ("[a]\nabout = 1", "about is 1; it must be a text"),
        ("[a]\ndrafter = 1", "drafter is 1; it must be a table"),
        ("[a]\nverifier = [1]", "verifier is [1]; it must be a table"),
        ("[a]\nlocal = 'yes'", "local is 'yes'; it must be true or false"),
        ("[a]\nkind = 'lockstep'", "a baseline of kind lockstep has a style"),
        ("[a]\nkind = 'transformers'", "a baseline of kind transformers has a way"),
        ("[a]\nway = 'batching'", "a baseline of kind transformers has a way, no other does"),
    ],
)
def test_a_wrong_baseline(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "baselines.toml"
    file.write_text(text)
    with pytest.raises((InvalidArgument, SystemExit)) as caught:
        load_baselines(file)
    if isinstance(caught.value, InvalidArgument):
        assert told in caught.value.message


@pytest.mark.parametrize(
    ("kind", "able", "unable"),
    [
        ("latency", {"ar", "ar-2", "nacre", "sync", "pearl", "hf-ar", "hf-assisted"}, {"hf-batching"}),
        ("throughput", {"ar", "nacre", "hf-batching"}, {"ar-2", "sync", "pearl", "hf-ar", "hf-assisted", "hf-lookup"}),
    ],
)
def test_a_scenario_measures_only_what_its_kind_can(kind: str, able: set[str], unable: set[str]) -> None:
    known = load_baselines()
    check_kinds("mine", kind, [known[name] for name in able], known)
    for name in unable:
        with pytest.raises(InvalidArgument) as caught:
            check_kinds("mine", kind, [known["ar"], known[name]], known)
        said, _, listed = caught.value.message.partition("; it can measure ")
        assert said == f"scenario mine (kind {kind}) cannot measure baseline {name!r}"
        assert set(listed.split(", ")) == {other for other in known if runs_in(known[other], kind)} >= able


def test_every_scenario_can_measure_its_baselines() -> None:
    known = load_baselines()
    for path in scenario_files():
        scenario = load_scenario(path.stem)
        check_kinds(scenario.name, scenario.kind, chosen_baselines(known, scenario.baselines), known)


def test_a_policy_makes_a_baseline_of_its_own() -> None:
    chosen = chosen_baselines(load_baselines(), ["sync", "sync:fixed"])
    assert [(baseline.name, baseline.policy) for baseline in chosen[1:]] == [("sync", ""), ("sync:fixed", "fixed")]


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        load_baselines(tmp_path / "none.toml")
