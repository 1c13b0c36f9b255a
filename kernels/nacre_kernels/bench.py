"""Our linear layers and attention against torch's, on this machine: `python -m nacre_kernels.bench [--json]`.

Weights are cycled through copies that together exceed the last-level cache, because in a forward pass every matrix
comes from memory. Ours and torch's runs alternate and the best time of each counts, so a busy machine hurts both alike.
A GB/s figure counts the weight's bytes only; GFLOP/s counts two operations per weight and row.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from nacre_kernels.attention import AttentionPlan, paged_tree_attention
from nacre_kernels.library import describe, require, set_isa
from nacre_kernels.packed import PackedLinear

SHAPES = ((12288, 256), (256, 12288), (4096, 256), (768, 256), (256, 768), (1024, 1024), (3072, 1024))
ROWS = (1, 2, 4, 8, 16, 32, 64, 256)
FOOTPRINT_BYTES = 160 << 20
MAX_COPIES = 64


def best_times_s(runs: Sequence[Callable[[int], None]], count: int, budget_s: float) -> list[float]:
    """Best seconds per call of each of `runs`, taken in turns; run(i) uses the i-th copy of its operands."""
    best = [float("inf")] * len(runs)
    end_s = time.perf_counter() + budget_s
    rounds = 0
    while rounds < 3 or (time.perf_counter() < end_s and rounds < 200):
        for which, run in enumerate(runs):
            start_s = time.perf_counter()
            for i in range(count):
                run(i)
            best[which] = min(best[which], (time.perf_counter() - start_s) / count)
        rounds += 1
    return best


def bench_linear(
    shape: tuple[int, int], dtype: torch.dtype, rows: Sequence[int], threads: int, budget_s: float
) -> list[dict[str, object]]:
    outputs, inputs = shape
    weight_bytes = outputs * inputs * dtype.itemsize
    copies = max(1, min(MAX_COPIES, FOOTPRINT_BYTES // weight_bytes))
    plain = [torch.nn.Linear(inputs, outputs, bias=False).to(dtype) for _ in range(copies)]
    if dtype == torch.float32:  # nothing bf16 could hold, or the weights would be stored as bf16
        assert all((layer.weight.bfloat16().float() != layer.weight).any() for layer in plain)
    packed = [PackedLinear.from_linear(layer, threads=threads) for layer in plain]
    results: list[dict[str, object]] = []
    for m in rows:
        x = torch.randn(m, inputs).to(dtype)
        runs = [partial(_call, layers, x) for layers in (packed, plain)]
        ours_s, torch_s = best_times_s(runs, copies, budget_s)
        results.append(
            {
                "op": "linear",
                "dtype": str(dtype).removeprefix("torch."),
                "outputs": outputs,
                "inputs": inputs,
                "rows": m,
                "ours_us": round(ours_s * 1e6, 1),
                "torch_us": round(torch_s * 1e6, 1),
                "speedup": round(torch_s / ours_s, 2),
                "gb_per_s": round(weight_bytes / ours_s / 1e9, 2),
                "gflop_per_s": round(2 * m * outputs * inputs / ours_s / 1e9, 1),
            }
        )
    return results


def _call(layers: Sequence[torch.nn.Module], x: torch.Tensor, which: int) -> None:
    layers[which](x)


def bench_attention(
    rows: int, context: int, heads: int, kv_heads: int, dim: int, dtype: torch.dtype, threads: int, budget_s: float
) -> dict[str, object]:
    """`rows` rows of one sequence, a star of guesses below `context` committed keys, against dense torch attention."""
    slots = torch.randperm(context + rows).tolist()
    k, v = (torch.randn(context + rows, kv_heads, dim).to(dtype) for _ in range(2))
    q = torch.randn(rows, heads, dim).to(dtype)
    plan = AttentionPlan.from_lists([slots[:context]], [(0, [slots[context + r]]) for r in range(rows)])
    dense_k, dense_v = (pool[slots[: context + 1]].transpose(0, 1)[None].contiguous() for pool in (k, v))
    dense_q = q.transpose(0, 1)[None].contiguous()

    def ours(_: int) -> None:
        paged_tree_attention(q, k, v, plan, scale=dim**-0.5, threads=threads)

    def plain(_: int) -> None:
        torch.nn.functional.scaled_dot_product_attention(dense_q, dense_k, dense_v, enable_gqa=True)

    ours_s, torch_s = best_times_s((ours, plain), 4, budget_s)
    return {
        "op": "attention",
        "dtype": str(dtype).removeprefix("torch."),
        "rows": rows,
        "context": context,
        "heads": heads,
        "kv_heads": kv_heads,
        "dim": dim,
        "ours_us": round(ours_s * 1e6, 1),
        "torch_us": round(torch_s * 1e6, 1),
        "speedup": round(torch_s / ours_s, 2),
        "gflop_per_s": round(4 * rows * heads * dim * (context + 1) / ours_s / 1e9, 1),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m nacre_kernels.bench", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--threads", type=int, default=1, help="threads, ours and torch's (default 1)")
    parser.add_argument("--isa", help="portable, avx2, avx512 or avx512_bf16 (default: the best of this CPU)")
    parser.add_argument("--budget", type=float, default=0.5, help="seconds per measurement (default 0.5)")
    parser.add_argument("--shape", action="append", metavar="OUTxIN", help="only these shapes, e.g. 12288x256")
    parser.add_argument("--rows", help="only these row counts, e.g. 1,8,16")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="only this dtype")
    args = parser.parse_args(argv)
    require()
    torch.set_num_threads(args.threads)
    if args.isa:
        set_isa(args.isa)
    shapes = [tuple(map(int, text.split("x"))) for text in args.shape] if args.shape else SHAPES
    rows = [int(text) for text in args.rows.split(",")] if args.rows else ROWS
    dtypes = [getattr(torch, args.dtype)] if args.dtype else [torch.float32, torch.bfloat16]
    results: list[dict[str, object]] = []
    if not args.json:
        sys.stdout.write(f"{describe()}; torch {torch.__version__}; {args.threads} thread(s)\n")
    with torch.inference_mode():
        for dtype in dtypes:
            for outputs, inputs in shapes:
                results += _shown(bench_linear((outputs, inputs), dtype, rows, args.threads, args.budget), args.json)
            for m, context in () if args.shape else ((1, 512), (8, 512), (8, 2048), (64, 512)):
                one = bench_attention(m, context, 4, 4, 64, dtype, args.threads, args.budget)
                results += _shown([one], args.json)
    if args.json:
        head = {"kernels": describe(), "torch": torch.__version__, "threads": args.threads}
        sys.stdout.write(json.dumps({**head, "results": results}) + "\n")
    return 0


def _shown(results: list[dict[str, object]], quiet: bool) -> list[dict[str, object]]:
    if not quiet:
        for one in results:
            size = f"[{one['outputs']}, {one['inputs']}]" if one["op"] == "linear" else f"context {one['context']}"
            sys.stdout.write(
                f"{one['op']:9} {one['dtype']:8} {size:14} rows {one['rows']:>3}  ours {one['ours_us']:>9} us  "
                f"torch {one['torch_us']:>9} us  x{one['speedup']:<5} {one.get('gb_per_s', ''):>6} GB/s "
                f"{one['gflop_per_s']:>6} GFLOP/s\n"
            )
        sys.stdout.flush()
    return results


if __name__ == "__main__":
    sys.exit(main())
