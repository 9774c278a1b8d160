"""Which heads a rank has, and what layers say of their parameters."""

from __future__ import annotations

import pytest
from torch import nn

from engine.errors import ConfigError
from engine.layers.division import Held, head_parts, held_parameters
from engine.layers.experts import Experts
from engine.layers.linear import Linear, PackedLinear
from engine.layers.norm import RMSNorm
from engine.parallel import Part


@pytest.mark.parametrize(
    ("ranks", "heads", "kv_heads"), [(1, 4, 4), (2, 4, 4), (2, 32, 8), (8, 32, 4), (4, 28, 4), (4, 4, 1), (8, 64, 2)]
)
def test_each_rank_has_the_key_heads_of_its_queries(ranks: int, heads: int, kv_heads: int) -> None:
    for index in range(ranks):
        query_part, kv_part = head_parts(Part(index, ranks), heads, kv_heads)
        first, end = query_part.span(heads)
        needed = {head * kv_heads // heads for head in range(first, end)}
        assert needed == set(range(*kv_part.span(kv_heads)))


@pytest.mark.parametrize(("ranks", "heads", "kv_heads"), [(3, 4, 4), (4, 6, 6), (8, 28, 4), (7, 28, 4), (6, 12, 4)])
def test_heads_that_do_not_come_out_even(ranks: int, heads: int, kv_heads: int) -> None:
    with pytest.raises(ConfigError, match=f"tensor_parallel_size {ranks} does not divide {heads}") as caught:
        head_parts(Part(0, ranks), heads, kv_heads)
    assert caught.value.param == "tensor_parallel_size"


def test_layers_tell_what_they_hold_of_the_whole() -> None:
    model = nn.ModuleDict(
        {
            "packed": PackedLinear(5, (4, 2, 2), bias=True, outputs=((2, 4), (0, 1), (0, 1))),
            "summed": Linear(9, 3, bias=True, inputs=(6, 9)),
            "experts": Experts(5, 7, 8, Part(1, 3), Part(0, 2)),
            "norm": RMSNorm(5, 1e-6),
        }
    )

    held = held_parameters(model)

    rows = ((2, 5), (6, 7))  # neighbours in the whole are one span
    assert held["packed.weight"] == Held((8, 5), (rows, ((0, 5),)))
    assert held["packed.bias"] == Held((8,), (rows,))
    assert held["summed.weight"] == Held((3, 9), (((0, 3),), ((6, 9),)))
    assert held["experts.gate_up_proj"] == Held((7, 16, 5), (((3, 5),), ((0, 4), (8, 12)), ((0, 5),)))
    assert held["experts.down_proj"] == Held((7, 5, 8), (((3, 5),), ((0, 5),), ((0, 4),)))
    assert {name for name, one in held.items() if one.is_whole} == {"summed.bias", "norm.weight"}


def test_a_layer_that_is_alone_holds_everything() -> None:
    held = held_parameters(nn.ModuleList([PackedLinear(5, (4, 2), bias=True), Linear(9, 3), Experts(5, 7, 8)]))
    assert all(one.is_whole for one in held.values())
