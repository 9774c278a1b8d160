from __future__ import annotations

import pytest
import torch

from engine.decoding.transforms.iteration_smoothing import IterationSmoothing
from engine.decoding.vocabulary import Vocabulary

KNOBS = {
    "smoothing_weight": 0.3,
    "smoothing_initial": 0.15,
    "smoothing_growth": 0.02,
    "smoothing_threshold_decay": 0.02,
    "smoothing_temperature": 1.0,
}


def knobs(**changes: float) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([value]) for name, value in (KNOBS | changes).items()}


@pytest.mark.parametrize(("step", "weight"), [(0, 0.15), (5, 0.25), (7, 0.29), (8, 0.3), (100, 0.3)])
def test_the_weight_grows_with_the_steps_of_the_request_up_to_its_limit(step: int, weight: float) -> None:
    mixture = IterationSmoothing().mixture(torch.randn(1, 9), Vocabulary(9), knobs(), torch.tensor([step]))
    assert float(mixture.sum()) == pytest.approx(weight, abs=1e-6)


def test_the_mixture_is_the_tempered_distribution() -> None:
    logits = torch.tensor([[1.0, 3.0, -2.0]])
    mixture = IterationSmoothing().mixture(
        logits.clone(), Vocabulary(3), knobs(smoothing_temperature=2.0), torch.tensor([50])
    )
    torch.testing.assert_close(mixture, 0.3 * (logits / 2).softmax(dim=1))


def test_the_threshold_sinks_from_1() -> None:
    floors = IterationSmoothing().knob_floors(knobs(), torch.tensor([0, 5, 10]))
    torch.testing.assert_close(floors["threshold"], torch.tensor([1.0, 0.9, 0.8]))
