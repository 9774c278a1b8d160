"""deployments/events.py: applying the events gives the canvas back, whatever decoders do."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.events import CanvasEvent, CommitEvent, EditEvent, EventDiffer, LengthEvent
from engine.outputs import CanvasStep, RequestOutput, Usage

MASK = 9
LIMIT = 6
CELLS = st.lists(st.integers(0, MASK), min_size=LIMIT, max_size=8)


def probabilities(cells: Sequence[int]) -> tuple[float, ...]:
    return tuple(math.nan if cell == MASK else cell / 10 for cell in cells)


def output(step: int, cells: list[int], token_ids: tuple[int, ...] = ()) -> RequestOutput:
    return RequestOutput(
        request_id="r",
        text="".join(map(str, token_ids)),
        token_ids=token_ids,
        logprobs=(-1.0,) * len(token_ids),
        usage=Usage(denoising_steps=step),
        canvas=CanvasStep(token_ids=tuple(cells), revealed_at=(0,) * len(cells), probabilities=probabilities(cells)),
    )


@given(st.lists(CELLS, min_size=1, max_size=6))
@settings(max_examples=200, deadline=None)
def test_a_client_that_applies_the_events_holds_the_canvas(canvases: list[list[int]]) -> None:
    differ = EventDiffer(str, MASK, LIMIT)
    held: list[int] = []
    for step, cells in enumerate(canvases, 1):
        for event in differ.events(output(step, cells)):
            if isinstance(event, LengthEvent):
                held += [MASK] * (event.length - len(held))
                continue
            assert not isinstance(event, CommitEvent)
            assert event.step == step
            if isinstance(event, CanvasEvent):
                assert all(held[place] == MASK for place in event.positions), "only masks are filled"
                assert event.texts == tuple(map(str, event.token_ids))
                assert event.probabilities == probabilities(event.token_ids)
                for place, token in zip(event.positions, event.token_ids, strict=True):
                    held[place] = token
            else:
                assert isinstance(event, EditEvent)
                assert held[event.position] == event.old_id != event.new_id
                assert event.new_text == ("" if event.new_id is None else str(event.new_id))
                assert math.isnan(event.probability) if event.new_id is None else event.probability == event.new_id / 10
                held[event.position] = MASK if event.new_id is None else event.new_id
        assert held == cells[:LIMIT], "a block may reach beyond the completion, the client's canvas does not"


def test_commits_are_adjacent_ranges_with_the_plain_text() -> None:
    differ = EventDiffer(str, MASK, LIMIT)
    first = differ.events(output(1, [1, 2, MASK, MASK, 5, MASK], (1, 2)))
    assert [type(event) for event in first] == [LengthEvent, CanvasEvent, CommitEvent]
    last = differ.events(output(2, [1, 2, 3, MASK, 5, MASK], (3,)))
    assert last[-1] == CommitEvent(step=2, start=2, end=3, token_ids=(3,), text="3", logprobs=(-1.0,))
    assert differ.events(output(3, [1, 2, 3, MASK, 5, MASK])) == ()


def test_after_a_replay_commits_go_on_where_they_were() -> None:
    differ = EventDiffer(str, MASK, LIMIT, committed=2)
    commit = differ.events(output(1, [1, 2, 3, MASK, MASK, MASK], (3,)))[-1]
    assert isinstance(commit, CommitEvent)
    assert (commit.start, commit.end) == (2, 3)
