"""deployments/openai_api/responses.py: what JSON cannot hold."""

from __future__ import annotations

import math

from deployments.events import CanvasEvent, EditEvent
from deployments.openai_api.responses import event_object


def test_a_probability_that_is_not_known_is_null() -> None:
    canvas = CanvasEvent(step=1, positions=(0, 1), token_ids=(4, 5), texts=("a", "b"), probabilities=(0.25, math.nan))
    assert event_object(canvas)["probabilities"] == [0.25, None]
    masked = EditEvent(step=2, position=0, old_id=4, old_text="a", new_id=None, new_text="", probability=math.nan)
    assert event_object(masked) == {
        "type": "edit",
        "step": 2,
        "position": 0,
        "old_id": 4,
        "old_text": "a",
        "new_id": None,
        "new_text": "",
        "probability": None,
    }
