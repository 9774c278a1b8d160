"""What answers look like, for the OpenAPI page. The answers themselves are made in ``responses.py``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    """Additions are compatible: clients ignore fields that they do not know."""

    model_config = ConfigDict(extra="allow")


class ErrorObject(_Answer):
    message: str = Field(description="What is wrong, and what is allowed.")
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(description="The field that caused it.", examples=["diffusion.threshold"])
    code: str = Field(examples=["invalid_value"])


class ErrorAnswer(_Answer):
    """Every error, whatever its status."""

    error: ErrorObject


class DiffusionUsage(_Answer):
    denoising_steps: int = Field(description="Passes of the network that decided positions.")
    forwards: int = Field(description="Passes of the network in which the request took part (NFE).")
    positions_computed: int = Field(description="Query positions fed to the network for the request.")
    tokens_per_forward: float = Field(description="completion_tokens / forwards.")


class PromptTokensDetails(_Answer):
    cached_tokens: int = Field(description="Prompt tokens that were not computed: their K/V were known already.")


class UsageObject(_Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    diffusion: DiffusionUsage


class _Head(_Answer):
    id: str = Field(description="Names the answer; the same in every chunk of a stream.")
    created: int = Field(description="Unix time.")
    model: str
    system_fingerprint: str = Field(description="Changes with the server's version and the model's settings.")
    usage: UsageObject


class CompletionLogprobsObject(_Answer):
    """Natural logarithms of the probability at the denoising step that committed the token; null for a prompt's."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class CompletionChoice(_Answer):
    index: int
    text: str
    logprobs: CompletionLogprobsObject | None
    finish_reason: Literal["stop", "length"]


class CompletionAnswer(_Head):
    object: Literal["text_completion"]
    choices: list[CompletionChoice]


class TokenLogprob(_Answer):
    token: str
    logprob: float | None = Field(
        description="Natural logarithm of the probability at the step that committed the token; null where an editing "
        "decoder moved it."
    )
    bytes: list[int] | None


class TokenLogprobWithTop(TokenLogprob):
    top_logprobs: list[TokenLogprob]


class ChatLogprobsObject(_Answer):
    content: list[TokenLogprobWithTop]


class AnswerMessage(_Answer):
    role: Literal["assistant"]
    content: str


class ChatChoice(_Answer):
    index: int
    message: AnswerMessage
    logprobs: ChatLogprobsObject | None
    finish_reason: Literal["stop", "length"]


class ChatAnswer(_Head):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class FilledGap(_Answer):
    index: int
    text: str
    token_ids: list[int]
    finish_reason: Literal["stop", "length"] = Field(description="stop: the model or a stop text ended it early.")
    logprobs: ChatLogprobsObject | None


class InfillAnswer(_Head):
    object: Literal["infill"]
    text: str = Field(description="The template with its gaps filled.")
    gaps: list[FilledGap]


class ModelAnswer(_Answer):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(_Answer):
    object: Literal["list"]
    data: list[ModelAnswer]


class StrategyPartAnswer(_Answer):
    name: str
    kind: str = Field(examples=["decoder", "cache", "transform"])
    summary: str
    source: str


class StrategyList(_Answer):
    object: Literal["list"]
    model: str
    data: list[StrategyPartAnswer]


class HealthAnswer(_Answer):
    status: Literal["ok", "unavailable"]
    models: dict[str, Literal["ok", "unavailable"]]
    reasons: dict[str, str] = {}
