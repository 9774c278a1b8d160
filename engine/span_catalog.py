"""The engine's spans and their attributes: the documentation is made from this, and tests hold the code to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_WORK = {
    "lacuna.forwards": "passes of the network in which it took part",
    "lacuna.denoising_steps": "those that decided positions of it",
    "lacuna.positions_computed": "positions fed to the network for it",
    "lacuna.tokens": "tokens of the completion that became final",
    "lacuna.tokens_per_forward": "tokens / forwards (TPF)",
}
_FAILED = {"error.type": "class of the error, where there was one"}


@dataclass(frozen=True, slots=True)
class SpanSpec:
    """A kind of span: its name, the part of the system that makes it, what it covers, and its attributes by name."""

    name: str
    component: str
    covers: str
    attributes: Mapping[str, str]


ENGINE_SPANS = (
    SpanSpec(
        "lacuna.sequence",
        "engine",
        "a sequence in the engine, from its arrival to its end",
        {
            "lacuna.request_id": "the sequence's id",
            "lacuna.prompt_tokens": "tokens of the prompt",
            "lacuna.max_tokens": "positions of the completion",
            "lacuna.given_tokens": "tokens that another replica had decided (replay)",
            "lacuna.strategy.decoder": "decoder",
            "lacuna.strategy.cache": "cache policy",
            "lacuna.strategy.preset": "named strategy with version, empty without one",
            "lacuna.block_length": "positions of a block",
            "lacuna.blocks": "blocks that were decided",
            "lacuna.finish_reason": "stop, length or abort",
            **_WORK,
            **_FAILED,
        },
    ),
    SpanSpec("lacuna.queue", "engine", "waiting for a slot of the engine", {}),
    SpanSpec(
        "lacuna.prefill",
        "engine",
        "from the slot to the end of the first forward that decides positions, which counts for the first block too",
        _WORK,
    ),
    SpanSpec(
        "lacuna.block",
        "engine",
        "one block, from its first denoising step to its last",
        {
            "lacuna.block.index": "number of the block in this attempt, from 0",
            "lacuna.block.start": "first position of the block in the canvas",
            "lacuna.block.end": "position behind its last",
            "lacuna.batch_size": "sequences that ran when it ended",
            "lacuna.ranks": "processes that compute together",
            **_WORK,
        },
    ),
    SpanSpec(
        "lacuna.forward",
        "engine",
        "the first forward of a block (of one, where several begin with it), on each rank",
        {
            "lacuna.rank": "which rank, 0 leads",
            "lacuna.rows": "rows of the forward, all sequences together",
            "lacuna.positions_computed": "positions fed to the network, all sequences together",
            **_FAILED,
        },
    ),
)
