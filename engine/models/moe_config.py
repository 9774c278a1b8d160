"""Fields of ``config.json`` about experts, read alike by all families that have them."""

from __future__ import annotations

from engine.errors import CheckpointError
from engine.models.json_fields import JsonFields


def experts_per_token(config: JsonFields, num_experts: int) -> int:
    """``num_experts_per_tok``, at most the experts that there are."""
    chosen = config.integer("num_experts_per_tok")
    if chosen > num_experts:
        message = f"{config.file}: num_experts_per_tok {chosen} exceeds num_experts {num_experts}"
        raise CheckpointError(message, "num_experts_per_tok")
    return chosen
