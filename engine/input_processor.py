"""From a request as a caller writes it to a sequence that the engine can run: every check on input is here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from collections.abc import Sequence as SequenceOf
from time import perf_counter

from engine.cache import CACHE_POLICIES
from engine.cache.prefix_keys import block_keys
from engine.columns import MAX_STOP_IDS
from engine.decoding import DECODERS
from engine.decoding.transform import InputTransform
from engine.decoding.transforms import TRANSFORMS
from engine.errors import ContextLengthError, InvalidRequestError
from engine.layout import MAX_ALIGNED_BLOCK_LENGTH, canvas_length
from engine.models.spec import ModelSpec
from engine.presets.named import NamedStrategy
from engine.randomness import fold_seed
from engine.sampling_params import SamplingParams
from engine.sequence import GenerationRequest, Sequence
from engine.strategy import Strategy, StrategyLimits, parse_strategy
from engine.tokenizer import Tokenizer

MAX_STOP_STRINGS = 16


def is_repeatable(strategy: Strategy) -> bool:
    """Whether a block that is begun anew gets the same tokens. Not where the canvas grows, where refreshes follow from
    earlier steps, or where what was said of its masks before it began counts."""
    if DECODERS.get(strategy.decoder).needs_divergence:
        return False
    changes_inputs = any(issubclass(TRANSFORMS.get(name), InputTransform) for name, _ in strategy.transforms)
    return strategy.length is None and not CACHE_POLICIES.get(strategy.cache).measures and not changes_inputs


class InputProcessor:
    """Validates requests for one model. Safe to call from several threads."""

    def __init__(
        self,
        spec: ModelSpec,
        tokenizer: Tokenizer,
        max_model_len: int,
        num_slots: int,
        seed: int,
        *,
        has_text: bool,
        named: tuple[NamedStrategy, ...] = (),
        shares_prefixes: bool = False,
    ) -> None:
        self._shares_prefixes = shares_prefixes
        self._spec = spec
        self._tokenizer = tokenizer
        self._max_model_len = max_model_len
        self._num_slots = num_slots
        self._has_text = has_text
        self._arrivals = itertools.count()
        self._seed = seed
        longest = min(max_model_len, MAX_ALIGNED_BLOCK_LENGTH) if spec.attention == "block_causal" else max_model_len
        self.limits = StrategyLimits(spec.attention, min(spec.block_length, longest), longest, spec.vocab_size, named)

    def process(self, request: GenerationRequest) -> Sequence:
        """InvalidRequestError names the field; ContextLengthError when the canvas would be too long."""
        prompt_ids = self._prompt(request.prompt)
        strategy = request.strategy or parse_strategy({}, self.limits)
        stop_ids = () if request.template is not None else self._stop_ids(request.sampling)
        repeatable = is_repeatable(strategy)
        completion_ids = self._completion(request, len(prompt_ids), strategy, repeatable=repeatable)
        field = "max_tokens" if request.template is None else "template"
        self._check_lengths(len(prompt_ids), len(completion_ids), field)
        self._check_stops(request.sampling)
        if strategy.cfg_scale and self._num_slots < 2:
            raise InvalidRequestError("cfg_scale needs two slots, and the server has one (max_num_seqs)", "cfg_scale")
        self._check_length_rule(request, strategy)
        arrival = next(self._arrivals)
        aligned = self._spec.attention == "block_causal"
        return Sequence(
            request=request,
            prompt_ids=prompt_ids,
            completion_ids=completion_ids,
            strategy=strategy,
            stop_ids=stop_ids,
            sampling_knobs=self._knobs(request.sampling, strategy, arrival),
            canvas_len=canvas_length(len(prompt_ids), len(completion_ids), strategy.block_length, aligned=aligned),
            arrival=arrival,
            transform_knobs=self._transform_knobs(request.sampling, strategy, stop_ids, len(completion_ids)),
            num_emitted=len(request.shown),
            deadline_s=math.inf if request.timeout_s is None else perf_counter() + request.timeout_s,
            repeatable=repeatable,
            prefix_keys=self._prefix_keys(request, prompt_ids, completion_ids, strategy),
        )

    def _prompt(self, prompt: str | SequenceOf[int]) -> SequenceOf[int]:
        if isinstance(prompt, str):
            prompt_ids: SequenceOf[int] = self._tokenizer.encode(prompt)
        else:
            prompt_ids = list(prompt)
            for token_id in prompt_ids:
                self._check_id(token_id, "prompt")
        if not prompt_ids:
            raise InvalidRequestError("the prompt is empty; it needs at least one token", "prompt")
        return prompt_ids

    def _completion(
        self, request: GenerationRequest, prompt_len: int, strategy: Strategy, *, repeatable: bool
    ) -> SequenceOf[int]:
        """The completion as it begins: the fixed tokens of a template, or the whole blocks that were generated. A begun
        block is decided again where that gives the same tokens, else all of its tokens stay."""
        if request.template is not None:
            return self._template(request.template, request.generated)
        generated, max_tokens = request.generated, request.sampling.max_tokens
        for token_id in generated:
            self._check_id(token_id, "generated")
        if len(generated) >= max_tokens:
            raise InvalidRequestError(f"generated holds all of the {max_tokens} tokens that are asked for", "generated")
        if request.num_shown is not None and not 0 <= request.num_shown <= len(generated):
            raise InvalidRequestError(f"num_shown must be between 0 and {len(generated)}", "num_shown")
        origin, block_length = 0 if strategy.block_origin == "zero" else prompt_len, strategy.block_length
        boundary = origin + (prompt_len + len(generated) - origin) // block_length * block_length
        whole = generated[: max(boundary - prompt_len, 0)] if repeatable else generated
        return [*whole, *[self._spec.mask_token_id] * (max_tokens - len(whole))]

    def _prefix_keys(
        self,
        request: GenerationRequest,
        prompt_ids: SequenceOf[int],
        completion_ids: SequenceOf[int],
        strategy: Strategy,
    ) -> SequenceOf[bytes]:
        """The keys of the blocks before the first mask, where K/V are final and the request has no twin."""
        if not self._shares_prefixes or strategy.cfg_scale or not CACHE_POLICIES.get(strategy.cache).exact:
            return ()
        given = completion_ids[: completion_ids.index(self._spec.mask_token_id)]
        return block_keys([*prompt_ids, *given], strategy.block_length, request.cache_salt)

    def _template(self, template: SequenceOf[int | None], generated: SequenceOf[int]) -> SequenceOf[int]:
        if generated:
            raise InvalidRequestError("generated cannot be combined with template", "generated")
        if None not in template:
            raise InvalidRequestError("the template has no free position", "template")
        for token_id in template:
            if token_id is not None:
                self._check_id(token_id, "template")
        return [self._spec.mask_token_id if token_id is None else token_id for token_id in template]

    def _check_id(self, token_id: object, field: str) -> None:
        if isinstance(token_id, bool) or not isinstance(token_id, int):
            raise InvalidRequestError(f"the {field} holds {token_id!r}, which is no token id", field)
        if not 0 <= token_id < self._spec.vocab_size:
            raise InvalidRequestError(
                f"the {field} holds token id {token_id}; the model's ids are 0 to {self._spec.vocab_size - 1}", field
            )
        if token_id == self._spec.mask_token_id:
            raise InvalidRequestError(
                f"the {field} holds the mask token (id {token_id}); it must be decided text", field
            )

    def _check_lengths(self, prompt_len: int, completion_len: int, field: str) -> None:
        limit = self._max_model_len
        if prompt_len >= limit:
            raise ContextLengthError(
                f"the prompt has {prompt_len} tokens; prompt and completion together may have {limit}", "prompt"
            )
        if prompt_len + completion_len > limit:
            what = f"max_tokens {completion_len} is" if field == "max_tokens" else f"a template of {completion_len} is"
            raise ContextLengthError(
                f"{what} too large: with a prompt of {prompt_len} tokens at most {limit - prompt_len} fit the "
                f"{limit} positions",
                field,
            )

    def _check_length_rule(self, request: GenerationRequest, strategy: Strategy) -> None:
        if strategy.length is None:
            return
        if request.template is not None:
            raise InvalidRequestError(
                "initial_length cannot be combined with template, whose length is given", "initial_length"
            )
        if not self._spec.stop_token_ids:
            raise InvalidRequestError(
                "initial_length needs a model with an end-of-text id, and this checkpoint names none", "initial_length"
            )

    def _check_stops(self, sampling: SamplingParams) -> None:
        if sampling.stop and not self._has_text:
            raise InvalidRequestError("stop strings need a tokenizer; use stop_token_ids", "stop")
        if len(sampling.stop) > MAX_STOP_STRINGS or not all(sampling.stop):
            raise InvalidRequestError(f"stop takes at most {MAX_STOP_STRINGS} strings, none of them empty", "stop")
        wrong = [item for item in sampling.stop_token_ids if not 0 <= item < self._spec.vocab_size]
        if wrong:
            raise InvalidRequestError(f"stop_token_ids holds {wrong[0]}, which is no token id", "stop_token_ids")

    def _stop_ids(self, sampling: SamplingParams) -> SequenceOf[int]:
        stop_ids = sampling.stop_token_ids | (frozenset() if sampling.ignore_eos else self._spec.stop_token_ids)
        if len(stop_ids) > MAX_STOP_IDS:
            raise InvalidRequestError(f"there may be at most {MAX_STOP_IDS} stop ids", "stop_token_ids")
        return sorted(stop_ids)

    def _transform_knobs(
        self, sampling: SamplingParams, strategy: Strategy, stop_ids: SequenceOf[int], num_places: int
    ) -> Mapping[str, Mapping[str, object]]:
        """Values of the transforms in use: options of the strategy, and what transforms ask for of the request."""
        known: dict[str, object] = {"stop_ids": list(stop_ids)}
        knobs: dict[str, Mapping[str, object]] = {
            name: {**values, **known} for name, values in strategy.transform_knobs().items()
        }
        for name, params in strategy.transforms:
            if name == "required_tokens":
                self._check_required(params.required_tokens, stop_ids, num_places)
        if sampling.logit_bias:
            for token_id in sampling.logit_bias:
                self._check_id(token_id, "logit_bias")
            ids, biases = list(sampling.logit_bias), list(sampling.logit_bias.values())
            knobs["logit_bias"] = {"bias_ids": ids, "biases": biases}
        return knobs

    def _check_required(self, required: Collection[int], stop_ids: SequenceOf[int], num_places: int) -> None:
        for token_id in required:
            self._check_id(token_id, "required_tokens")
            if token_id in stop_ids:
                raise InvalidRequestError(
                    f"required_tokens holds {token_id}, which ends the completion", "required_tokens"
                )
        if len(required) > num_places:
            raise InvalidRequestError(
                f"required_tokens holds {len(required)} ids, more than the completion of {num_places} has places",
                "required_tokens",
            )

    def _knobs(self, sampling: SamplingParams, strategy: Strategy, arrival: int) -> Mapping[str, object]:
        seed = sampling.seed if sampling.seed is not None else self._seed + arrival
        family = "model" if self._spec.attention == "bidirectional" else "sampled"
        return {
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "seed": fold_seed(seed),
            "noise": int(sampling.noise),
            "sampled_confidence": int((sampling.confidence or family) == "sampled"),
            "guidance": strategy.cfg_scale,
            "deferred": list(strategy.deferred_tokens),
        }
