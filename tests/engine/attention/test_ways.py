"""Every way to attend rows against the plain one: paged K/V, rows of any length, sliding windows, grouped heads."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.attention import varlen
from engine.attention.backend import AttentionBackend
from engine.attention.flex import FlexAttention
from engine.attention.padded import PaddedAttention
from engine.attention.sdpa import SDPAAttention
from engine.attention.token_rows import TokenRows
from engine.attention.varlen import VarlenAttention
from engine.attention.ways import ATTENTION_WAYS, SDPA, AttentionWay, Flex, Varlen, attention_way
from engine.cache.kv_cache import KVCache
from engine.cache.page_table import PageTable
from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.plan import Rows
from tests.helpers.networks import rows
from tests.helpers.syncs import Waits

CPU = torch.device("cpu")
HEADS, KV_HEADS, DIM, PAGE = 4, 2, 8, 4
PAGES = ([7, 2, 11, 0], [1, 9, 4, 10], [3, 5, -1, -1])

RAGGED = rows((0, 5, 9, 0, 14), (1, 0, 4, 0, 4), (1, 4, 8, 0, 8), (2, 2, 3, 0, 6))
WINDOWS = rows((0, 5, 9, 3, 11), (1, 0, 4, 0, 4), (2, 2, 7, 2, 7))
UNIFORM = rows((0, 5, 8, 0, 14), (2, 0, 3, 0, 3), (1, 9, 12, 0, 12))


@pytest.fixture
def table() -> PageTable:
    table = PageTable(4, 4 * PAGE, PAGE, CPU)
    for slot, pages in enumerate(PAGES):
        table.assign(slot, np.array(pages))
    return table


def filled_cache() -> KVCache:
    cache = KVCache(1, 12, PAGE, KV_HEADS, DIM, torch.float32, CPU)
    generator = torch.Generator().manual_seed(3)
    for side in (cache.keys, cache.values):
        side.normal_(generator=generator)
    return cache


def fresh(plan: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of the forward's tokens."""
    generator, num_tokens = torch.Generator().manual_seed(4), len(plan.tokens()[0])
    return (
        torch.randn(num_tokens, HEADS, DIM, generator=generator),
        torch.randn(num_tokens, KV_HEADS, DIM, generator=generator),
        torch.randn(num_tokens, KV_HEADS, DIM, generator=generator),
    )


def expected(plan: Rows, table: PageTable) -> tuple[Tensor, KVCache]:
    cache = filled_cache()
    return SDPAAttention(cache, plan, table.host).attend(0, *fresh(plan)), cache


def check(attention: AttentionBackend, cache: KVCache, plan: Rows, table: PageTable) -> None:
    """The output, the stored K/V and the rows' numbers."""
    output, stored = expected(plan, table)
    torch.testing.assert_close(attention.attend(0, *fresh(plan)), output, atol=1e-6, rtol=0)
    assert torch.equal(cache.keys, stored.keys)
    assert torch.equal(cache.values, stored.values)
    lengths = plan.q_end_R - plan.q_start_R
    assert attention.row_T is not None
    assert attention.row_T.tolist() == np.repeat(np.arange(len(lengths)), lengths).tolist()


def plain_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor | None,
    max_q: int,
    max_k: int,
    *,
    enable_gqa: bool,
    num_splits: int,
    seqused_k: Tensor | None = None,
    block_table: Tensor | None = None,
) -> Tensor:
    """What ``varlen_attn`` is documented to compute, sequence by sequence; refuses what the kernel would."""
    assert enable_gqa == (query.shape[1] != key.shape[-2])
    assert num_splits == 1
    assert cu_seq_q.dtype == torch.int32
    assert max_q == int(cu_seq_q.diff().max())
    outputs = []
    for n, (start, end) in enumerate(zip(cu_seq_q[:-1].tolist(), cu_seq_q[1:].tolist(), strict=True)):
        if block_table is not None:
            assert seqused_k is not None
            assert cu_seq_k is None
            assert block_table.dtype == seqused_k.dtype == torch.int32
            assert int(seqused_k[n]) <= max_k
            own = (side[block_table[n].long()].flatten(0, 1)[: int(seqused_k[n])] for side in (key, value))
        else:
            assert cu_seq_k is not None
            assert cu_seq_k.dtype == torch.int32
            span = slice(int(cu_seq_k[n]), int(cu_seq_k[n + 1]))
            assert span.stop - span.start <= max_k
            own = (side[span] for side in (key, value))
        heads = (x.transpose(0, 1)[None] for x in (query[start:end], *own))
        output = torch.nn.functional.scaled_dot_product_attention(*heads, enable_gqa=enable_gqa)
        outputs.append(output[0].transpose(0, 1))
    return torch.cat(outputs)


@pytest.fixture
def _uncompiled() -> Iterator[None]:
    """flex_attention says that it should be compiled, which is for GPUs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        yield


def test_varlen_takes_the_published_kernel_when_it_is_chosen(table: PageTable) -> None:
    assert isinstance(Varlen(filled_cache(), table).bind(RAGGED, None), VarlenAttention)


def test_an_engine_that_needs_no_compiler_does_not_import_it() -> None:
    asked = "import sys, engine.build; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


@pytest.mark.parametrize("plan", [RAGGED, WINDOWS], ids=["ragged", "windows"])
def test_varlen_asks_its_kernel_for_the_same(plan: Rows, table: PageTable) -> None:
    cache = filled_cache()
    attention = VarlenAttention(cache, TokenRows.of(plan, table), table, kernel=plain_varlen)
    check(attention, cache, plan, table)


@pytest.mark.usefixtures("_uncompiled")
@pytest.mark.parametrize("plan", [RAGGED, WINDOWS], ids=["ragged", "windows"])
def test_flex_computes_the_same(plan: Rows, table: PageTable) -> None:
    cache = filled_cache()
    check(FlexAttention(cache, TokenRows.of(plan, table), table), cache, plan, table)


@pytest.mark.usefixtures("_uncompiled")
@pytest.mark.parametrize("kind", ["padded", "varlen", "flex"])
def test_rows_from_tensors_alone_compute_the_same(kind: str, table: PageTable) -> None:
    cache = filled_cache()
    columns = (torch.from_numpy(column) for column in (UNIFORM.slot_R, UNIFORM.q_start_R, UNIFORM.kv_end_R))
    uniform = TokenRows.uniform(*columns, query_len=3, table=table)
    attention = {
        "padded": lambda: PaddedAttention(cache, uniform, table),
        "varlen": lambda: VarlenAttention(cache, uniform, table, kernel=plain_varlen),
        "flex": lambda: FlexAttention(cache, uniform, table),
    }[kind]()
    check(attention, cache, UNIFORM, table)


@pytest.mark.parametrize("way", [SDPA, Varlen, Flex])
def test_binding_to_tensors_waits_for_nothing(way: type[AttentionWay], table: PageTable) -> None:
    columns = [torch.from_numpy(column) for column in (UNIFORM.slot_R, UNIFORM.q_start_R, UNIFORM.kv_end_R)]
    bound = way(filled_cache(), table)
    with Waits() as waits:
        uniform = TokenRows.uniform(*columns, query_len=3, table=table)
        bound.bind_tensors(uniform)
    assert waits.found == []


def test_flex_looks_only_at_pages_of_its_rows(table: PageTable) -> None:
    attention = FlexAttention(filled_cache(), TokenRows.of(rows((0, 5, 9, 0, 9)), table), table)
    mask = attention._mask
    count = int(mask.kv_num_blocks[0, 0, 0])
    assert sorted(mask.kv_indices[0, 0, 0, :count].tolist()) == [2, 7, 11], "9 positions are three pages"


@pytest.mark.parametrize(
    ("dtype", "head_dim", "page_size", "reason"),
    [
        (torch.float32, 128, 256, "float32"),
        (torch.bfloat16, 100, 256, "100"),
        (torch.bfloat16, 512, 256, "512"),
        (torch.bfloat16, 128, 64, "64"),
    ],
)
def test_varlen_says_what_it_misses(dtype: torch.dtype, head_dim: int, page_size: int, reason: str) -> None:
    refusal = varlen.why_not(torch.device("cuda"), dtype, head_dim, page_size)
    assert refusal is not None
    assert reason in refusal


def test_auto_takes_what_can_be_used_and_others_are_refused_by_name() -> None:
    assert attention_way(EngineConfig(), CPU, torch.float32, 64, 256) is SDPA
    with pytest.raises(ConfigError, match="CUDA") as caught:
        attention_way(EngineConfig(attention_backend="varlen"), CPU, torch.float32, 64, 256)
    assert caught.value.param == "attention_backend"
    for name, way in ATTENTION_WAYS.items():
        if way is not Varlen:
            assert attention_way(EngineConfig(attention_backend=name), CPU, torch.float32, 64, 256) is way  # type: ignore[arg-type]
