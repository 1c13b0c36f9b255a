"""The gateway on real ports: streams as they happen, clients that leave, load, metrics, shutdown."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from typing import Any

import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from gateway.settings import GatewaySettings
from nacre.errors import InvalidArgument
from nacre.runtime.settings import load_settings
from tests.gateway import toy_target
from tests.gateway.fake_verifier import FakeVerifier, Faults
from tests.gateway.harness import Listening, events_of, in_process, listening, text_of, until
from tests.gateway.test_gateway_bad_input import check_error

FIELDS: dict[str, Any] = {"prompt": "count", "seed": 1, "max_tokens": 60}
EXPECTED = toy_target.decode([choice.token for choice in toy_target.reference(toy_target.encode("count"), 60, key=1)])


async def test_text_arrives_while_it_is_made() -> None:
    async with FakeVerifier() as verifier, listening([verifier]) as gateway:
        verifier.faults.pause_after = 20
        seen = ""
        async with gateway.http.stream("POST", "/v1/completions", json={**FIELDS, "stream": True}) as response:
            assert response.status_code == 200
            async for piece in response.aiter_text():
                seen += piece
                if '"text":' in seen:
                    verifier.faults.resume.set()  # without an early piece this would wait for ever
        chunks = events_of(seen)
    assert text_of(chunks) == EXPECTED
    assert len(chunks) > 3


async def test_a_silent_stream_gets_comment_lines_and_no_empty_choices() -> None:
    async with FakeVerifier() as verifier, listening([verifier], ping_s=0.05) as gateway:
        verifier.faults.pause_after = 20
        seen = ""
        async with gateway.http.stream("POST", "/v1/completions", json={**FIELDS, "stream": True}) as response:
            async for piece in response.aiter_text():
                seen += piece
                if seen.count(": ping\n\n") >= 3:
                    verifier.faults.resume.set()
    assert text_of(events_of(seen)) == EXPECTED
    assert all(chunk["choices"] for chunk in events_of(seen))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("n", [1, 3])
async def test_a_client_that_leaves_cancels_its_generations_at_the_verifier(stream: bool, n: int) -> None:
    async with FakeVerifier() as verifier, listening([verifier]) as gateway:
        verifier.faults.pause_after = 20
        request = asyncio.ensure_future(gateway.http.post("/v1/completions", json={**FIELDS, "stream": stream, "n": n}))
        await until(lambda: len(verifier.sessions) == n)
        request.cancel()
        await until(lambda: verifier.cancels == n)
        await until(lambda: all(session.cancelled for session in verifier.sessions))
        metrics = (await gateway.http.get("/metrics")).text
        assert sample(metrics, "nacre_client_disconnects_total") == 1
        verifier.faults = Faults()
        answer = await gateway.http.post("/v1/completions", json=FIELDS)
        assert answer.json()["choices"][0]["text"] == EXPECTED


async def test_a_client_that_leaves_before_its_request_is_complete_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeVerifier() as verifier, listening([verifier]) as gateway:
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.ports.http_port)
        writer.write(b'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"prompt":')
        await writer.drain()
        writer.close()
        await shown(gateway, "nacre_client_disconnects_total", 1)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert not verifier.opens


async def test_a_client_that_leaves_before_the_verifier_has_answered_leaves_no_session_behind() -> None:
    async with FakeVerifier() as verifier, listening([verifier]) as gateway:
        verifier.faults.pause_after = 20
        verifier.faults.slow_to_answer = asyncio.Event()
        request = asyncio.ensure_future(gateway.http.post("/v1/completions", json=FIELDS))
        await until(lambda: verifier.sessions)
        request.cancel()
        await shown(gateway, "nacre_client_disconnects_total", 1)
        verifier.faults.slow_to_answer.set()
        await until(lambda: verifier.cancels == 1)


async def test_a_client_that_leaves_while_waiting_in_the_queue_frees_its_place() -> None:
    async with FakeVerifier() as verifier, listening([verifier], max_concurrency=1, max_queue=1) as gateway:
        verifier.faults.pause_after = 5
        first = asyncio.ensure_future(gateway.http.post("/v1/completions", json=FIELDS))
        await until(lambda: verifier.sessions)
        waiting = asyncio.ensure_future(gateway.http.post("/v1/completions", json=FIELDS))
        await shown(gateway, "nacre_num_requests_waiting", 1)
        full = await gateway.http.post("/v1/completions", json=FIELDS)
        check_error(full, 429, None, "rate_limit_exceeded")
        assert full.headers["retry-after"] == "1"
        waiting.cancel()
        await shown(gateway, "nacre_num_requests_waiting", 0)
        waiting = asyncio.ensure_future(gateway.http.post("/v1/completions", json=FIELDS))
        await shown(gateway, "nacre_num_requests_waiting", 1)
        verifier.faults.resume.set()
        for request in (first, waiting):
            assert (await request).json()["choices"][0]["text"] == EXPECTED


async def shown(gateway: Listening, name: str, value: float) -> None:
    async with asyncio.timeout(60):
        while sample((await gateway.http.get("/metrics")).text, name) != value:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def sample(exposition: str, name: str, **labels: str) -> float | None:
    for family in text_string_to_metric_families(exposition):
        for entry in family.samples:
            if entry.name == name and labels.items() <= entry.labels.items():
                return entry.value
    return None


async def test_a_request_for_more_than_ever_fits_is_refused_at_once() -> None:
    async with FakeVerifier() as verifier, in_process([verifier], max_concurrency=2, max_queue=1) as gateway:
        check_error(await gateway.http.post("/v1/completions", json={**FIELDS, "n": 4}), 429)
        assert len((await gateway.complete(**FIELDS, n=3))["choices"]) == 3
    assert len(verifier.opens) == 3


async def test_who_waits_too_long_for_a_turn_is_sent_away() -> None:
    async with (
        FakeVerifier() as verifier,
        in_process([verifier], max_concurrency=1, queue_timeout_s=0.1) as gateway,
    ):
        verifier.faults.pause_after = 5
        async with asyncio.TaskGroup() as group:
            group.create_task(gateway.complete(**FIELDS))
            await until(lambda: verifier.sessions)
            check_error(await gateway.http.post("/v1/completions", json=FIELDS), 429)
            verifier.faults.resume.set()


async def test_metrics_carry_the_conventional_names() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        await gateway.complete(**FIELDS)
        await gateway.streamed("/v1/completions", **FIELDS)
        await gateway.http.post("/v1/completions", content=b"{")
        response = await gateway.http.get("/metrics")
    text = response.text
    assert response.headers["content-type"].startswith("text/plain")
    model = {"model_name": "toy"}
    completions = {"path": "/v1/completions", "method": "POST"}
    assert sample(text, "nacre_http_requests_total", **completions, code="200") == 2
    assert sample(text, "nacre_http_requests_total", **completions, code="400") == 1
    assert sample(text, "nacre_request_success_total", **model, finished_reason="length") == 2
    assert sample(text, "nacre_generation_tokens_total", **model) == 120
    assert sample(text, "nacre_prompt_tokens_total", **model) == 2 * len(toy_target.encode("count"))
    for name in (
        "time_to_first_token_seconds",
        "e2e_request_latency_seconds",
        "request_time_per_output_token_seconds",
        "request_queue_time_seconds",
    ):
        assert sample(text, f"nacre_{name}_count", **model) == 2, name
    assert sample(text, "nacre_inter_token_latency_seconds_count", **model) > 2
    assert sample(text, "nacre_upstream_healthy", role="verifier", address=verifier.address) == 1
    assert sample(text, "nacre_spec_decode_num_accepted_tokens_total", **model) > 0
    assert sample(text, "nacre_num_requests_running") == 0


async def test_a_path_that_nobody_serves_gets_no_label_of_its_own() -> None:
    async with FakeVerifier() as verifier, in_process([verifier]) as gateway:
        for number in range(5):
            await gateway.http.get(f"/scan/{number}")
        text = (await gateway.http.get("/metrics")).text
    assert sample(text, "nacre_http_requests_total", path="other", code="404") == 5
    assert "/scan" not in text


async def test_a_drain_finishes_what_runs_and_takes_nothing_new() -> None:
    async with FakeVerifier() as verifier, listening([verifier]) as gateway:
        verifier.faults.pause_after = 20
        running = asyncio.ensure_future(gateway.http.post("/v1/completions", json=FIELDS))
        await until(lambda: verifier.sessions)
        gateway.stop.set()
        health = health_pb2_grpc.HealthStub(gateway.channel)
        async with asyncio.timeout(60):
            while (await gateway.http.get("/readyz")).status_code != 503:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            serving = await health.Check(health_pb2.HealthCheckRequest(service=""))
        assert serving.status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert (await gateway.http.get("/healthz")).status_code == 200
        check_error(await gateway.http.post("/v1/completions", json=FIELDS), 503)
        verifier.faults.resume.set()
        assert (await running).json()["choices"][0]["text"] == EXPECTED
        await asyncio.wait_for(asyncio.shield(gateway.running), 60)
    assert len(verifier.opens) == 1


async def test_a_drain_that_takes_too_long_gives_the_rest_up_at_the_verifier() -> None:
    async with FakeVerifier() as verifier, listening([verifier], drain_s=0.1) as gateway:
        verifier.faults.pause_after = 20
        running = asyncio.ensure_future(gateway.http.post("/v1/completions", json=FIELDS))
        await until(lambda: verifier.sessions)
        gateway.stop.set()
        await asyncio.wait_for(asyncio.shield(gateway.running), 60)
        assert verifier.cancels == 1
        check_error(await running, 503)


# -- as a process ------------------------------------------------------------------------------------------------


def gateway_process(*flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    )


@pytest.mark.processes
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--verifiers"),
        (["--verifiers", "nowhere"], "'nowhere'"),
        (["--verifiers", "127.0.0.1:1,127.0.0.1:1"], "twice"),
        (["--verifiers", "127.0.0.1:1", "--http-port", "70000"], "70000"),
        (["--verifiers", "127.0.0.1:1", "--max-choices", "x"], "'x'"),
        (["--verifiers", "127.0.0.1:1", "--chat-template", "/no/such/file"], "/no/such/file"),
        (["--verifiers", "127.0.0.1:1", "--drafters-reach", "a=b"], "drafters_reach"),
        (["--verifiers", "127.0.0.1:1", "--log-level", "loud"], "'loud'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_flag_ends_the_process_with_one_line_and_code_2(flags: list[str], words: str) -> None:
    process = gateway_process("--http-port", "0", "--grpc-port", "0", *flags)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert words in err
    assert len(err.strip().splitlines()) == 1, err
    assert out == ""


@pytest.mark.processes
@pytest.mark.parametrize("flag", ["--http-port", "--grpc-port"])
def test_a_port_in_use_ends_the_process_with_one_line_and_code_2(flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        other = "--grpc-port" if flag == "--http-port" else "--http-port"
        process = gateway_process("--verifiers", "127.0.0.1:1", other, "0", flag, port)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    (line,) = err.strip().splitlines()
    assert port in line
    assert "choose another" in line


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_process_serves_and_stops_cleanly_on_a_signal(number: signal.Signals) -> None:
    async with FakeVerifier() as verifier:
        process = gateway_process(
            "--verifiers", verifier.address, "--http-port", "0", "--grpc-port", "0", "--log-level", "error"
        )
        try:
            assert process.stdout is not None
            line = await asyncio.to_thread(process.stdout.readline)
            word, _, fields = line.partition(" ")
            assert word == "ready"
            ports = json.loads(fields)
            assert ports["service"] == "gateway"
            assert ports["grpc_port"] > 0
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports['http_port']}", timeout=60) as http:
                async with asyncio.timeout(60):
                    while (await http.get("/readyz")).status_code != 200:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                answer = await http.post("/v1/completions", json=FIELDS)
                assert answer.json()["choices"][0]["text"] == EXPECTED
            process.send_signal(number)
            _, err = await asyncio.to_thread(process.communicate, timeout=30)
            assert process.returncode == 0, err
            assert "Traceback" not in err
        finally:
            process.kill()
            await asyncio.to_thread(process.communicate)


def test_the_gateway_needs_neither_torch_nor_transformers() -> None:
    check = "import sys, gateway.server; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_settings_come_from_flags_and_name_what_is_wrong() -> None:
    settings = load_settings(GatewaySettings, "gateway", ["--verifiers", "a:1,b:2", "--api-keys", "x"]).settings
    assert settings.verifiers == ("a:1", "b:2")
    assert settings.api_keys == ("x",)
    assert settings.address_for_drafters("a:1") == "a:1"
    with pytest.raises(InvalidArgument) as caught:
        GatewaySettings(verifiers=("a:0",))
    assert "'a:0'" in caught.value.message
