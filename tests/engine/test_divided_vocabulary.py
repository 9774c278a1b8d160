"""Whole engines over ranks that divide the vocabulary and nothing else: the tokens of one rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from engine.build import assemble_core
from engine.config import EngineConfig
from engine.errors import RanksDisagreeError
from engine.layers.embedding import Embedding
from engine.llm_engine import LLMEngine
from engine.models.transformer import Transformer
from engine.parallel import ALONE, Group, Ranks
from engine.sequence import GenerationRequest
from engine.tokenizer import MissingTokenizer
from tests.helpers.engines import Outcome, drive, make_request
from tests.helpers.forwards import load_checkpoint
from tests.helpers.ranks import tensor_ranks

SAMPLED: Mapping[str, object] = {"temperature": 0.9, "top_k": 60, "top_p": 0.9}
MIXTURE: Sequence[tuple[Mapping[str, object], Mapping[str, object]]] = (
    ({}, {}),
    ({}, SAMPLED),
    ({"cfg_scale": 1.5}, {"temperature": 1.3, "logit_bias": {7: 5.0, 160: 4.0, 8: -5.0}}),
    ({"decoder": "klass", "threshold": 0.05, "kl_threshold": 0.5, "kl_history": 1}, {}),
    ({"decoder": "entropy_bounded", "gamma": 2.0, "banned_tokens": [3, 150, 299]}, {}),
    ({"decoder": "eb_sampler", "gamma": 2.0, "deferred_tokens": [10, 285]}, SAMPLED),
    ({"decoder": "topk_margin", "smoothing_weight": 0.5, "cfg_scale": 0.5}, {}),
    ({"decoder": "threshold", "threshold": 0.3, "credit_alpha": 0.7, "smoothing_weight": 0.3}, {}),
    ({"decoder": "joint_threshold", "threshold": 0.3, "max_post_edit_steps": 3, "neighbour_penalty": 0.5}, SAMPLED),
    ({"decoder": "joint_threshold_indel", "max_post_edit_steps": 4, "delete_token_id": 17, "split_token_id": 223}, {}),
    ({"repetition_penalty": 1.4, "required_tokens": [31, 241], "min_tokens": 4}, {}),
)
ADAPTIVE = {"initial_length": 4, "eos_confidence": 0.0, "expand_confidence": 0.5, "expansion": 4}


def mixture(engine: LLMEngine) -> list[GenerationRequest]:
    requests = [
        make_request(f"r{index}", [5 + index] * (1 + index % 5), engine, max_tokens=7, strategy=strategy, **sampling)
        for index, (strategy, sampling) in enumerate(MIXTURE)
    ]
    if engine.spec.attention == "bidirectional":
        requests.append(make_request("adaptive", [11, 2, 7], engine, max_tokens=16, strategy=ADAPTIVE))
    return requests


def engine_over(network: Transformer, ranks: Ranks, **options: int) -> LLMEngine:
    config = EngineConfig(max_model_len=48, device="cpu", **options)
    model = deepcopy(network)
    model.embed_tokens = part_of(network.embed_tokens, ranks)
    model.lm_head = None if network.lm_head is None else part_of(network.lm_head, ranks)
    return LLMEngine(assemble_core(model, config, 48, ranks=ranks), model.spec, MissingTokenizer(), config, 48)


def part_of(whole: Embedding, ranks: Ranks) -> Embedding:
    vocab_size, width = whole.weight.shape
    part = Embedding(vocab_size, width, ranks)
    start, end = part.span
    part.weight = torch.nn.Parameter(whole.weight[start:end].clone(), requires_grad=False)
    return part


def outcomes(network: Transformer, count: int, requests: Callable[[LLMEngine], list[GenerationRequest]] = mixture):
    """Of every one of ``count`` ranks."""

    def work(ranks: Ranks) -> dict[str, Outcome]:
        engine = engine_over(network, ranks, check_ranks=1, max_num_seqs=16)
        return drive(engine, requests(engine))

    return tensor_ranks(count, work)


def load(folder: Path) -> Transformer:
    return cast("Transformer", load_checkpoint(folder))


@pytest.mark.parametrize(("family", "count"), [("llada_folder", 2), ("sdar_folder", 3)])
def test_strategies_of_all_kinds_give_the_tokens_of_one_rank(
    family: str, count: int, request: pytest.FixtureRequest
) -> None:
    network = load(request.getfixturevalue(family))
    (alone,) = outcomes(network, 1)
    assert len({outcome.token_ids for outcome in alone.values()}) > len(alone) / 2
    assert outcomes(network, count) == [alone] * count


def test_ranks_with_different_numbers_of_columns_take_equal_turns(
    llada_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.model_runner.MAX_LOGITS", 84)  # two positions of 42 columns, or one of 43
    network = load(llada_folder)
    (alone,) = outcomes(network, 1, lambda engine: mixture(engine)[:2])
    assert outcomes(network, 7, lambda engine: mixture(engine)[:2]) == [alone] * 7


class Confused:
    """A group whose rank mistakes the positions of what it is told."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self.part = group.part
        self.all_reduce = group.all_reduce
        self.all_to_all = group.all_to_all

    def all_gather(self, tensor: Tensor) -> Tensor:
        return self._group.all_gather(tensor).roll(1, dims=-1)


def test_a_rank_that_decides_differently_is_found(llada_folder: Path) -> None:
    network = load(llada_folder)

    def work(ranks: Ranks) -> None:
        group = Confused(ranks.tensor) if ranks.rank == 1 else ranks.tensor
        engine = engine_over(network, Ranks(ranks.layout, ranks.world, group), check_ranks=2)
        for name in ("a", "b"):
            engine.add_request(make_request(name, [5, 6, 7], max_tokens=8))
        while engine.has_unfinished_requests():
            engine.step()

    message = r"after forward 2 .* slot 0: ranks 0, 2 against rank 1; slot 1: ranks 0, 2 against rank 1"
    with pytest.raises(RanksDisagreeError, match=message):
        tensor_ranks(3, work)


def test_divided_embeddings_are_whole_ones_and_mixtures_are_sums(llada_folder: Path) -> None:
    whole = load(llada_folder).embed_tokens
    token_ids = torch.tensor([0, 299, 150, 149, 7])
    weights = torch.rand(4, 300, generator=torch.Generator().manual_seed(0))

    def work(ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
        part = part_of(whole, ranks)
        start, end = part.span
        assert len(part.weight) == end - start < 300
        return part(token_ids), part.mix(weights[:, start:end]), part.logits(whole.weight[:3])

    results = tensor_ranks(3, work)
    for embedded, mixed, _ in results:
        assert torch.equal(embedded, whole(token_ids))
        torch.testing.assert_close(mixed, whole.mix(weights))
    torch.testing.assert_close(torch.cat([logits for _, _, logits in results], dim=1), whole.logits(whole.weight[:3]))


def test_alone_nothing_is_divided(llada_folder: Path) -> None:
    whole = load(llada_folder).embed_tokens
    assert part_of(whole, ALONE).span == (0, 300)
