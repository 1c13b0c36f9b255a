"""Settings come in layers, later ones win, and every mistake is named with where it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.settings import GatewaySettings
from nacre.errors import InvalidArgument
from nacre.runtime.settings import DrafterSettings, StoreSettings, VerifierSettings, load_settings
from verifier_service.ablated import AblatedSettings

SECTIONS: dict[Any, str] = {
    VerifierSettings: "verifier",
    DrafterSettings: "drafter",
    GatewaySettings: "gateway",
    StoreSettings: "store",
}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("NACRE_CONFIG", "NACRE_VERIFIER_THREADS", "NACRE_VERIFIER_GRPC_PORT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def chosen(kind: Any, flags: str) -> Any:
    return load_settings(kind, SECTIONS[kind], flags.split()).settings


def test_later_layers_win_and_every_value_knows_its_origin(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_folder / "nacre.toml").write_text('[verifier]\nthreads = 2\ngrpc_port = 9000\ndtype = "float32"\n')
    monkeypatch.setenv("NACRE_VERIFIER_GRPC_PORT", "9001")
    loaded = load_settings(VerifierSettings, "verifier", ["--dtype", "bfloat16"])
    assert (loaded.settings.threads, loaded.settings.grpc_port, loaded.settings.dtype) == (2, 9001, "bfloat16")
    assert loaded.origins["threads"] == "nacre.toml"
    assert loaded.origins["grpc_port"] == "NACRE_VERIFIER_GRPC_PORT"
    assert loaded.origins["dtype"] == "--dtype"
    assert loaded.origins["target"] == "default"


@pytest.mark.parametrize(
    ("toml", "named"),
    [
        ("[verifier]\nthread = 2\n", "'thread'"),
        ("[verifier]\nthreads = 0\n", "it must be 1 to"),
        ('[verifier]\nthreads = "many"\n', "it must be a int"),
        ("[verifer]\nthreads = 2\n", "'verifer'"),
        ("[verifier\n", "cannot be read"),
        ("[verifier]\npass_rows = 8\n", "session_rows is 16 (default) and pass_rows is 8 (nacre.toml)"),
    ],
)
def test_a_mistake_in_the_file_names_the_key_and_the_file(empty_folder: Path, toml: str, named: str) -> None:
    (empty_folder / "nacre.toml").write_text(toml)
    with pytest.raises(InvalidArgument) as refused:
        load_settings(VerifierSettings, "verifier", [])
    assert named in refused.value.message
    assert "nacre.toml" in refused.value.message


def test_a_mistake_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NACRE_VERIFIER_COLOUR", "blue")
    with pytest.raises(InvalidArgument, match="NACRE_VERIFIER_COLOUR"):
        load_settings(VerifierSettings, "verifier", [])


def test_a_file_that_is_not_there_is_an_error_only_if_it_was_asked_for() -> None:
    load_settings(DrafterSettings, "drafter", [])
    with pytest.raises(InvalidArgument, match="does not exist"):
        load_settings(DrafterSettings, "drafter", ["--config", "missing.toml"])


def test_a_value_that_is_no_number_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="nan"):
        load_settings(DrafterSettings, "drafter", ["--least-survival", "nan"])


#: (service, flags that contradict each other, what is said of them, what is to be changed, flags as they should be)
CONTRADICTORY = [
    (
        VerifierSettings,
        "--session-rows 33",
        "session_rows is 33 (--session-rows) and pass_rows is 32 (default)",
        "lower session_rows or raise pass_rows",
        "--session-rows 32",
    ),
    (
        VerifierSettings,
        "--local suffix --session-rows 1",
        "local is suffix (--local) and session_rows is 1 (--session-rows)",
        "raise session_rows or leave local empty",
        "--local suffix --session-rows 2",
    ),
    (
        VerifierSettings,
        "--metrics-port 8101",
        "metrics_port is 8101 (--metrics-port) and grpc_port is 8101 (default)",
        "change one of them",
        "--metrics-port 0 --grpc-port 0",
    ),
    (
        DrafterSettings,
        "--grpc-port 9000 --metrics-port 9000",
        "metrics_port is 9000 (--metrics-port) and grpc_port is 9000 (--grpc-port)",
        "change one of them",
        "--grpc-port 9000 --metrics-port 9001",
    ),
    (
        DrafterSettings,
        "--least-sent 0.001",
        "least_sent is 0.001 (--least-sent) and least_survival is 0.015 (default)",
        "raise least_sent or lower least_survival",
        "--least-sent 0.015",
    ),
    (
        DrafterSettings,
        "--children 5 --window-nodes 4",
        "children is 5 (--children) and window_nodes is 4 (--window-nodes)",
        "lower children or raise window_nodes",
        "--children 4 --window-nodes 4",
    ),
    (
        GatewaySettings,
        "--grpc-port 8000",
        "grpc_port is 8000 (--grpc-port) and http_port is 8000 (default)",
        "change one of them",
        "--grpc-port 8000 --grpc-host 127.0.0.2",
    ),
    (
        GatewaySettings,
        "--max-drafters 0",
        "drafters_per_session is 1 (default) and max_drafters is 0 (--max-drafters)",
        "lower drafters_per_session or raise max_drafters",
        "--max-drafters 0 --drafters-per-session 0",
    ),
    (
        GatewaySettings,
        "--queue-timeout-s 0",
        "queue_timeout_s is 0.0 (--queue-timeout-s) and max_queue is 256 (default)",
        "raise queue_timeout_s or set max_queue to 0",
        "--queue-timeout-s 0 --max-queue 0",
    ),
    (
        GatewaySettings,
        "--failover-wait-s 0.5",
        "failover_wait_s is 0.5 (--failover-wait-s) and poll_s is 1.0 (default)",
        "raise failover_wait_s, set it to 0 or lower poll_s",
        "--failover-wait-s 0",
    ),
    (
        StoreSettings,
        "--log-tenants a,b --max-log-tokens 0",
        "log_tenants is a,b (--log-tenants) and max_log_tokens is 0 (--max-log-tokens)",
        "raise max_log_tokens or leave log_tenants empty",
        "--log-tenants a,b --max-log-tokens 0 --url redis://host",
    ),
    (
        StoreSettings,
        "--key-file keys",
        "key_file is keys (--key-file) and url is none (default)",
        "set url or leave key_file out",
        "--key-file keys --url redis://host",
    ),
]


@pytest.mark.parametrize(
    ("kind", "flags", "said", "change", "mended"),
    CONTRADICTORY,
    ids=[f"{SECTIONS[case[0]]} {case[1]}" for case in CONTRADICTORY],
)
def test_two_settings_that_contradict_each_other_are_refused_by_name(
    kind: Any, flags: str, said: str, change: str, mended: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        chosen(kind, flags)
    assert refused.value.message.partition("; ")[0] == said
    assert refused.value.message.rpartition(": ")[2] == change
    assert refused.value.param == said.split()[0]
    chosen(kind, mended)


@pytest.mark.parametrize("kind", SECTIONS, ids=SECTIONS.values())
def test_every_contradiction_is_shown_to_be_one_and_no_default_is(kind: Any) -> None:
    chosen(kind, "")
    known = {(found.one, found.other) for found in kind.contradictions}
    shown = {tuple(word.split()[0] for word in case[2].split(" and ")[:2]) for case in CONTRADICTORY if case[0] is kind}
    assert shown == known


def test_a_verifier_without_a_part_refuses_what_any_verifier_does() -> None:
    with pytest.raises(InvalidArgument, match="lower session_rows or raise pass_rows"):
        load_settings(AblatedSettings, "verifier", ["--without", "late-match", "--pass-rows", "4"])


def test_no_setting_lets_a_store_hold_up_a_session_for_longer() -> None:
    assert chosen(StoreSettings, "").timeout_s == 0.05
    with pytest.raises(InvalidArgument, match=r"timeout_s is 0\.1; it must be 0\.005 to 0\.05"):
        chosen(StoreSettings, "--timeout-s 0.1")
