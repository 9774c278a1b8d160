"""Compressed transitions: the states of a decoding rebuilt, and what is learned from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.llm_engine import LLMEngine
from engine.sampling_params import SamplingParams
from engine.sequence import GenerationRequest
from engine.training.data import EncodedSample
from engine.training.noise import Row
from engine.training.transitions import BlockTransition, CanvasTransition, Compress

MASK, END = 1, 0
EMBEDDED = Path(__file__).parents[3] / "engine" / "checkpoints"
PROMPT = "Tom has 4 apples and buys 5 more. How many apples does Tom have?"


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@st.composite
def decoded(draw: st.DrawFn) -> EncodedSample:
    """A canvas that was filled in some order, undecided here and there behind the answer."""
    prompt = list(range(100, 100 + draw(st.integers(1, 9))))
    answer_len, rest = draw(st.integers(1, 12)), draw(st.integers(0, 9))
    steps = draw(st.lists(st.integers(1, 7), min_size=answer_len, max_size=answer_len))
    steps += draw(st.lists(st.integers(0, 7), min_size=rest, max_size=rest))
    tokens = [*range(200, 200 + answer_len - 1), END, *[END] * rest]
    canvas = tuple(token if step else MASK for token, step in zip(tokens, steps, strict=True))
    return EncodedSample(prompt, list(canvas[:answer_len]), canvas, tuple(steps))


@given(decoded(), st.integers(1, 4), st.integers(0, 3), st.integers(0, 99))
def test_a_canvas_row_is_a_state_and_the_labels_are_what_the_next_rounds_filled(
    sample: EncodedSample, low: int, more: int, seed: int
) -> None:
    row = CanvasTransition(Compress(low, low + more)).row(sample, MASK, END, rng(seed))
    start = len(sample.prompt)
    canvas, revealed_at = np.array(sample.canvas), np.array(sample.revealed_at)
    shown, labelled = row.tokens[start:] != MASK, row.weights[start:] > 0
    assert row.tokens[:start].tolist() == sample.prompt
    assert not row.weights[:start].any()
    assert (row.tokens[start:][shown] == canvas[shown]).all()
    assert (row.targets[start:][labelled] == canvas[labelled]).all()
    assert labelled.any()
    assert not (shown & labelled).any()
    rounds = np.unique(revealed_at[labelled])
    assert low <= len(rounds) <= low + more or rounds[-1] == revealed_at.max()
    assert shown.sum() == ((revealed_at > 0) & (revealed_at < rounds[0])).sum(), "all that came before, nothing else"
    assert labelled.sum() == ((revealed_at >= rounds[0]) & (revealed_at <= rounds[-1])).sum()
    assert (row.weights[start + len(sample.answer) :] <= np.float32(0.1)).all()


@given(decoded(), st.sampled_from([1, 2, 4, 8]), st.integers(0, 99))
def test_every_block_is_in_a_state_of_its_own_behind_the_clean_past(
    sample: EncodedSample, size: int, seed: int
) -> None:
    missing = -(len(sample.prompt) + len(sample.canvas)) % size
    sample = EncodedSample(
        sample.prompt, sample.answer, (*sample.canvas, *[MASK] * missing), (*sample.revealed_at, *[0] * missing)
    )
    row = BlockTransition(size, Compress(1, 3)).row(sample, MASK, END, rng(seed))
    text = np.array(sample.prompt + list(sample.canvas))
    revealed_at = np.array([0] * len(sample.prompt) + list(sample.revealed_at))
    noised, clean = row.noised, ~row.noised
    used = len(sample.prompt) + len(sample.answer)
    assert (row.tokens[clean] == text[row.positions[clean]]).all()
    assert row.positions[clean].tolist() == list(range((used - 1) // size * size))
    assert (row.blocks == row.positions // size).all()
    given_ = row.positions < len(sample.prompt)
    assert (row.tokens[given_] == text[row.positions[given_]]).all()
    for block in np.unique(row.blocks[noised & ~given_]):
        here = noised & ~given_ & (row.blocks == block)
        steps, shown, labelled = revealed_at[row.positions[here]], row.tokens[here] != MASK, row.weights[here] > 0
        if (steps > 0).any():
            first, last = steps[labelled].min(), steps[labelled].max()
            assert (shown == ((steps > 0) & (steps < first))).all()
            assert (labelled == ((steps >= first) & (steps <= last))).all()
        else:
            assert not shown.any()
            assert not labelled.any()


def test_every_state_and_every_length_of_a_jump_is_drawn() -> None:
    revealed_at = np.arange(1, 7)
    drawn = {
        (int(transition.known.sum()), int(transition.labelled.sum()))
        for transition in (Compress(1, 2).draw(revealed_at, rng(seed)) for seed in range(200))
    }
    assert drawn == {(known, min(jump, 6 - known)) for known in range(6) for jump in (1, 2)}


@pytest.mark.parametrize(("low", "high"), [(0, 3), (4, 3)])
def test_a_range_of_rounds_must_grow_from_one(low: int, high: int) -> None:
    with pytest.raises(ConfigError, match="compress"):
        Compress(low, high)


def states_of(row: Row, sample: EncodedSample, size: int | None) -> dict[int, tuple[int, ...]]:
    """What stands on the canvas in a row: as a whole (key 0), or block by block."""
    shown = row.noised if size else np.ones(len(row), dtype=np.bool_)
    answer = shown & (row.positions >= len(sample.prompt))
    keys = row.blocks[answer]
    return {int(key): tuple(row.tokens[answer][keys == key].tolist()) for key in np.unique(keys)}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lacuna-tiny-llada", {"decoder": "threshold", "threshold": 0.7}),
        ("lacuna-tiny-llada", {"decoder": "threshold", "threshold": 0.9, "cache": "none", "block_length": 32}),
        ("lacuna-tiny-sdar", {}),
    ],
)
def test_rows_show_exactly_what_the_engine_had_on_its_canvas(name: str, options: dict[str, object]) -> None:
    engine = LLMEngine.from_pretrained(EMBEDDED / name, EngineConfig(device="cpu", max_num_seqs=1))
    prompt = engine.tokenizer.apply_chat_template([{"role": "user", "content": PROMPT}])
    request = GenerationRequest(
        request_id="one",
        prompt=prompt,
        sampling=SamplingParams(max_tokens=40),
        strategy=engine.strategy(options),
        stream="step",
    )
    engine.add_request(request)
    canvases = []
    while engine.has_unfinished_requests():
        canvases += [output.canvas for output in engine.step() if output.canvas is not None]
    last = canvases[-1]
    end = engine.tokenizer.decode(last.token_ids[:1]) and min(engine.spec.stop_token_ids)
    answer_len = last.token_ids.index(end) + 1
    sample = EncodedSample(list(prompt), list(last.token_ids[:answer_len]), last.token_ids, last.revealed_at)
    mask = engine.spec.mask_token_id
    size = engine.spec.block_length if engine.spec.attention == "block_causal" else None
    objective = BlockTransition(size, Compress(1, 1)) if size else CanvasTransition(Compress(1, 1))

    seen = set()
    empty = (mask,) * len(last.token_ids)
    for canvas in (empty, *(canvas.token_ids for canvas in canvases)):
        text = np.array([*prompt, *canvas])
        blocks = np.arange(len(text)) // size if size else np.zeros(len(text), dtype=np.int64)
        generated = np.arange(len(text)) >= len(prompt)
        seen |= {(int(key), tuple(text[generated & (blocks == key)].tolist())) for key in np.unique(blocks[generated])}
    rebuilt = set()
    for seed in range(120):
        rebuilt |= set(states_of(objective.row(sample, mask, end, rng(seed)), sample, size).items())

    assert rebuilt <= seen
    assert len(rebuilt) >= len(set(last.revealed_at) - {0})
