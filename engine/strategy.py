"""A strategy: how a request is decoded. Decoder, cache policy and transforms with their parameters, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from engine.cache import CACHE_POLICIES
from engine.cache.policy import AttentionPattern
from engine.decoding import DECODERS
from engine.decoding.sampler import MAX_LISTED_TOKENS
from engine.errors import InvalidRequestError, UnknownStrategyError

DEFAULTS: Mapping[AttentionPattern, tuple[str, str]] = {
    "bidirectional": ("threshold", "dual"),
    "block_causal": ("low_confidence_dynamic", "block"),
}
"""Decoder and cache policy of a request that names none."""

SHARED_OPTIONS: Mapping[str, Mapping[str, object]] = {
    "decoder": {"type": "string", "description": "Rule that decides which positions are filled at a step."},
    "cache": {"type": "string", "description": "Which K/V are reused between steps."},
    "block_length": {"type": "integer", "minimum": 1, "description": "Positions that are denoised together."},
    "cfg_scale": {"type": "number", "minimum": 0, "description": "Classifier-free guidance; 0 is off."},
    "banned_tokens": {"type": "array", "items": {"type": "integer"}, "description": "Token ids that are never chosen."},
    "deferred_tokens": {
        "type": "array",
        "items": {"type": "integer"},
        "description": "Token ids that are filled last, and left out of the confidence of others.",
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A validated choice; make one with :func:`parse_strategy`."""

    decoder: str
    cache: str
    block_length: int
    decoder_params: Any
    cache_params: Any
    cfg_scale: float = 0.0
    banned_tokens: tuple[int, ...] = ()
    deferred_tokens: tuple[int, ...] = ()

    def decoder_knobs(self) -> dict[str, float]:
        """Parameters of the decoder by name."""
        return asdict(self.decoder_params)

    def cache_knobs(self) -> dict[str, float]:
        """Parameters of the cache policy by name."""
        return asdict(self.cache_params)

    def to_dict(self) -> dict[str, object]:
        """The options that :func:`parse_strategy` turns into this strategy."""
        shared = {name: getattr(self, name) for name in SHARED_OPTIONS}
        shared |= {name: list(shared[name]) for name in ("banned_tokens", "deferred_tokens")}
        return shared | self.decoder_knobs() | self.cache_knobs()


@dataclass(frozen=True, slots=True)
class StrategyLimits:
    """What a model allows: its attention pattern, its default block length, the longest block, its logit columns."""

    pattern: AttentionPattern
    block_length: int
    max_block_length: int
    vocab_size: int


def parse_strategy(options: Mapping[str, object], limits: StrategyLimits) -> Strategy:
    """Validate the options of a request; what is missing takes the model's default.

    Raises UnknownStrategyError for a decoder, cache policy or option that does not exist (or not for this model) and
    InvalidRequestError for a value out of bounds; ``param`` is the option's name.
    """
    decoder_name, cache_name = DEFAULTS[limits.pattern]
    decoder_name = _string(options, "decoder", decoder_name)
    cache_name = _string(options, "cache", cache_name)
    decoder, cache = DECODERS.get(decoder_name), CACHE_POLICIES.get(cache_name)
    if limits.pattern not in cache.patterns:
        suitable = [name for name in CACHE_POLICIES if limits.pattern in CACHE_POLICIES.get(name).patterns]
        raise UnknownStrategyError(
            f"cache {cache_name!r} does not suit this model ({limits.pattern} attention); choose one of: "
            + ", ".join(sorted(suitable)),
            "cache",
        )
    decoder_fields = {item.name for item in fields(decoder.Params)}
    cache_fields = {item.name for item in fields(cache.Params)}
    _refuse_unknown(options, decoder_name, cache_name, decoder_fields | cache_fields)
    return Strategy(
        decoder=decoder_name,
        cache=cache_name,
        block_length=_number(options, "block_length", limits.block_length, 1, limits.max_block_length, int),
        decoder_params=_params(decoder.Params, options, decoder_fields),
        cache_params=_params(cache.Params, options, cache_fields),
        cfg_scale=float(_number(options, "cfg_scale", 0.0, 0, 100, float)),
        banned_tokens=_token_ids(options, "banned_tokens", limits.vocab_size),
        deferred_tokens=_token_ids(options, "deferred_tokens", limits.vocab_size),
    )


def describe_strategies(pattern: AttentionPattern | None = None) -> list[dict[str, object]]:
    """Every decoder and cache policy (that suits ``pattern``): name, kind, what it is, source, JSON schema of knobs."""
    described: list[dict[str, object]] = []
    for name in DECODERS:
        decoder = DECODERS.get(name)
        described.append(_describe(name, "decoder", decoder.summary, decoder.source, decoder.Params))
    for name in CACHE_POLICIES:
        cache = CACHE_POLICIES.get(name)
        if pattern is None or pattern in cache.patterns:
            described.append(_describe(name, "cache", cache.summary, cache.source, cache.Params))
    return described


def _describe(name: str, kind: str, summary: str, source: str, params: type) -> dict[str, object]:
    schema = TypeAdapter(params).json_schema()
    return {"name": name, "kind": kind, "summary": summary, "source": source, "schema": schema}


def _refuse_unknown(options: Mapping[str, object], decoder: str, cache: str, knobs: set[str]) -> None:
    allowed = knobs | set(SHARED_OPTIONS)
    for name in options:
        if name not in allowed:
            raise UnknownStrategyError(
                f"unknown option {name!r} for decoder {decoder!r} with cache {cache!r}; allowed are: "
                + ", ".join(sorted(allowed)),
                name,
            )


def _params(params: type[Any], options: Mapping[str, object], names: set[str]) -> Any:
    given = {name: _whole(options[name], params, name) for name in options if name in names}
    try:
        return params(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "strategy"
        raise InvalidRequestError(f"{name}: {first['msg']} (got {given.get(name)!r})", name) from None


def _whole(value: object, params: type, name: str) -> object:
    """JSON and protobuf structs may know one kind of number: 8.0 is 8 where a whole number is due."""
    default = params.__dataclass_fields__[name].default  # type: ignore[attr-defined]
    whole_wanted = isinstance(default, int) and not isinstance(default, bool)
    return int(value) if whole_wanted and isinstance(value, float) and value.is_integer() else value


def _string(options: Mapping[str, object], name: str, default: str) -> str:
    value = options.get(name, default)
    if not isinstance(value, str):
        raise InvalidRequestError(f"{name} must be a string, got {value!r}", name)
    return value


def _number(
    options: Mapping[str, object], name: str, default: float, low: float, high: float, kind: type[int] | type[float]
) -> Any:
    value = options.get(name, default)
    accepted = (int,) if kind is int else (int, float)
    if isinstance(value, float) and kind is int and value.is_integer():
        value = int(value)  # JSON and protobuf structs know one kind of number
    if isinstance(value, bool) or not isinstance(value, accepted) or not low <= value <= high:
        raise InvalidRequestError(f"{name} must be a number from {low} to {high}, got {value!r}", name)
    return value


def _token_ids(options: Mapping[str, object], name: str, vocab_size: int) -> tuple[int, ...]:
    value = options.get(name, ())
    if not isinstance(value, (list, tuple)) or len(value) > MAX_LISTED_TOKENS:
        raise InvalidRequestError(f"{name} must be a list of at most {MAX_LISTED_TOKENS} token ids", name)
    for item in value:
        if isinstance(item, bool) or not isinstance(item, (int, float)) or item not in range(vocab_size):
            raise InvalidRequestError(f"{name} holds {item!r}, which is no token id below {vocab_size}", name)
    return tuple(int(item) for item in value)
