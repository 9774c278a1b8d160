"""Which presets a checkpoint gets.

Checkpoints of one architecture may want different strategies (a distilled or an editing model has its parent's
``config.json``), so the folder's name speaks too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.cache.policy import AttentionPattern


@dataclass(frozen=True, slots=True)
class PresetFamily:
    """``pattern`` is searched in the checkpoint's name, whatever its case."""

    name: str
    architectures: frozenset[str]
    attention: AttentionPattern
    pattern: str = ""

    def suits(self, architecture: str, checkpoint: str) -> bool:
        return architecture in self.architectures and re.search(self.pattern, checkpoint, re.IGNORECASE) is not None


def _family(name: str, architectures: str, attention: AttentionPattern, pattern: str = "") -> PresetFamily:
    return PresetFamily(name, frozenset(architectures.split()), attention, pattern)


PRESET_FAMILIES = (
    _family("lacuna-tiny-llada-moe-td", "LLaDAMoEModelLM", "bidirectional", "^lacuna-tiny-llada-moe-td"),
    _family("lacuna-tiny-llada", "LLaDAModelLM LLaDAMoEModelLM", "bidirectional", "^lacuna-tiny-llada"),
    _family("lacuna-tiny-sdar-b8", "SDARForCausalLM", "block_causal", "^lacuna-tiny-sdar-b8"),
    _family("lacuna-tiny-sdar", "SDARForCausalLM", "block_causal", "^lacuna-tiny-sdar"),
    _family("llada", "LLaDAModelLM", "bidirectional"),
    _family("llada-moe-td", "LLaDAMoEModelLM", "bidirectional", "-TD$"),
    _family("llada-moe", "LLaDAMoEModelLM", "bidirectional"),
    _family("llada2.2", "LLaDA2MoeModelLM", "block_causal", r"llada-?2\.2"),
    _family("llada2.1", "LLaDA2MoeModelLM", "block_causal", r"llada-?2\.1"),
    _family("llada2", "LLaDA2MoeModelLM", "block_causal"),
    _family("dream", "DreamModel", "bidirectional"),
    _family("sdar", "SDARForCausalLM SDARMoeForCausalLM", "block_causal"),
)
"""In the order in which they are tried."""


def preset_family(architecture: str, checkpoint: str) -> str:
    """Name of the first family that suits; empty where there is none."""
    return next((family.name for family in PRESET_FAMILIES if family.suits(architecture, checkpoint)), "")
