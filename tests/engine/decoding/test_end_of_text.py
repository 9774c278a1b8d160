from __future__ import annotations

import pytest
import torch

from engine.decoding.end_of_text import end_confidence, expected_ends
from engine.decoding.vocabulary import Vocabulary

EOS_IDS = torch.tensor([1, 3])


def test_any_end_of_text_id_may_be_the_most_probable() -> None:
    logits = torch.tensor([[0.0, 5.0, 0.0, 0.0], [5.0, 0.0, 0.0, 4.0], [0.0, 0.0, 0.0, 9.0]])
    expected, probability = expected_ends(logits, Vocabulary(4), EOS_IDS)
    assert expected.tolist() == [True, False, True]
    torch.testing.assert_close(probability, logits.softmax(dim=1)[:, EOS_IDS].sum(dim=1))


@pytest.mark.parametrize(("window", "confidence"), [(1, 0.5), (2, 0.65), (3, 2.2 / 3), (4, 0.55), (8, 0.275)])
def test_the_last_expected_ends_count_wherever_they_are(window: int, confidence: float) -> None:
    expected = torch.tensor([[True, False, True, True, False]])
    probability = torch.tensor([[0.9, 0.7, 0.8, 0.5, 0.4]])
    measured = end_confidence(expected, probability, torch.tensor([window]))
    assert measured.tolist() == pytest.approx([confidence])


def test_padding_and_neighbours_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand(3, 50, generator=generator)
    expected = torch.rand(3, 50, generator=generator) < 0.5
    window = torch.tensor([8, 32, 4])
    together = end_confidence(expected, probability, window)
    for row in range(3):
        padded = torch.nn.functional.pad(probability[row : row + 1], (0, 30)), torch.zeros(1, 80, dtype=torch.bool)
        padded[1][0, :50] = expected[row]
        alone = end_confidence(padded[1], padded[0], window[row : row + 1])
        assert alone.tolist() == together[row : row + 1].tolist()
