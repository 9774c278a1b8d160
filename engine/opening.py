"""What a request's strategy means for the slot that it begins in."""

from __future__ import annotations

from engine.cache.policy import IntArray
from engine.decoding import DECODERS
from engine.decoding.transforms import TRANSFORMS
from engine.growth import beginning
from engine.layout import lay_out
from engine.plan import Decoding
from engine.sequence import Sequence
from engine.slots import SlotTraits


def canvas_of(sequence: Sequence, mask_token_id: int, *, aligned: bool) -> tuple[IntArray, tuple[int, int]]:
    """The canvas, and its first block to decode. ``aligned``: blocks are those of a block-causal model."""
    strategy = sequence.strategy
    return lay_out(
        sequence.prompt_ids,
        beginning(sequence.completion_ids, strategy.length, mask_token_id),
        strategy.block_length,
        mask_token_id,
        origin=0 if strategy.block_origin == "zero" else len(sequence.prompt_ids),
        aligned=aligned,
    )


def traits_of(sequence: Sequence, policy: int, decoder: int) -> SlotTraits:
    """What the host has to know at every step; ``policy`` and ``decoder`` are the numbers that it gave them."""
    strategy, knobs, rules = sequence.strategy, sequence.sampling_knobs, DECODERS.get(sequence.strategy.decoder)
    return SlotTraits(
        policy=policy,
        decoder=decoder,
        guide_slot=sequence.guide_slot,
        max_steps=rules.max_steps(strategy.decoder_params, strategy.block_length),
        edits=rules.edits,
        drawn=bool(knobs["temperature"]),
        filtered=knobs["top_k"] != 0 or knobs["top_p"] != 1,
        deferred=bool(knobs["deferred"]),
        watched=sequence.request.stream == "step",
        transforms=sum(1 << number for number, name in enumerate(TRANSFORMS) if name in sequence.transform_knobs),
    )


def decoding_of(sequence: Sequence) -> Decoding:
    """How the device decodes the request."""
    return Decoding(
        decoder=sequence.strategy.decoder,
        block_length=sequence.strategy.block_length,
        decoder_knobs=sequence.strategy.decoder_knobs(),
        sampling_knobs=sequence.sampling_knobs,
        transform_knobs=sequence.transform_knobs,
    )
