"""Bodies of OpenAI's requests. Every field of OpenAI's API is honoured, refused by name, or listed as ignored here.

Beside OpenAI's fields a body may carry ``diffusion`` (the strategy) and the sampling fields that other open servers
know too: ``top_k``, ``stop_token_ids``, ``ignore_eos``, ``priority``, ``timeout_ms``, ``cache_salt``. /v1/infill is
this server's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from deployments.jobs import MAX_SEGMENTS

IGNORED_FIELDS = frozenset({"metadata", "store", "service_tier", "prompt_cache_key", "prompt_cache_retention"})
"""Accepted without effect: they only concern OpenAI's bookkeeping."""

NEUTRAL_FIELDS: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
        "top_logprobs": (0,),
        "echo": (False,),
        "best_of": (1,),
        "suffix": ("",),
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "parallel_tool_calls": (True, False),
        "functions": ([],),
        "function_call": ("none", "auto"),
        "response_format": ({"type": "text"},),
        "modalities": (["text"],),
        "audio": (),
        "prediction": (),
        "reasoning_effort": ("none",),
        "verbosity": ("medium",),
        "web_search_options": (),
        "moderation": (),
    }
)
"""OpenAI's fields that are not supported, with the values (beside null) that ask for nothing."""


def _reject_null_prompt(value: object) -> object:
    if value is None:
        raise ValueError("the prompt must not be null")
    return value


PromptField = Annotated[str | list[int] | list[str] | list[list[int]], BeforeValidator(_reject_null_prompt)]


MAX_MESSAGES = 1024


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = Field(default=None, description="Send the usage as a last chunk.")
    include_obfuscation: bool | None = Field(default=None, description="Ignored: chunks are never padded.")


class RequestBody(BaseModel):
    """What every request for text has in common."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = Field(default=None, description="Id of a served model; default: the server's default model.")
    temperature: float | None = Field(default=None, description="0 (the default) takes the most probable token.")
    top_p: float | None = Field(default=None, description="Keep the smallest set of tokens with this mass.")
    top_k: int | None = Field(default=None, description="Keep the k most probable tokens; 0 keeps all.")
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63, description="Same seed, same tokens.")
    stop: str | list[str] | None = Field(default=None, description="The text ends before the first of these.")
    stop_token_ids: list[int] | None = Field(default=None, description="Token ids that end the text.")
    ignore_eos: bool | None = Field(default=None, description="Do not end at the model's own stop ids.")
    logit_bias: dict[str, float] | None = Field(
        default=None, description="Added to the logits of these token ids, -100 to 100."
    )
    diffusion: dict[str, object] | None = Field(
        default=None,
        description="Strategy: decoder, cache, block_length and their knobs (see /v1/strategies). With stream: true "
        "also stream: 'block', 'step' (the canvas at every denoising step) or 'events' (what each step changed).",
    )
    priority: int | None = Field(default=None, ge=-(2**31), lt=2**31, description="Smaller runs first among waiting.")
    timeout_ms: int | None = Field(default=None, gt=0, description="Time the server may take for the request.")
    cache_salt: str | None = Field(
        default=None,
        max_length=256,
        description="What was computed of prompts is shared only among requests of one API key and salt.",
    )
    user: str | None = Field(default=None, description="Your user's id: kept for fairness and experiments.")
    safety_identifier: str | None = Field(default=None, description="OpenAI's newer name of user.")

    @model_validator(mode="before")
    @classmethod
    def _check_fields(cls, data: object) -> object:
        """Drop what asks for nothing, refuse OpenAI's unsupported fields by name, and unknown ones."""
        if not isinstance(data, Mapping):
            raise ValueError("the body must be a JSON object, sent with Content-Type: application/json")
        kept = {}
        for key, value in data.items():
            if key in cls.model_fields:
                kept[key] = value
            elif key in NEUTRAL_FIELDS:
                if value is not None and not any(_same(value, neutral) for neutral in NEUTRAL_FIELDS[key]):
                    raise ValueError(f"{key}: not supported by this server")
            elif key not in IGNORED_FIELDS:
                raise ValueError(f"{key}: unknown field; known are: {', '.join(cls.model_fields)}")
        return kept

    @model_validator(mode="after")
    def _one_user(self) -> Self:
        if None not in (self.user, self.safety_identifier) and self.user != self.safety_identifier:
            raise ValueError("safety_identifier: contradicts user; give one of them")
        return self


class GenerationBody(RequestBody):
    """What completions and chat completions have in common."""

    max_tokens: int | None = Field(default=None, description="Most tokens to generate.")
    n: int | None = Field(default=None, ge=1, description="Completions per prompt; choice i is drawn with seed + i.")
    stream: bool | None = Field(default=None, description="Server-sent events instead of one body.")
    stream_options: StreamOptions | None = None


class CompletionBody(GenerationBody):
    """POST /v1/completions."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "lacuna-tiny-llada",
                    "prompt": "2 + 3 =",
                    "max_tokens": 8,
                    "diffusion": {"decoder": "threshold", "threshold": 0.9, "cache": "dual", "block_length": 32},
                }
            ]
        }
    )

    prompt: PromptField = Field(description="One prompt or several, as text or as token ids.")
    suffix: str | None = Field(
        default=None,
        description="Text after the completion: max_tokens positions between prompt and suffix are filled.",
    )
    echo: bool | None = Field(default=None, description="Repeat the prompt before the completion.")
    logprobs: int | None = Field(
        default=None,
        ge=0,
        description="0: the probability of each token at the step that committed it; 1: also as the top alternative, "
        "at temperature 0. More alternatives are not kept.",
    )


class TextPart(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]
    text: str


class MessageBody(BaseModel):
    """A message. Fields that OpenAI's answers carry beside these are accepted while they say nothing."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: str
    content: str | list[TextPart]

    @model_validator(mode="before")
    @classmethod
    def _drop_empty_fields(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        return {key: value for key, value in data.items() if key in cls.model_fields or value not in (None, [])}

    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatBody(GenerationBody):
    """POST /v1/chat/completions."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "messages": [{"role": "user", "content": "What is 17 + 25?"}],
                    "max_tokens": 64,
                    "diffusion": {"decoder": "threshold", "threshold": 0.9},
                }
            ]
        }
    )

    messages: list[MessageBody] = Field(
        min_length=1, max_length=MAX_MESSAGES, description="The conversation, for the model's chat template."
    )
    logprobs: bool | None = Field(
        default=None, description="The probability of each token at the step that committed it."
    )
    top_logprobs: int | None = Field(
        default=None, ge=0, description="0, or 1 at temperature 0; more alternatives are not kept. Needs logprobs."
    )
    max_completion_tokens: int | None = Field(default=None, description="OpenAI's newer name of max_tokens.")

    @model_validator(mode="after")
    def _one_limit(self) -> ChatBody:
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise ValueError("max_completion_tokens: contradicts max_tokens; give one of them")
        return self


class GapSize(BaseModel):
    """How long a gap is."""

    model_config = ConfigDict(extra="forbid", strict=True)

    tokens: int | None = Field(default=None, ge=1, description="Exactly so many tokens.")
    max_tokens: int | None = Field(default=None, ge=1, description="So many at most: the model may end the gap early.")

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.tokens is None) == (self.max_tokens is None):
            raise ValueError("give either tokens (exactly) or max_tokens (at most)")
        return self


class GapBody(BaseModel):
    """A gap of a template."""

    model_config = ConfigDict(extra="forbid", strict=True)

    gap: Annotated[int, Field(ge=1)] | GapSize = Field(description="A number of tokens, or a GapSize.")


class InfillBody(RequestBody):
    """POST /v1/infill."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "lacuna-tiny-llada",
                    "template": [
                        "Tom has 12 apples and buys ",
                        {"gap": 1},
                        " more. Now he has 17",
                        {"gap": {"max_tokens": 8}},
                    ],
                }
            ]
        }
    )

    template: list[str | GapBody] = Field(
        min_length=2, max_length=MAX_SEGMENTS, description="Texts and gaps in order; begins with a text."
    )
    logprobs: bool | None = Field(default=None, description="The probability of each token that filled a gap.")


def _same(value: object, neutral: object) -> bool:
    """Equal, and a truth value only equals a truth value."""
    return isinstance(value, bool) == isinstance(neutral, bool) and value == neutral
