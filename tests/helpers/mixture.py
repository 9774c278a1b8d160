"""Requests of every kind: each decoder with several cache policies, and transforms of all sorts."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from engine.cache import CACHE_POLICIES
from engine.decoding import DECODERS
from engine.llm_engine import LLMEngine
from engine.sequence import GenerationRequest
from tests.helpers.engines import make_request

KNOBS: Mapping[str, Mapping[str, object]] = {
    "low_confidence": {"steps": 3},
    "random": {"steps": 3},
    "threshold": {"threshold": 0.3},
    "factor": {"factor": 1.5},
    "sequential": {"steps": 3},
    "low_confidence_static": {"steps": 2},
    "low_confidence_dynamic": {"threshold": 0.3, "steps": 4},
    "entropy_bounded": {"gamma": 2.0},
    "budgeted_threshold": {"threshold": 0.3, "steps": 2},
    "eb_sampler": {"gamma": 2.0},
    "local_leap": {"anchor_threshold": 0.1, "neighbour_threshold": 0.05, "radius": 2, "steps": 4},
    "klass": {"threshold": 0.05, "kl_threshold": 0.5, "kl_history": 1},
    "joint_threshold": {"threshold": 0.3, "max_post_edit_steps": 3, "neighbour_penalty": 0.5},
    "joint_threshold_indel": {"max_post_edit_steps": 4, "delete_token_id": 17, "split_token_id": 23},
}

TRANSFORMED: Sequence[Mapping[str, object]] = (
    {"credit_alpha": 0.7},
    {"smoothing_weight": 0.3},
    {},
    {"repetition_penalty": 1.3, "required_tokens": [31, 41]},
    {"credit_alpha": 1.0, "smoothing_weight": 0.5, "min_tokens": 3},
)


def pairs(caches: Sequence[str], per_decoder: int) -> Iterator[tuple[str, str]]:
    """Every decoder with some of the cache policies, taken in turns, so that each policy meets its share of them."""
    for number, decoder in enumerate(DECODERS):
        for turn in range(min(per_decoder, len(caches))):
            yield decoder, caches[(number + turn) % len(caches)]


def mixture(engine: LLMEngine, caches_per_decoder: int = 3) -> list[GenerationRequest]:
    """One request per pair, with different lengths, blocks, guidance, sampling, and ways to stop."""
    numbers = random.Random(5)
    caches = [name for name in CACHE_POLICIES if engine.spec.attention in CACHE_POLICIES.get(name).patterns]
    requests = []
    for index, (decoder, cache) in enumerate(pairs(caches, caches_per_decoder)):
        strategy: dict[str, object] = {"decoder": decoder, "cache": cache, "block_length": numbers.choice([2, 4, 5, 8])}
        strategy |= KNOBS.get(decoder, {})
        sampling: dict[str, object] = {"max_tokens": numbers.randint(3, 10), "seed": index}
        if index % 4 == 0:
            strategy["cfg_scale"] = 0.7
        if index % 3 == 0:
            sampling |= {"temperature": 0.8, "top_k": 40, "top_p": 0.95}
        if index % 5 == 0:
            sampling["stop_token_ids"] = frozenset(range(0, 280, 10))
        if index % 7 == 0:
            strategy |= {"banned_tokens": [3, 4, 5], "deferred_tokens": [10]}
        if index % 6 == 1 and engine.spec.attention == "bidirectional" and cache != "window":
            strategy |= {"initial_length": 2, "eos_confidence": 0.0, "expand_confidence": 0.5, "expansion": 3}
        strategy |= TRANSFORMED[index % len(TRANSFORMED)]
        if index % 9 == 0:
            sampling["logit_bias"] = {7: 5.0, 8: -5.0}
        prompt = [numbers.randrange(280) for _ in range(numbers.randint(1, 17))]
        requests.append(make_request(f"{decoder}-{cache}-{index}", prompt, engine, strategy=strategy, **sampling))
    return requests
