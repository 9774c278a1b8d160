"""Fields of ``config.json`` about experts, read alike by all families that have them."""

from __future__ import annotations

from engine.errors import CheckpointError
from engine.models.json_fields import JsonFields


def num_experts(config: JsonFields) -> int:
    """``num_experts``, or the ``num_local_experts`` that transformers 5 writes instead."""
    renamed = "num_local_experts"
    return config.integer(renamed if config.get("num_experts") is None and config.get(renamed) else "num_experts")


def experts_per_token(config: JsonFields) -> int:
    """``num_experts_per_tok``, at most the experts that there are."""
    chosen, available = config.integer("num_experts_per_tok"), num_experts(config)
    if chosen > available:
        message = f"{config.file}: num_experts_per_tok {chosen} exceeds num_experts {available}"
        raise CheckpointError(message, "num_experts_per_tok")
    return chosen
