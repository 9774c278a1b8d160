"""The token grid: what is written where, and where nothing is."""

from __future__ import annotations

import torch

from engine.canvas import Canvas

MASK = 9


def make() -> Canvas:
    return Canvas(3, 6, MASK, torch.device("cpu"))


def test_admission_lays_out_a_canvas_over_the_old_one() -> None:
    canvas = make()
    canvas.admit(1, torch.tensor([1, 2, 3, MASK, MASK, MASK]))
    canvas.admit(1, torch.tensor([5, MASK, MASK]))
    assert canvas.tokens[1, :3].tolist() == [5, MASK, MASK]
    assert (canvas.tokens[[0, 2]] == MASK).all()


def test_apply_writes_where_transferred_and_nowhere_else() -> None:
    canvas = make()
    before = canvas.tokens.clone()
    canvas.apply(
        torch.tensor([2, 0]),
        torch.tensor([[3, 4, 5], [0, 1, 2]]),
        torch.tensor([[True, False, True], [False, True, False]]),
        torch.tensor([[11, 12, 13], [14, 15, 16]]),
    )
    after = before.clone()
    after[2, 3], after[2, 5], after[0, 1] = 11, 13, 15
    assert torch.equal(canvas.tokens[:, :6], after[:, :6])


def test_positions_behind_the_canvas_may_be_left_out() -> None:
    """A block that is narrower than the widest of the forward reaches beyond the canvas."""
    canvas = make()
    canvas.apply(
        torch.tensor([0]), torch.tensor([[5, 6, 7]]), torch.tensor([[True, False, False]]), torch.tensor([[1, 2, 3]])
    )
    assert canvas.tokens[0, :6].tolist() == [MASK] * 5 + [1]
    assert (canvas.tokens[1:, :6] == MASK).all()


def test_whole_canvases_come_without_what_was_left_out() -> None:
    canvas = make()
    canvas.apply(torch.tensor([1]), torch.tensor([[0, 1]]), torch.tensor([[True, False]]), torch.tensor([[3, 4]]))
    assert canvas.rows(torch.tensor([1, 0])).tolist() == [[3, *[MASK] * 5], [MASK] * 6]


def test_gather_broadcasts_slots_against_positions() -> None:
    canvas = make()
    canvas.admit(0, torch.arange(6))
    assert canvas.gather(torch.tensor([[0], [1]]), torch.tensor([[1, 2]])).tolist() == [[1, 2], [MASK, MASK]]


def test_a_splice_moves_what_stands_behind_and_knows_what_is_given() -> None:
    canvas = make()
    canvas.admit(1, torch.tensor([1, 2, MASK, 4]))
    canvas.splice(1, 2, 1, torch.tensor([MASK, MASK, 7]))
    assert canvas.tokens[1].tolist() == [1, 2, MASK, MASK, 7, 4, MASK]
    assert canvas.given[1].tolist() == [True, True, False, False, True, True, False]
    assert (canvas.tokens[[0, 2]] == MASK).all()


def test_the_digest_tells_tokens_places_and_slots_apart() -> None:
    canvas, other = make(), make()
    for one in (canvas, other):
        one.admit(0, torch.tensor([1, 2, 3]))
        one.admit(2, torch.tensor([1, 2, 3]))
    assert torch.equal(canvas.digest(), other.digest())
    assert canvas.digest()[0] == canvas.digest()[2] != canvas.digest()[1]
    for tokens in ([2, 1, 3], [1, 2], [1, 2, 3, 0], [MASK, 1, 2, 3]):
        other.admit(2, torch.tensor(tokens))
        assert (canvas.digest() == other.digest()).tolist() == [True, True, False], tokens
