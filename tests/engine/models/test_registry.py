"""The table of architectures: every line works, anything else is refused by name."""

from __future__ import annotations

import pytest
import torch

from engine.errors import CheckpointError, UnsupportedModelError
from engine.models.json_fields import JsonFields
from engine.models.registry import FAMILIES, model_family, read_architecture
from engine.models.spec import DiffusionLM


@pytest.mark.parametrize("architecture", FAMILIES)
def test_every_line_leads_to_a_network(architecture: str) -> None:
    family = model_family(architecture)

    assert issubclass(family.model_class(), DiffusionLM)
    assert family.attention in ("bidirectional", "block_causal")
    assert family.block_length >= 1


@pytest.mark.parametrize("architecture", ["Qwen3ForCausalLM", "", "LLaDAMoEModel"])
def test_unknown_architectures_are_refused_by_name(architecture: str) -> None:
    with pytest.raises(UnsupportedModelError, match="SDARForCausalLM") as caught:
        model_family(architecture)

    assert repr(architecture) in caught.value.message
    assert caught.value.param == "architectures"


@pytest.mark.parametrize("value", [None, [], ["A", "B"], "LLaDAModelLM", [1]])
def test_architectures_must_hold_one_name(value: object) -> None:
    with pytest.raises(CheckpointError, match="architectures"):
        read_architecture(JsonFields("config.json", {"architectures": value}))


def test_looking_up_a_family_moves_no_default_device() -> None:
    model_family("LLaDAModelLM").model_class()

    assert torch.get_default_device() == torch.device("cpu")
