"""The torch sampler picks the same tokens and the same bits of log-probability as the numpy one."""

from __future__ import annotations

import numpy as np
import pytest

from nacre.sampling import History, RowContext, SamplingParams, UnusableLogits, choose_rows
from nacre.sampling.fixed_order import exp_mass, ln32
from nacre.sampling.race_noise import block_noise as numpy_block_noise
from nacre.sampling.race_noise import race_exp
from tests.sampling.sampling_cases import random_case

torch = pytest.importorskip("torch", reason="torch is not installed; the numpy sampler is tested without it")

from nacre.sampling import torch_sampler  # noqa: E402 - only where torch is installed

F32 = np.float32


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def bits(values: np.ndarray) -> list[int]:
    return np.ascontiguousarray(values, dtype=F32).view(np.uint32).ravel().tolist()


def test_the_shared_functions_return_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    v = np.exp2(rng.uniform(-38, 40, 10_007)).astype(F32)
    assert bits(ln32(torch.from_numpy(v), torch_sampler.TORCH).numpy()) == bits(ln32(v))
    d = np.concatenate([-rng.uniform(0, 40, 10_007), [0, -0.0, -np.inf]]).astype(F32)
    assert exp_mass(torch.from_numpy(d), torch_sampler.TORCH).tolist() == exp_mass(d).tolist()
    words = np.concatenate([rng.integers(0, 2**32, 10_007), [0, 2**32 - 1], 0x4AFB0CCC + np.arange(-3, 3)])
    assert bits(race_exp(torch.from_numpy(words), torch_sampler.TORCH).numpy()) == bits(race_exp(words))


def test_block_noise_has_the_same_bits() -> None:
    streams = [(2**64 - 1, 0), (0x0123456789ABCDEF, 17), (5, 2**40 + 7), (2**63, 2**33 - 1)]
    rows = [RowContext(SamplingParams(), key, position) for key, position in streams]
    minimum, winner = torch_sampler.block_noise(rows, 300, torch.device("cpu"))
    for i, (key, position) in enumerate(streams):
        expected_minimum, _, expected_winner = numpy_block_noise(key, position, 1, 300)
        assert bits(minimum[i].numpy()) == bits(expected_minimum)
        assert winner[i].tolist() == expected_winner[0].tolist()


@pytest.mark.parametrize("vocab", [1, 31, 32, 33, 100, 4096, 5003])
def test_random_and_awkward_rows_get_the_same_choices(vocab: int) -> None:
    rng = np.random.default_rng(vocab)
    for _ in range(6):
        cases = [random_case(rng, vocab, int(rng.integers(-1, 21))) for _ in range(int(rng.integers(1, 20)))]
        logits, rows = np.stack([case.logits for case in cases]), [case.row for case in cases]
        before = logits.tobytes()
        got = torch_sampler.choose_rows_on_device(torch.from_numpy(logits), rows)
        for ours, theirs, case in zip(got, choose_rows(logits, rows), cases, strict=True):
            assert repr(ours) == repr(theirs), case
        assert logits.tobytes() == before


def test_the_public_function_takes_views_and_other_precisions() -> None:
    logits = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    rows = [RowContext(SamplingParams(), 1, p, top_logprobs=2) for p in range(4)]
    expected = choose_rows(logits.float().numpy(), rows)
    assert torch_sampler.choose_rows(logits, rows) == expected
    assert torch_sampler.choose_rows(logits.float().repeat_interleave(2, dim=0)[::2], rows) == expected
    assert torch_sampler.choose_rows(logits.float().requires_grad_(), rows) == expected
    assert torch_sampler.choose_rows_on_device(torch.zeros(0, 5), []) == []


def test_unusable_rows_are_reported_alike() -> None:
    logits = F32([[1, 2, 3], [1, np.nan, 3], [-np.inf] * 3, [4, np.inf, 1], [3, 2, 1]])
    for params in (SamplingParams(), SamplingParams(temperature=0), SamplingParams(top_k=2)):
        rows = [RowContext(params, 4, p, History(), (), 1) for p in range(5)]
        with pytest.raises(UnusableLogits) as ours:
            torch_sampler.choose_rows_on_device(torch.from_numpy(logits), rows)
        with pytest.raises(UnusableLogits) as theirs:
            choose_rows(logits, rows)
        assert ours.value.message == theirs.value.message
        assert ours.value.choices == theirs.value.choices
        assert list(ours.value.errors) == [1, 2, 3]


@pytest.mark.gpu
def test_a_gpu_gives_the_same_choices() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device; the same torch operations are compared on the CPU above")
    rng = np.random.default_rng(99)
    for vocab in (33, 4096, 50_257):
        cases = [random_case(rng, vocab, int(rng.integers(-1, 21))) for _ in range(32)]
        logits, rows = np.stack([case.logits for case in cases]), [case.row for case in cases]
        got = torch_sampler.choose_rows(torch.from_numpy(logits).cuda(), rows)
        assert [repr(c) for c in got] == [repr(c) for c in choose_rows(logits, rows)]
