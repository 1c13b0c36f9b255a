"""What tree attention refuses: plans that point outside the pool, tensors and options of a wrong kind."""

from __future__ import annotations

import pytest
import torch
from nacre_kernels import AttentionPlan, paged_tree_attention

from tests.kernels.tensors import int32


def plan_of(**changes: torch.Tensor) -> AttentionPlan:
    fields = {
        "prefix_offset": int32(0, 0),
        "prefix_length": int32(2, 2),
        "ancestor_offset": int32(0, 1),
        "ancestor_length": int32(1, 1),
        "prefix_slots": int32(0, 1),
        "ancestor_slots": int32(2, 3),
    }
    return AttentionPlan(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prefix_slots": int32(0, 4)}, "plan row 0 names slot 4; the pool has slots 0..3"),
        (
            {"prefix_offset": int32(0, 2), "prefix_slots": int32(0, 1, 3, 9)},
            "plan row 1 names slot 9; the pool has slots 0..3",
        ),
        ({"prefix_length": int32(1, 2), "prefix_slots": int32(0, 7)}, "plan row 1 names slot 7"),
        ({"ancestor_slots": int32(2, -1)}, "plan row 1 names slot -1; the pool has slots 0..3"),
        ({"prefix_length": int32(2, 3)}, r"plan row 1: its prefix stretch ends at 3, outside prefix_slots \[0, 2\)"),
        ({"prefix_offset": int32(-1, 0)}, r"plan row 0: its prefix stretch ends at 1, outside"),
        ({"prefix_length": int32(-2, 2)}, r"plan row 0: its prefix stretch"),
        (
            {"ancestor_offset": int32(0, 2)},
            r"plan row 1: its ancestor stretch ends at 3, outside ancestor_slots \[0, 2\)",
        ),
        ({"ancestor_length": int32(-1, 1)}, r"plan row 0: its ancestor stretch"),
        ({"prefix_length": int32(0, 2), "ancestor_length": int32(0, 1)}, "plan row 0 sees 0 keys"),
        ({"prefix_length": int32(2**31 - 1, 2)}, "plan row 0: its prefix stretch ends at 2147483647"),
    ],
)
def test_a_plan_that_points_outside_is_refused_before_memory_is_touched(
    changes: dict[str, torch.Tensor], message: str
) -> None:
    q, pool = torch.zeros(2, 2, 4), torch.zeros(4, 1, 4)
    paged_tree_attention(q, pool, pool, plan_of(), scale=1.0)
    with pytest.raises(ValueError, match=message):
        paged_tree_attention(q, pool, pool, plan_of(**changes), scale=1.0)


def test_plans_of_a_wrong_kind_are_refused() -> None:
    with pytest.raises(TypeError, match=r"plan.prefix_slots is torch.int64 of shape \(2,\); it must be 1-D int32"):
        plan_of(prefix_slots=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"plan\.ancestor_length has 3 rows, plan.prefix_offset has 2"):
        plan_of(ancestor_length=int32(1, 1, 1))
    with pytest.raises(ValueError, match="contiguous CPU tensor"):
        plan_of(prefix_slots=int32(0, 5, 1, 5)[::2])


@pytest.mark.parametrize(
    ("tensors", "options", "error", "message"),
    [
        ({"q": torch.zeros(2, 8)}, {}, ValueError, "q, k_pool, v_pool have 2, 3, 3 dimensions"),
        ({"q": torch.zeros(2, 2, 4).half()}, {}, TypeError, "q, k_pool, v_pool are torch.float16"),
        ({"q": torch.zeros(2, 2, 5)}, {}, ValueError, "shapes do not fit"),
        ({"q": torch.zeros(3, 2, 4)}, {}, ValueError, "q has 3 rows, the plan 2"),
        ({"v_pool": torch.zeros(5, 1, 4)}, {}, ValueError, "shapes do not fit"),
        ({"v_pool": torch.zeros(4, 2, 4)}, {}, ValueError, "shapes do not fit"),
        (
            {"k_pool": torch.zeros(4, 3, 4), "v_pool": torch.zeros(4, 3, 4)},
            {},
            ValueError,
            "2 query heads cannot share 3",
        ),
        ({"k_pool": torch.zeros(4, 0, 4), "v_pool": torch.zeros(4, 0, 4)}, {}, ValueError, "cannot share 0 key heads"),
        ({"v_pool": torch.zeros(4, 1, 1025)}, {}, ValueError, "head dimensions are 4 and 1025"),
        ({"q": torch.zeros(2, 4, 2).transpose(1, 2)}, {}, ValueError, "strides"),
        ({"k_pool": torch.zeros(4, 1, 8)[:, :, ::2]}, {}, ValueError, "strides"),
        ({"q": torch.zeros(2, 2, 4, device="meta")}, {}, ValueError, "q is on meta, k_pool on cpu"),
        ({}, {"window": 0}, ValueError, "window is 0"),
        ({}, {"softcap": 0.0}, ValueError, "softcap is 0.0"),
        ({}, {"sinks": torch.zeros(3)}, ValueError, r"sinks has shape \(3,\); it must be \[2\]"),
        ({}, {"threads": 0}, ValueError, "threads is 0"),
    ],
)
def test_wrong_tensors_and_options_are_refused(
    tensors: dict[str, torch.Tensor], options: dict[str, object], error: type[Exception], message: str
) -> None:
    arguments = {"q": torch.zeros(2, 2, 4), "k_pool": torch.zeros(4, 1, 4), "v_pool": torch.zeros(4, 1, 4), **tensors}
    with pytest.raises(error, match=message):
        paged_tree_attention(**arguments, plan=plan_of(), scale=1.0, **options)
