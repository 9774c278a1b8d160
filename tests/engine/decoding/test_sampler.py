"""From logits to candidates: against float64, plain Python, and recorded distributions of SDAR."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from engine.columns import MAX_LISTED_TOKENS
from engine.decoding.filtering import filter_top_k_top_p
from engine.decoding.sampler import (
    Drawing,
    Proposal,
    defer,
    draw,
    propose,
    rank_tokens,
)
from engine.decoding.vocabulary import Vocabulary
from engine.parallel import Ranks
from tests.helpers.ranks import tensor_ranks

MASK = 5
LOGITS = st.lists(st.integers(-4, 4).map(lambda value: value / 2), min_size=6, max_size=12)


def normal(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def whole(logits: Tensor) -> Vocabulary:
    return Vocabulary(logits.shape[1])


def drawn(logits: Tensor, mask_token_id: int, settings: Drawing) -> Proposal:
    vocabulary = whole(logits)
    everywhere = torch.arange(len(logits))
    proposal = propose(logits, vocabulary, mask_token_id)
    return draw(logits, vocabulary, mask_token_id, settings, proposal, everywhere, everywhere)


def drawing(count: int, **changes: float) -> Drawing:
    """The same settings for ``count`` positions; the position is the index."""
    values: dict[str, float] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "seed": 7, "step": 0, "noise": 1}
    values |= {"sampled_confidence": 0} | changes
    floats = ("temperature", "top_p")
    columns = {
        f"{name}_M": torch.full((count,), value, dtype=torch.float32 if name in floats else torch.int64)
        for name, value in values.items()
        if name != "position"
    }
    position = torch.arange(count) if "position" not in changes else torch.full((count,), int(changes["position"]))
    filtered = torch.arange(count) if values["top_k"] or values["top_p"] < 1 else None
    return Drawing(**columns, position_M=position, filtered=filtered)


def kept_by(logits: list[float], top_k: int, top_p: float) -> set[int]:
    """Plain definition: ties at the k-th value stay; the token that crosses top_p stays, and so does the first."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    if top_k:
        order = [i for i in order if logits[i] >= logits[order[min(top_k, len(order)) - 1]]]
    total = sum(math.exp(logits[i]) for i in order)
    kept: set[int] = set()
    before = 0.0
    for i in order:
        if top_p < 1 and kept and before > top_p:
            break
        kept.add(i)
        before += math.exp(logits[i]) / total
    return kept


def test_argmax_and_confidence_equal_a_float64_softmax() -> None:
    logits = normal(200, 50)
    proposal = propose(logits, whole(logits), MASK, torch.arange(200))

    probabilities = logits.double().softmax(dim=1)
    without_mask = probabilities.clone()
    without_mask[:, MASK] = -1
    assert torch.equal(proposal.tokens_M, without_mask.argmax(dim=1))
    expected = probabilities.gather(1, proposal.tokens_M[:, None])[:, 0]
    torch.testing.assert_close(proposal.confidence_M.double(), expected, atol=1e-6, rtol=1e-5)
    entropy = -(probabilities * probabilities.log()).sum(dim=1)
    torch.testing.assert_close(proposal.entropy_M.double(), entropy, atol=1e-5, rtol=1e-5)


def test_the_mask_is_never_proposed_but_its_mass_stays_in_the_denominator() -> None:
    logits = torch.zeros(1, 8)
    logits[0, MASK], logits[0, 2] = 10.0, 1.0
    for proposal in (propose(logits, whole(logits), MASK, None), drawn(logits, MASK, drawing(1, temperature=0.01))):
        assert proposal.tokens_M.tolist() == [2]
        share = math.exp(1) / (math.exp(10) + math.exp(1) + 6)
        assert proposal.confidence_M.item() == pytest.approx(share, rel=1e-5)


def test_ties_go_to_the_smaller_token_and_the_logits_stay_unchanged() -> None:
    logits = torch.zeros(3, 8)
    logits[:, [3, 6]] = 2.0
    before = logits.clone()
    assert propose(logits, whole(logits), MASK, None).tokens_M.tolist() == [3, 3, 3]
    assert drawn(logits, MASK, drawing(3, noise=0)).tokens_M.tolist() == [3, 3, 3]
    assert torch.equal(logits, before)


def test_entropy_is_infinite_where_it_was_not_asked_for() -> None:
    entropy = propose(normal(4, 9), Vocabulary(9), MASK, torch.tensor([2])).entropy_M
    assert torch.isfinite(entropy).tolist() == [False, False, True, False]


@given(LOGITS, st.integers(0, 14), st.sampled_from([0.0, 0.1, 0.35, 0.5, 0.77, 0.99, 1.0]))
def test_top_k_then_top_p_keep_what_the_definition_keeps(logits: list[float], top_k: int, top_p: float) -> None:
    filtered = filter_top_k_top_p(
        torch.tensor([logits]), Vocabulary(len(logits)), torch.tensor([top_k]), torch.tensor([top_p])
    )[0]

    assert set(torch.isfinite(filtered).nonzero().flatten().tolist()) == kept_by(logits, top_k, top_p)
    assert all(value in (original, -math.inf) for value, original in zip(filtered.tolist(), logits, strict=True))


@pytest.mark.parametrize("top_p", [0.0, 1e-9])
def test_the_first_token_always_stays(top_p: float) -> None:
    filtered = filter_top_k_top_p(
        torch.tensor([[0.5, 3.0, 1.0]]), Vocabulary(3), torch.tensor([0]), torch.tensor([top_p])
    )
    assert torch.isfinite(filtered)[0].tolist() == [False, True, False]


def test_temperature_0_takes_the_argmax_of_the_unchanged_logits() -> None:
    logits = normal(50, 20)
    greedy, plain = drawn(logits, MASK, drawing(50, temperature=0.0)), propose(logits, whole(logits), MASK, None)
    assert torch.equal(greedy.tokens_M, plain.tokens_M)
    torch.testing.assert_close(greedy.confidence_M, plain.confidence_M)


@pytest.mark.parametrize("temperature", [1e-3, 1e-20, 1e-38, 1e-44])
def test_a_tiny_temperature_is_the_argmax(temperature: float) -> None:
    logits = normal(40, 30, scale=20.0)
    proposal = drawn(logits, MASK, drawing(40, temperature=temperature, sampled_confidence=1))
    assert torch.equal(proposal.tokens_M, propose(logits, whole(logits), MASK, None).tokens_M)
    assert torch.isfinite(proposal.confidence_M).all()
    assert not torch.isnan(proposal.entropy_M).any()


def test_a_draw_depends_on_seed_step_and_position_but_on_no_neighbour() -> None:
    logits = normal(1, 40, scale=0.5).repeat(64, 1)
    together = drawn(logits, MASK, drawing(64)).tokens_M
    for position in (0, 9, 63):
        alone = drawn(logits[:1], MASK, drawing(1, position=position))
        assert alone.tokens_M.item() == together[position].item()
    for changed in (drawing(64, seed=8), drawing(64, step=1)):
        assert not torch.equal(drawn(logits, MASK, changed).tokens_M, together)
    assert len(set(together.tolist())) > 10


def test_draws_follow_the_tempered_distribution() -> None:
    """Chi-square over 20,000 fixed draws; the bound is the 99.9 % quantile for 6 degrees of freedom."""
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, 0.5, 3.0, -0.5, 1.5])
    count = 20_000
    tokens = drawn(logits.repeat(count, 1), MASK, drawing(count, temperature=1.5)).tokens_M
    scaled = (logits.double() / 1.5).exp()
    scaled[MASK] = 0
    expected = scaled / scaled.sum() * count
    observed = torch.bincount(tokens, minlength=8).double()

    assert observed[MASK] == 0
    others = [i for i in range(8) if i != MASK]
    assert ((observed - expected)[others] ** 2 / expected[others]).sum() < 22.46


def test_top_k_and_top_p_confine_the_draws() -> None:
    logits = normal(1, 40, scale=1.0).repeat(3000, 1)
    allowed = logits[0].clone()
    allowed[MASK] = -torch.inf
    tokens = drawn(logits, MASK, drawing(3000, top_k=12, top_p=0.6)).tokens_M
    assert set(tokens.tolist()) == kept_by(allowed.tolist(), 12, 0.6)


def test_rows_with_different_settings_do_not_disturb_each_other() -> None:
    logits = normal(4, 40, scale=1.0)
    settings: list[dict[str, float]] = [
        {"temperature": 0.0},
        {"temperature": 2.0},
        {"top_k": 3},
        {"top_p": 0.3, "sampled_confidence": 1},
    ]
    separate = [drawn(logits[i : i + 1], MASK, drawing(1, position=i, **one)) for i, one in enumerate(settings)]
    parts = [drawing(1, position=i, **one) for i, one in enumerate(settings)]
    names = [name for name in Drawing.__slots__ if name != "filtered"]
    mixed = Drawing(*(torch.cat([getattr(part, name) for part in parts]) for name in names), torch.tensor([2, 3]))
    together = drawn(logits, MASK, mixed)
    for name in Proposal.__slots__:
        assert torch.equal(getattr(together, name), torch.cat([getattr(part, name) for part in separate])), name


def test_confidence_is_the_models_or_that_of_the_filtered_distribution() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0, -9.0]])
    model = drawn(logits, MASK, drawing(1, temperature=0.5, top_k=2, noise=0))
    sampled = drawn(logits, MASK, drawing(1, temperature=0.5, top_k=2, noise=0, sampled_confidence=1))
    assert model.tokens_M.tolist() == sampled.tokens_M.tolist() == [0]
    assert model.confidence_M.item() == pytest.approx(logits.softmax(1)[0, 0].item())
    assert sampled.confidence_M.item() == pytest.approx(1 / (1 + math.exp(-2)))


def test_recorded_distributions_of_sdar(sampling_recording: Path) -> None:
    tensors = load_file(sampling_recording.with_suffix(".safetensors"))
    logits = tensors["logits"]
    count, no_mask = logits.shape
    padded = torch.cat((logits, torch.full((count, 1), -torch.inf)), dim=1)
    entries = json.loads(sampling_recording.read_text())["params"]
    assert len(entries) == 12
    for entry in entries:
        i, given = entry["i"], {name: entry[name] for name in ("temperature", "top_k", "top_p")}
        settings = drawing(count, noise=0, sampled_confidence=1, **given)
        kept = filter_top_k_top_p(logits / entry["temperature"], whole(logits), settings.top_k_M, settings.top_p_M)
        torch.testing.assert_close(kept.softmax(dim=1), tensors[f"probs_{i}"], atol=1e-6, rtol=1e-4)
        assert torch.isfinite(kept).sum(dim=1).tolist() == entry["kept"]
        proposal = drawn(padded, no_mask, settings)
        assert proposal.tokens_M.tolist() == tensors[f"token_{i}"].tolist()
        torch.testing.assert_close(proposal.confidence_M, tensors[f"conf_generate_{i}"], atol=1e-6, rtol=1e-4)
        unfiltered = drawn(
            padded, no_mask, drawing(count, noise=0, sampled_confidence=1, temperature=given["temperature"])
        )
        torch.testing.assert_close(unfiltered.confidence_M, tensors[f"conf_eval_{i}"], atol=1e-6, rtol=1e-4)


def listed(*ids: int) -> Tensor:
    return torch.tensor([list(ids) + [-1] * (MAX_LISTED_TOKENS - len(ids))])


def test_listed_tokens_are_masked_per_row_and_the_input_stays() -> None:
    logits = normal(2, 6)
    before = logits.clone()
    masked = whole(logits).without_listed(logits, torch.cat((listed(0, 5), listed())))
    assert torch.isinf(masked).nonzero().tolist() == [[0, 0], [0, 5]]
    assert torch.equal(logits, before)
    assert torch.equal(masked[1], logits[1])


def test_a_deferred_token_has_confidence_0_and_leaves_the_denominator_of_others() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    proposal = propose(logits, whole(logits), mask_token_id=1)
    assert proposal.tokens_M.tolist() == [0, 2, 2]

    deferred = defer(logits, whole(logits), proposal, torch.cat((listed(2), listed(2), listed())))

    assert deferred.tokens_M.tolist() == [0, 2, 2]
    expected = math.exp(2) / (math.exp(2) + math.exp(1))
    assert deferred.confidence_M.tolist() == pytest.approx([expected, 0.0, proposal.confidence_M[2].item()])


def test_ranked_tokens_are_in_order_without_the_mask_and_ties_go_to_the_smaller_id() -> None:
    logits = torch.tensor([[0.0, 9.0, -2.0, 0.5, -0.0, -2.5], [1.0, 1.0, 1.0, -torch.inf, 1.0, 2.0]])
    assert rank_tokens(logits, whole(logits), 1, 4).tolist() == [[3, 0, 4, 2], [5, 0, 2, 4]]
    assert rank_tokens(logits, whole(logits), 1, 99).tolist() == [[3, 0, 4, 2, 5], [5, 0, 2, 4, 3]]
    many = (torch.randn(30, 500, generator=torch.Generator().manual_seed(0)) * 4).round() / 4
    many[:, 7] = -torch.inf
    assert torch.equal(
        rank_tokens(many, whole(many), 7, 40), many.sort(dim=1, descending=True, stable=True).indices[:, :40]
    )


def proposal_of_ranks(count: int, work: Callable[[Vocabulary, Tensor], Proposal], logits: Tensor) -> Proposal:
    """What all of ``count`` ranks propose, each from its columns."""

    def run(ranks: Ranks) -> Proposal:
        vocabulary = Vocabulary(logits.shape[1], ranks.tensor)
        return work(vocabulary, logits[:, vocabulary.start : vocabulary.end].clone())

    first, *others = tensor_ranks(count, run)
    for name in Proposal.__slots__:
        assert all(torch.equal(getattr(other, name), getattr(first, name)) for other in others), name
    return first


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("mask", [0, 5, 40])
def test_ranks_propose_draw_defer_and_rank_what_one_rank_does(count: int, mask: int) -> None:
    logits = normal(48, 41)
    logits[::4] = logits[::4].round()
    settings = drawing(48, temperature=0.9)
    settings.temperature_M[::6] = 0.0
    settings.top_k_M[1::3] = 7
    settings.top_p_M[2::3] = 0.7
    settings.sampled_confidence_M[::2] = 1
    settings = replace(settings, filtered=torch.arange(48)[torch.arange(48) % 3 > 0])
    deferred = listed(3, 30).repeat(48, 1)
    deferred[::2] = -1

    def work(vocabulary: Vocabulary, own: Tensor) -> Proposal:
        proposal = propose(own, vocabulary, mask, torch.arange(0, 48, 2), torch.arange(5))
        assert proposal.ranked_MK.shape == (48, 0)
        proposal = replace(proposal, ranked_MK=rank_tokens(own, vocabulary, mask, 17))
        return defer(
            own,
            vocabulary,
            draw(own, vocabulary, mask, settings, proposal, torch.arange(9), torch.arange(48)),
            deferred,
        )

    expected, found = work(whole(logits), logits.clone()), proposal_of_ranks(count, work, logits)
    for name in ("tokens_M", "ranked_MK"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    for name in ("confidence_M", "probability_M", "entropy_M", "margin_M"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-6, rtol=1e-5)
    assert not (found.tokens_M == mask).any()


def test_ranks_rank_all_of_a_small_vocabulary() -> None:
    logits = normal(6, 7).round()

    def work(vocabulary: Vocabulary, own: Tensor) -> Proposal:
        return replace(propose(own, vocabulary, 6), ranked_MK=rank_tokens(own, vocabulary, 6, 99))

    found = proposal_of_ranks(3, work, logits).ranked_MK
    assert torch.equal(found, rank_tokens(logits, whole(logits), 6, 99))
    assert found.shape == (6, 6)


def test_a_greedy_step_exchanges_three_numbers_per_position_and_a_draw_eight_more() -> None:
    logits = normal(6, 40)

    def sizes(ranks: Ranks) -> list[int]:
        vocabulary = Vocabulary(40, ranks.tensor)
        own = logits[:, vocabulary.start : vocabulary.end].clone()
        proposal = propose(own, vocabulary, MASK)
        draw(own, vocabulary, MASK, drawing(6), proposal)
        return ranks.tensor.sizes  # type: ignore[attr-defined,no-any-return]

    assert tensor_ranks(2, sizes) == [[3 * 6, *[2 * 6] * 4]] * 2
