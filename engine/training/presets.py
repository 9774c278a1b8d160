"""Named recipes of the embedded checkpoints' networks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Literal

from engine.training.job import Share, Stage
from engine.training.noise import Blocks, Canvas, NextToken

AUTOREGRESSIVE = Blocks(1)
AUTOREGRESSIVE_AFTER_PROMPT = Blocks(1, prompt_is_block=True)
BLOCKS_AFTER_PROMPT = Blocks(8, prompt_is_block=True)


@dataclass(frozen=True, slots=True)
class ExpertShape:
    """Experts of each layer, how many of them a token is sent to, and the width of each."""

    number: int
    per_token: int
    width: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """Shape of a network and how it is trained. ``initial`` names the embedded checkpoint it starts from.

    ``block_length`` is the default of the checkpoint, and that of the validations. ``experts`` take the place of the
    dense feed-forward networks, whose ``intermediate_size`` then has no meaning.
    """

    family: Literal["llada", "llada-moe", "sdar", "qwen3"]
    stages: tuple[Stage, ...]
    block_length: int
    initial: str | None = None
    experts: ExpertShape | None = None
    hidden_size: int = 256
    intermediate_size: int = 352
    num_layers: int = 5
    num_heads: int = 8
    vocab_size: int = 1152
    tokenizer_samples: int = 40_000
    max_length: int = 512
    tokens_per_step: int = 4608
    muon_rate: float = 0.02
    adam_rate: float = 0.004
    warmup_steps: int = 50
    decay_from: float = 0.55
    steps: int = 3600


def describe(recipe: Recipe) -> dict[str, object]:
    """The recipe as JSON values; objectives as they are written in code."""
    stages = [
        {
            "until": stage.until,
            "rate": stage.rate,
            "mixture": {repr(share.objective): share.weight for share in stage.mixture},
        }
        for stage in recipe.stages
    ]
    plain = {field.name: getattr(recipe, field.name) for field in fields(recipe) if field.name != "stages"}
    experts = None if recipe.experts is None else asdict(recipe.experts)
    return plain | {"experts": experts, "stages": stages}


CANVASES = Stage(
    1.0,
    (
        Share(AUTOREGRESSIVE_AFTER_PROMPT, 0.05),
        Share(BLOCKS_AFTER_PROMPT, 0.15),
        Share(Canvas(8), 0.45),
        Share(Canvas(32), 0.2),
        Share(Canvas(None), 0.15),
    ),
    0.6,
)
"""What turns a block-causal network into one without a mask, and keeps what it knows."""


RECIPES: dict[str, Recipe] = {
    "tiny-ar": Recipe(family="qwen3", block_length=1, steps=3000, stages=(Stage(1.0, (Share(NextToken()),)),)),
    "tiny-sdar": Recipe(
        family="sdar",
        block_length=4,
        stages=(
            Stage(0.3, (Share(AUTOREGRESSIVE, 1.0),)),
            Stage(0.4, (Share(AUTOREGRESSIVE, 0.5), Share(Blocks(4), 0.5)), 0.8),
            Stage(1.0, (Share(AUTOREGRESSIVE, 0.15), Share(Blocks(4), 0.5), Share(Blocks(8), 0.35)), 0.7),
        ),
    ),
    "tiny-llada": Recipe(
        family="llada",
        block_length=8,
        initial="lacuna-tiny-sdar",
        stages=(CANVASES,),
        decay_from=0.15,
        steps=800,
    ),
    "tiny-llada-moe": Recipe(
        family="llada-moe",
        block_length=8,
        initial="lacuna-tiny-ar",
        experts=ExpertShape(number=8, per_token=4, width=48),
        stages=(CANVASES,),
        decay_from=0.15,
        steps=800,
    ),
}
