"""Every family over several ranks, from the checkpoint to the hidden states, against the network of one rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.errors import ConfigError
from engine.models.loader import build_model
from engine.models.spec import DiffusionLM, ModelSpec
from engine.parallel import ALONE, ParallelLayout, Ranks
from tests.helpers.families import FAMILIES, layouts, load_family, write_family
from tests.helpers.networks import CachedNetwork, rows
from tests.helpers.ranks import on_ranks

EXCHANGING = ParallelLayout(2, 2, "all_to_all")
CASES = [
    (name, layout)
    for name, spec in FAMILIES.items()
    for layout in layouts(spec)
    if spec.moe is None or name == "llada2 groups" or layout in (ParallelLayout(4, 2), ParallelLayout(2, 4), EXCHANGING)
]
"""All layouts for one mixture, some for the others; tests/integration has them all, with processes."""

ALL, SHARE = 19 * 32, 5 * 32
"""Elements of the hidden states of all tokens of :func:`hidden_states`, and of one of four ranks' share of them."""

FolderOf = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> FolderOf:
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = write_family(name, tmp_path_factory.mktemp("family"))
        return folders[name]

    return folder


@torch.inference_mode()
def hidden_states(model: DiffusionLM) -> Tensor:
    """Of two sequences of 12 and 7 tokens in one forward: blocks of 4 of a block-causal model see what is before."""
    cached = CachedNetwork.make(model, [[0], [1]], page_size=12)
    cached.canvas.copy_(torch.arange(24).view(2, 12) * 5 % 281)
    if model.spec.attention == "bidirectional":
        return torch.cat(cached.run(rows((0, 0, 12, 0, 12), (1, 0, 7, 0, 7))))
    first = [(0, start, start + 4, 0, start + 4) for start in (0, 4, 8)]
    return torch.cat(cached.run(rows(*first, (1, 0, 4, 0, 4), (1, 4, 7, 0, 7))))


def num_parameters(spec: ModelSpec, layout: ParallelLayout, rank: int) -> int:
    """What a rank should hold, counted from the numbers of the network; but for the vocabulary all parts are equal."""
    start, end = layout.tensor_part(rank).span(spec.vocab_size)
    hidden, moe = spec.hidden_size, spec.moe
    mixtures = 0 if moe is None else spec.num_layers - len(moe.dense_layers)
    dense = 3 * hidden * spec.intermediate_size // layout.tensor
    total = hidden + spec.num_layers * attention_parameters(spec, layout) + (spec.num_layers - mixtures) * dense
    total += (end - start) * hidden * (1 if spec.tie_word_embeddings else 2)
    if moe is not None:
        router = moe.num_experts * (hidden + moe.expert_bias)
        experts = 3 * hidden * moe.num_experts * moe.intermediate_size // layout.world_size
        shared = 3 * hidden * moe.shared_intermediate_size
        shared = shared // layout.world_size if layout.dispatch == "all_reduce" else shared
        total += mixtures * (router + experts + shared)
    return total


def attention_parameters(spec: ModelSpec, layout: ParallelLayout) -> int:
    """Projections, norms and biases of one layer."""
    has_qk_norm = spec.architecture not in {"LLaDAModelLM", "DreamModel"}
    has_output_bias = spec.attention_bias and spec.architecture.startswith("SDAR")
    heads = spec.num_heads // layout.tensor
    width = (heads + 2 * max(spec.num_kv_heads // layout.tensor, 1)) * spec.head_dim
    weights = spec.hidden_size * (width + heads * spec.head_dim)
    biases = width * spec.attention_bias + spec.hidden_size * has_output_bias
    return weights + biases + 2 * spec.hidden_size + 2 * spec.head_dim * has_qk_norm


@pytest.mark.parametrize(("name", "layout"), CASES, ids=str)
def test_hidden_states_are_those_of_one_rank(name: str, layout: ParallelLayout, folder_of: FolderOf) -> None:
    folder = folder_of(name)

    def run(ranks: Ranks) -> tuple[Tensor, int]:
        model = load_family(name, folder, ranks)
        return hidden_states(model), sum(parameter.numel() for parameter in model.parameters())

    expected = hidden_states(load_family(name, folder))
    results = on_ranks(layout, run)

    for actual, _ in results:
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)
        assert torch.equal(actual, results[0][0]), "ranks must have the same bits"
    if layout.expert != 3:
        expected_sizes = [num_parameters(FAMILIES[name], layout, rank) for rank in range(layout.world_size)]
        assert [held for _, held in results] == expected_sizes


@pytest.mark.parametrize(
    ("name", "layout", "parameter"),
    [
        ("dream", ParallelLayout(4), "layers.1.self_attn.qkv_proj.bias"),
        ("llada", ParallelLayout(2), "layers.0.self_attn.o_proj.weight"),
        ("sdar tied", ParallelLayout(2), "layers.1.mlp.gate_up_proj.weight"),
        ("llada2 groups", ParallelLayout(1, 2), "layers.1.mlp.experts.down_proj"),
        ("llada2 groups", ParallelLayout(4, 2), "layers.1.mlp.experts.gate_up_proj"),
        ("llada2 groups", ParallelLayout(2, 4), "layers.1.mlp.shared_experts.down_proj.weight"),
        ("llada-moe", EXCHANGING, "layers.1.mlp.experts.gate_up_proj"),
    ],
    ids=str,
)
def test_every_rank_counts(name: str, layout: ParallelLayout, parameter: str, folder_of: FolderOf) -> None:
    """What the last rank holds matters to the first one."""
    folder = folder_of(name)

    def run(ranks: Ranks) -> Tensor:
        model = load_family(name, folder, ranks)
        if ranks.rank == layout.world_size - 1:
            dict(model.named_parameters())[parameter].mul_(1.5)
        return hidden_states(model)

    changed = on_ranks(layout, run)[0]

    assert not torch.allclose(changed, hidden_states(load_family(name, folder)), atol=1e-3)


@pytest.mark.parametrize(
    ("layout", "tensor", "world"),
    [
        (ParallelLayout(2, 2), [ALL] * 5, None),
        (ParallelLayout(2, 4), [ALL] * 4, [ALL]),
        (ParallelLayout(1, 2), None, [ALL]),
        (ParallelLayout(2, 4, "all_to_all"), [ALL] * 4, [-1, -1, SHARE]),
    ],
    ids=str,
)
def test_one_sum_per_sublayer(
    layout: ParallelLayout, tensor: list[int] | None, world: list[int] | None, folder_of: FolderOf
) -> None:
    """What the embedding, two layers of attention, a dense layer and a mixture with shared experts exchange; -1: as
    many rows as the router says."""
    folder = folder_of("llada2 groups")

    def run(ranks: Ranks) -> list[list[int] | None]:
        hidden_states(load_family("llada2 groups", folder, ranks))
        return [getattr(group, "sizes", None) for group in (ranks.tensor, ranks.world)]

    for of_tensor, of_world in on_ranks(layout, run):
        assert of_tensor == tensor
        if world is not None:
            assert of_world is not None
            assert [known for known in world if known >= 0] == [
                size for size, known in zip(of_world, world, strict=True) if known >= 0
            ]


def test_key_heads_that_are_fewer_than_ranks_are_kept_by_several(folder_of: FolderOf) -> None:
    folder = folder_of("llada")
    assert on_ranks(ParallelLayout(2), lambda ranks: load_family("llada", folder, ranks).num_kv_heads) == [1, 1]
    parts = on_ranks(ParallelLayout(4), lambda ranks: key_rows(load_family("llada", folder, ranks)))
    assert torch.equal(parts[0], parts[1])
    assert torch.equal(parts[2], parts[3])
    assert not torch.equal(parts[1], parts[2])


def key_rows(model: DiffusionLM) -> Tensor:
    return dict(model.named_parameters())["layers.0.self_attn.qkv_proj.weight"][8:16]


@pytest.mark.parametrize(
    ("name", "layout", "setting", "complaint"),
    [
        ("llada", ParallelLayout(3), "tensor_parallel_size", "4 attention heads on 2 .*possible are 1, 2, 4"),
        ("llada", ParallelLayout(8), "tensor_parallel_size", "does not divide 4 attention heads"),
        ("llada", ParallelLayout(1, 2), "expert_parallel_size", "LLaDAModelLM has no experts"),
        ("sdar", ParallelLayout(1, 1, "all_to_all"), "expert_dispatch", "SDARForCausalLM has no experts"),
        ("sdar-moe", ParallelLayout(1, 16), "expert_parallel_size", "number of experts, 8, has no 16 parts"),
    ],
    ids=str,
)
def test_layouts_that_do_not_suit_a_network(name: str, layout: ParallelLayout, setting: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        build_model(FAMILIES[name], ranks=Ranks(layout, ALONE.world, ALONE.tensor))
    assert caught.value.param == setting
