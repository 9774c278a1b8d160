"""What travels between the ingress, the router and the engine replicas: plain frozen values, no transport's types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from deployments.events import DiffusionEvent
from engine.outputs import FinishReason, RequestOutput, Usage
from engine.sampling_params import SamplingParams
from engine.work import WorkShape

StreamMode = Literal["final", "block", "step", "events"]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Exactly one of text, token ids and chat messages."""

    text: str | None = None
    token_ids: tuple[int, ...] | None = None
    messages: tuple[ChatMessage, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A hole in a template. ``tokens`` positions are filled; with ``may_end_early`` the text of the gap ends before the
    first stop id or stop text among them."""

    tokens: int
    may_end_early: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GapFill:
    """What a gap was filled with. ``token_bytes`` are the bytes of each token's own text."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    token_bytes: tuple[bytes, ...]
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptEcho:
    """The prompt as the model saw it, for answers that repeat it."""

    text: str
    token_ids: tuple[int, ...]
    token_bytes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateCall:
    """One sequence, as the ingress asks an engine replica for it.

    ``strategy`` are the options as the client wrote them; the engine validates them, because it knows the model.
    ``template`` is what follows the prompt where gaps are to be filled between given texts; the answer is then the
    increment's ``gaps``. ``logprobs`` asks for the tokens' bytes beside their probabilities, ``echo`` for the prompt in
    the first increment. ``timeout_s`` is what was left of the request's time when the call was made: clocks of machines
    differ. ``generated`` are final tokens of the completion from a replica that was lost; the client has the first
    ``num_shown`` of them and ``shown_chars`` characters of text. Increments hold only what follows. ``attempt`` counts
    the replicas before this one. Prompts share K/V only with calls of the same ``cache_salt``.
    ``client_request_id`` is the id of the HTTP request or RPC that it belongs to;
    ``traceparent`` and ``tracestate`` are W3C's, of the span that the call is a part of.
    """

    request_id: str
    prompt: Prompt
    sampling: SamplingParams
    client_request_id: str = ""
    strategy: Mapping[str, object] = field(default_factory=dict)
    template: tuple[str | Gap, ...] | None = None
    stream: StreamMode = "final"
    logprobs: bool = False
    echo: bool = False
    priority: int = 0
    timeout_s: float | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    session_id: str | None = None
    cache_salt: str = ""
    attempt: int = 0
    generated: tuple[int, ...] = ()
    num_shown: int = 0
    shown_chars: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One client request: the sequences it needs from one model.

    ``request_id`` is its name in answers, ``key`` a unique one. Choice i of prompt p is ``calls[p * n + i]``.
    ``api_key_name`` is who pays, "" where no key was needed (the router is fair among them), ``user`` what the client
    calls its own user. ``is_spare``: it starts at once or not at all. ``is_comparison``: each call has a strategy of
    its own, nothing is chosen. ``follows`` is the ``traceparent`` of the request that a shadow repeats.
    """

    request_id: str
    key: str
    model: str
    calls: tuple[GenerateCall, ...]
    timeout_s: float
    num_choices: int = 1
    priority: int = 0
    api_key_name: str = ""
    user: str = ""
    is_spare: bool = False
    is_comparison: bool = False
    follows: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionRequest:
    """A place in the router's queue for sequences of these ``shapes``. ``timeout_s`` is the request's remaining time.

    ``resumed``: its sequences had started and lost their replica; it goes first and is never refused.
    ``is_spare``: it takes a place that is free now; OverloadedError where there is none.
    """

    key: str
    model: str
    shapes: tuple[WorkShape, ...]
    priority: int
    timeout_s: float
    api_key_name: str = ""
    resumed: bool = False
    is_spare: bool = False
    traceparent: str | None = None
    tracestate: str | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """A request may start: ``replicas`` has the replica of each sequence. ``pressure`` is the share of the model's
    places that running and waiting sequences ask for (above 1: requests wait). ``work`` are the positions that it is
    predicted to take, ``queued`` requests waited when it came."""

    replicas: tuple[str, ...]
    pressure: float = 0.0
    waited_s: float = 0.0
    work: float = 0.0
    queued: int = 0


@dataclass(frozen=True, slots=True)
class SequenceOutcome:
    """What a sequence has cost on its replica; ``finished`` unless it was cut short."""

    replica: str
    shape: WorkShape
    usage: Usage
    finished: bool


@dataclass(frozen=True, slots=True)
class Increment:
    """An engine's increment and what was asked for beside it.

    ``canvas_texts`` holds each canvas position's own text, empty where it is masked; ``token_bytes`` the bytes of each
    of ``output.token_ids``; ``echo`` comes with the first increment, ``gaps`` with the last.
    """

    output: RequestOutput
    canvas_texts: tuple[str, ...] | None = None
    token_bytes: tuple[bytes, ...] | None = None
    events: tuple[DiffusionEvent, ...] = ()
    echo: PromptEcho | None = None
    gaps: tuple[GapFill, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What clients may know about a served model. ``presets`` are the options of a named strategy by goal."""

    id: str
    description: str
    architecture: str
    attention: str
    block_length: int
    max_model_len: int
    default_strategy: Mapping[str, object]
    presets: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyPart:
    """A preset, decoder, cache policy or transform that a model accepts; the fields are those of the engine's
    CatalogEntry."""

    name: str
    kind: Literal["preset", "decoder", "cache", "transform", "length"]
    summary: str
    source: str
    schema: Mapping[str, object]
    attention: Sequence[str] = ()
    default_for: Sequence[str] = ()
    families: Sequence[str] = ()
    traits: Sequence[str] = ()
    distribution: str = ""
    version: int = 0
    goal: str = ""
    options: Mapping[str, object] = field(default_factory=dict)
