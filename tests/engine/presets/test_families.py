"""Which presets a checkpoint gets, by architecture and name."""

from __future__ import annotations

import pytest

from engine.models.registry import FAMILIES, model_family
from engine.presets.families import PRESET_FAMILIES, preset_family


@pytest.mark.parametrize(
    ("architecture", "checkpoint", "family"),
    [
        ("LLaDAModelLM", "LLaDA-8B-Instruct", "llada"),
        ("LLaDAModelLM", "lacuna-tiny-llada", "lacuna-tiny-llada"),
        ("LLaDAMoEModelLM", "lacuna-tiny-llada-moe", "lacuna-tiny-llada"),
        ("LLaDAMoEModelLM", "lacuna-tiny-llada-moe-td", "lacuna-tiny-llada-moe-td"),
        ("LLaDAMoEModelLM", "LLaDA-MoE-7B-A1B-Instruct", "llada-moe"),
        ("LLaDAMoEModelLM", "models--inclusionAI--LLaDA-MoE-7B-A1B-Instruct-TD", "llada-moe-td"),
        ("LLaDA2MoeModelLM", "LLaDA2.0-mini", "llada2"),
        ("LLaDA2MoeModelLM", "LLaDA2.1-flash", "llada2.1"),
        ("LLaDA2MoeModelLM", "LLaDA2.2-flash", "llada2.2"),
        ("DreamModel", "DiffuCoder-7B-Instruct", "dream"),
        ("SDARForCausalLM", "SDAR-4B-Chat-b16", "sdar"),
        ("SDARForCausalLM", "lacuna-tiny-sdar", "lacuna-tiny-sdar"),
        ("SDARForCausalLM", "lacuna-tiny-sdar-b8", "lacuna-tiny-sdar-b8"),
        ("SDARMoeForCausalLM", "SDAR-30B-A3B-Chat", "sdar"),
        ("OtherModel", "LLaDA-8B", ""),
    ],
)
def test_the_name_tells_what_the_architecture_does_not(architecture: str, checkpoint: str, family: str) -> None:
    assert preset_family(architecture, checkpoint) == family


def test_every_architecture_has_presets_of_its_attention_pattern() -> None:
    for architecture in FAMILIES:
        families = [family for family in PRESET_FAMILIES if architecture in family.architectures]
        assert families, architecture
        assert {family.attention for family in families} == {model_family(architecture).attention}
        assert families[-1].pattern == "", f"{architecture}: the last family takes any name"
