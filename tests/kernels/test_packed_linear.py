"""A packed layer's row is one fixed fma chain per output: rows, tiles, threads, instruction sets change no bit."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from nacre_kernels import PackedLinear, library, reference

F32, BF16 = torch.float32, torch.bfloat16
DTYPE_PAIRS = [(F32, F32), (BF16, BF16), (BF16, F32), (F32, BF16)]  # weight, input
SHAPES = [(1, 1), (31, 255), (33, 257), (70, 40), (5, 513), (96, 512), (300, 700)]  # outputs, inputs


def make_layer(outputs: int, inputs: int, dtype: torch.dtype, bias: bool = True, seed: int = 0) -> torch.nn.Linear:
    generator = torch.Generator().manual_seed(seed)
    layer = torch.nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(outputs, inputs, generator=generator))
        if bias:
            layer.bias.copy_(torch.randn(outputs, generator=generator))
    return layer.to(dtype).requires_grad_(False)


def rows_of(count: int, inputs: int, dtype: torch.dtype, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, inputs, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize(("weight_dtype", "dtype"), DTYPE_PAIRS)
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_a_row_has_the_same_bits_among_any_number_of_rows(
    outputs: int, inputs: int, weight_dtype: torch.dtype, dtype: torch.dtype, isas: tuple[str, ...]
) -> None:
    packed = PackedLinear.from_linear(make_layer(outputs, inputs, weight_dtype))
    x = rows_of(300, inputs, dtype)
    library.set_isa(isas[0])
    whole = packed(x)
    for isa in isas:
        library.set_isa(isa)
        counts = [*range(1, 41), 64, 127, 128, 129, 257, 300] if isa != "portable" else [1, 2, 3, 4, 5, 8, 13]
        for count in counts:
            for start in {0, 300 - count, (7 * count) % (301 - count)}:
                assert torch.equal(packed(x[start : start + count]), whole[start : start + count]), (isa, count, start)


def test_a_row_does_not_feel_its_neighbours(isas: tuple[str, ...]) -> None:
    packed = PackedLinear.from_linear(make_layer(70, 300, BF16))
    x = rows_of(29, 300, BF16)
    for isa in isas:
        library.set_isa(isa)
        alone = packed(x[11:12])
        for noise in (float("nan"), float("inf"), 1e38):
            loud = torch.full_like(x, noise)
            loud[11] = x[11]
            assert torch.equal(packed(loud)[11:12], alone)
        assert torch.equal(packed(x.flip(0))[17:18], alone)


@pytest.mark.parametrize(("weight_dtype", "dtype"), DTYPE_PAIRS)
def test_the_number_of_threads_changes_nothing(weight_dtype: torch.dtype, dtype: torch.dtype) -> None:
    packed = PackedLinear.from_linear(make_layer(333, 600, weight_dtype))
    for count in (1, 8, 40, 200):
        x = rows_of(count, 600, dtype)
        packed.threads = 1
        once = packed(x)
        for threads in (2, 3, 16):
            packed.threads = threads
            assert torch.equal(packed(x), once)


def test_callers_on_several_threads_do_not_disturb_each_other() -> None:
    packed = PackedLinear.from_linear(make_layer(333, 600, BF16), threads=2)
    inputs = [rows_of(count, 600, BF16, seed=count) for count in (1, 3, 8, 17, 40, 130)]
    expected = [packed(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for got, want in zip(pool.map(packed, inputs), expected, strict=True):
                assert torch.equal(got, want)


def test_every_output_is_the_sequential_chain_over_the_inputs(isas: tuple[str, ...]) -> None:
    # bf16 products and their sum with an fp32 accumulator are exact in fp64 at these magnitudes, so rounding the fp64
    # sum to fp32 once is a fused multiply-add.
    layer = make_layer(37, 600, BF16)
    x = rows_of(6, 600, BF16)
    wide_x, wide_w = x.double().numpy(), layer.weight.double().numpy()
    acc = np.zeros((6, 37), np.float32)
    for k in range(600):
        acc = (acc.astype(np.float64) + wide_x[:, k, None] * wide_w[None, :, k]).astype(np.float32)
    acc = acc + layer.bias.float().numpy()
    expected = torch.from_numpy(acc)
    packed = PackedLinear.from_linear(layer)
    for isa in isas:
        library.set_isa(isa)
        assert torch.equal(packed(x), expected.bfloat16())
        assert torch.equal(packed(x.float()), expected)


@pytest.mark.parametrize(("weight_dtype", "dtype"), DTYPE_PAIRS)
@pytest.mark.parametrize("bias", [True, False])
def test_the_result_is_close_to_the_truth(weight_dtype: torch.dtype, dtype: torch.dtype, bias: bool) -> None:
    for outputs, inputs in SHAPES:
        layer = make_layer(outputs, inputs, weight_dtype, bias)
        x = rows_of(9, inputs, dtype)
        truth = x.double() @ layer.weight.double().T + (layer.bias.double() if bias else 0.0)
        size = x.double().abs() @ layer.weight.double().abs().T + 10.0  # what the terms could add up to
        slack = size * (inputs + 2) * 2.0**-24 + truth.abs() * (2.0**-8 if dtype == BF16 else 0.0)
        assert ((PackedLinear.from_linear(layer)(x).double() - truth).abs() <= slack).all()
        assert ((reference.linear(x, layer.weight, layer.bias).double() - truth).abs() <= slack).all()


def test_leading_dimensions_strides_and_empty_inputs_are_taken_as_torch_takes_them() -> None:
    packed = PackedLinear.from_linear(make_layer(33, 48, F32))
    x = rows_of(24, 48, F32)
    flat = packed(x)
    assert torch.equal(packed(x.view(2, 3, 4, 48)), flat.view(2, 3, 4, 33))
    assert torch.equal(packed(x[5]), flat[5])
    assert torch.equal(packed(x.T.contiguous().T), flat)
    assert torch.equal(packed(x[::3]), flat[::3])
    assert packed(x[:0]).shape == (0, 33)
    assert packed(x.new_empty(2, 0, 48)).shape == (2, 0, 33)


def test_fp32_weights_that_bf16_can_hold_take_half_the_memory_and_give_the_same_bits() -> None:
    layer = make_layer(100, 300, BF16).float()
    narrow = PackedLinear.from_linear(layer)
    wide = PackedLinear(300, 100)
    wide._fill(layer.weight, layer.bias)
    assert narrow.weight_dtype == BF16
    assert wide.weight_dtype == F32
    assert narrow.nbytes < 0.6 * wide.nbytes
    x = rows_of(21, 300, F32)
    assert torch.equal(narrow(x), wide(x))


def test_flushing_subnormals_in_the_calling_thread_changes_nothing(isas: tuple[str, ...]) -> None:
    layer = make_layer(64, 64, F32, bias=False)
    layer.weight.mul_(1e-30)
    x = rows_of(5, 64, F32) * 1e-12
    packed = PackedLinear.from_linear(layer)
    kept = packed(x)
    assert ((kept != 0) & (kept.abs() < torch.finfo(F32).tiny)).any()  # there is something to flush
    assert torch.set_flush_denormal(True)
    try:
        for isa in isas:
            library.set_isa(isa)
            packed.threads = 2
            flushed = packed(x)
            assert torch.equal(flushed.view(torch.int32), kept.view(torch.int32))
    finally:
        torch.set_flush_denormal(False)


def test_a_nan_becomes_nan_in_its_own_row_only() -> None:
    packed = PackedLinear.from_linear(make_layer(40, 40, BF16))
    x = rows_of(4, 40, BF16)
    x[2, 7] = float("nan")
    assert torch.equal(packed(x).isnan().any(dim=1), torch.tensor([False, False, True, False]))
    assert packed(x)[2].isnan().all()


def test_a_forked_child_can_use_several_threads() -> None:
    program = (
        "import os, torch\n"
        "from nacre_kernels import PackedLinear\n"
        "layer = PackedLinear.from_linear(torch.nn.Linear(600, 600), threads=2)\n"
        "x = torch.randn(8, 600)\n"
        "with torch.inference_mode():\n"
        "    before = layer(x)\n"
        "    child = os.fork()\n"
        "    same = torch.equal(layer(x), before)\n"
        "    if child == 0:\n"
        "        os._exit(0 if same else 1)\n"
        "    assert same and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_wrong_inputs_are_refused_with_the_value_and_the_bound() -> None:
    packed = PackedLinear.from_linear(make_layer(8, 16, F32))
    with pytest.raises(ValueError, match=r"shape \(3, 17\); the last dimension must be 16"):
        packed(torch.zeros(3, 17))
    with pytest.raises(ValueError, match=r"shape \(\); the last dimension must be 16"):
        packed(torch.zeros(()))
    with pytest.raises(TypeError, match=r"input is torch.float64"):
        packed(torch.zeros(3, 16, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="inference_mode"):
        packed(torch.zeros(3, 16, requires_grad=True))
    with pytest.raises(ValueError, match="on meta"):
        packed(torch.zeros(3, 16, device="meta"))
    with pytest.raises(TypeError, match=r"weight is torch.float16"):
        PackedLinear.from_linear(torch.nn.Linear(4, 4).half())
    with pytest.raises(RuntimeError, match="from_linear"):
        PackedLinear(4, 4)(torch.zeros(1, 4))
    with pytest.raises(ValueError, match=r"in_features is 0; it must lie in 1\.\."):
        PackedLinear(0, 4)
    with pytest.raises(ValueError, match=r"threads is 65; it must lie in 1\.\.64"):
        PackedLinear(4, 4, threads=65)


def test_pairs_of_bf16_are_the_same_chain_with_subnormals_as_zeros(isas: tuple[str, ...]) -> None:
    draw = np.random.default_rng(5)

    def bf16(shape: tuple[int, int], exponents: tuple[int, int]) -> torch.Tensor:
        sign, exponent, mantissa = (draw.integers(*bounds, shape) for bounds in ((0, 2), exponents, (0, 1 << 7)))
        bits = sign << 15 | exponent << 7 | mantissa
        return torch.from_numpy(bits.astype(np.uint16).view(np.int16)).view(BF16)

    def flushed(values: np.ndarray) -> np.ndarray:
        return np.where(np.abs(values) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), values), values)

    for inputs, exponents in ((257, (55, 70)), (64, (0, 12)), (40, (110, 140))):
        x, weight = bf16((5, inputs), exponents), bf16((37, inputs), exponents if exponents[0] else (110, 130))
        layer = torch.nn.Linear(inputs, 37, bias=False, dtype=BF16).requires_grad_(False)
        layer.weight.copy_(weight)
        wide_x, wide_w = flushed(x.float().numpy()).astype(float), flushed(weight.float().numpy()).astype(float)
        acc = np.zeros((5, 37), np.float32)
        for k in range(inputs):
            exact = acc.astype(np.longdouble) + np.longdouble(wide_x[:, k, None]) * np.longdouble(wide_w[None, :, k])
            acc = flushed(exact.astype(np.float32))
        expected = torch.from_numpy(acc).bfloat16()
        packed = PackedLinear.from_linear(layer)
        for isa in isas:
            library.set_isa(isa)
            assert torch.equal(packed(x), expected), (isa, inputs)
