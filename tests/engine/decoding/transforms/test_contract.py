"""What every registered transform promises, on random blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import Tensor

from engine.cache import CACHE_POLICIES
from engine.columns import Columns
from engine.decoding import DECODERS
from engine.decoding.transform import InputTransform, LogitsTransform
from engine.decoding.transform_dispatch import TransformDispatch
from engine.decoding.transforms import TRANSFORMS
from engine.decoding.vocabulary import Vocabulary
from engine.parallel import ALONE, Ranks
from engine.strategy import SHARED_OPTIONS
from tests.helpers.ranks import tensor_ranks
from tests.helpers.transforms import MASK, Request, TransformRig, transformed

VOCABULARY = 12
ASKED: Mapping[str, Mapping[str, object]] = {
    "repetition_penalty": {"repetition_penalty": 1.5, "repetition_window": 3},
    "neighbour_penalty": {"neighbour_penalty": 2.0},
    "logit_bias": {"bias_ids": [2, 5], "biases": [4.0, -4.0]},
    "banned_tokens": {"banned_tokens": [1, 2, 3]},
    "min_tokens": {"min_tokens": 2, "stop_ids": [4]},
    "credit": {"credit_alpha": 0.7, "credit_gamma": 0.2, "credit_beta": 0.8},
    "required_tokens": {"required_tokens": [6, 7], "stop_ids": [4]},
    "iteration_smoothing": {
        "smoothing_weight": 0.3,
        "smoothing_initial": 0.15,
        "smoothing_growth": 0.02,
        "smoothing_threshold_decay": 0.02,
        "smoothing_temperature": 1.0,
    },
}
ON_LOGITS = [name for name in TRANSFORMS if issubclass(TRANSFORMS.get(name), LogitsTransform)]


@st.composite
def requests(draw: st.DrawFn) -> Request:
    prompt_len, length = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    block = draw(st.lists(st.sampled_from([MASK, MASK, 3, 6]), min_size=length, max_size=length))
    behind = draw(st.lists(st.just(MASK), max_size=2))
    names = draw(st.lists(st.sampled_from(ON_LOGITS), unique=True))
    return Request(
        canvas=[*[5] * prompt_len, *block, *behind],
        start=prompt_len,
        end=prompt_len + length,
        prompt_len=prompt_len,
        knobs={name: ASKED[name] for name in names},
    )


@given(st.lists(requests(), min_size=1, max_size=5), st.integers(0, 2**31))
def test_a_request_gets_alone_what_it_gets_among_others(batch: list[Request], seed: int) -> None:
    width = max(one.end - one.start for one in batch)
    logits = torch.randn(2, len(batch), width, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3
    rig, alone = TransformRig(batch), [TransformRig([one]) for one in batch]
    for step in (0, 1):
        together = rig.apply(batch, logits[step], step)
        for n, one in enumerate(batch):
            length = one.end - one.start
            own = alone[n].apply([one], logits[step, n, :length][None], step)[0]
            assert torch.equal(together[n, :length], own), one.knobs


@given(requests(), st.integers(0, 2**31))
def test_memory_of_an_earlier_block_or_request_is_forgotten(one: Request, seed: int) -> None:
    length = one.end - one.start
    logits = torch.randn(3, length, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3
    rig = TransformRig([one])
    for step in (0, 1):
        rig.apply([one], logits[step][None], step)
    assert torch.equal(rig.apply([one], logits[2][None], 0)[0], transformed(one, logits[2]))
    rig.dispatch.admit(0, one.knobs, length)
    assert torch.equal(rig.apply([one], logits[2][None], 1)[0], transformed(one, logits[2]))


@given(requests(), st.integers(0, 2**31))
def test_positions_in_turns_give_what_they_give_at_once(one: Request, seed: int) -> None:
    if "required_tokens" in one.knobs:  # reserves places within a turn: any choice keeps its promise
        return
    logits = torch.randn(one.end - one.start, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3
    assert torch.equal(transformed(one, logits, at_a_time=2), transformed(one, logits))


@settings(max_examples=15)
@given(st.lists(requests(), min_size=1, max_size=4), st.sampled_from([2, 3]), st.integers(0, 2**31))
def test_ranks_with_some_columns_each_change_them_as_one_rank_does(batch: list[Request], count: int, seed: int) -> None:
    width = max(one.end - one.start for one in batch)
    logits = torch.randn(2, len(batch), width, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3
    whole = TransformRig(batch)
    expected = [whole.apply(batch, logits[step], step) for step in (0, 1)]

    def run(ranks: Ranks) -> list[Tensor]:
        vocabulary = Vocabulary(VOCABULARY, ranks.tensor)
        rig, own = TransformRig(batch, vocabulary), slice(vocabulary.start, vocabulary.end)
        return [rig.apply(batch, logits[step, ..., own], step) for step in (0, 1)]

    for step, parts in enumerate(zip(*tensor_ranks(count, run), strict=True)):
        torch.testing.assert_close(torch.cat(parts, dim=2), expected[step], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", [name for name in TRANSFORMS if name not in ON_LOGITS])
def test_ranks_with_some_columns_each_mix_as_one_rank_does(name: str, count: int) -> None:
    logits = torch.randn(5, VOCABULARY, generator=torch.Generator().manual_seed(1)) * 3
    number = list(TRANSFORMS).index(name)

    def mix(ranks: Ranks) -> Tensor:
        vocabulary = Vocabulary(VOCABULARY, ranks.tensor)
        dispatch = TransformDispatch(Columns(1, torch.device("cpu")))
        dispatch.admit(0, {name: ASKED[name]}, 4)
        own = logits[:, vocabulary.start : vocabulary.end].clone()
        return dispatch.mixture(own, vocabulary, np.full(5, 1 << number), torch.zeros(5).long(), torch.arange(5))

    found = torch.cat(tensor_ranks(count, mix), dim=1)
    torch.testing.assert_close(found, mix(ALONE), atol=1e-6, rtol=1e-5)
    assert found.any()


@pytest.mark.parametrize("name", ON_LOGITS)
def test_it_changes_something_and_never_leaves_a_place_without_a_token(name: str) -> None:
    request = Request(canvas=[5, MASK, MASK, 3], start=1, end=3, knobs={name: ASKED[name]})
    logits = torch.randn(2, VOCABULARY, generator=torch.Generator().manual_seed(3))
    changed = transformed(request, logits)
    assert not torch.equal(changed, logits)
    assert not changed.isnan().any()
    assert changed[:, [token for token in range(VOCABULARY) if token != MASK]].isfinite().any(dim=1).all()


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_by_default_it_is_off_and_an_option_switches_it_on(name: str) -> None:
    transform = TRANSFORMS.get(name)
    assert issubclass(transform, (LogitsTransform, InputTransform))
    assert not transform.active(transform.Params())
    own = {item.name for item in fields(transform.Params)}
    options = {option: value for option, value in ASKED[name].items() if option in own}
    if own:
        params = transform.Params(
            **{option: tuple(value) if isinstance(value, list) else value for option, value in options.items()}
        )
        assert transform.active(params)
        assert set(asdict(params)) <= set(transform.knobs())
    assert set(ASKED[name]) <= set(transform.knobs())


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_options_are_described_and_collide_with_nothing(name: str) -> None:
    transform = TRANSFORMS.get(name)
    assert transform.summary
    assert transform.source
    taken = set(SHARED_OPTIONS)
    for table in (DECODERS, CACHE_POLICIES):
        for other in table:
            taken |= {item.name for item in fields(table.get(other).Params)}
    for other in TRANSFORMS:
        taken |= {item.name for item in fields(TRANSFORMS.get(other).Params) if other != name}
    properties = TypeAdapter(transform.Params).json_schema().get("properties", {})
    assert not set(properties) & taken
    assert all(item["description"] for item in properties.values())
