"""The span of a generation request at the ingress, with OpenTelemetry's attributes for generative AI."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NoOpTracer, Span, Tracer

from deployments.messages import Gap, Increment, Job
from deployments.strategy_choice import StrategyChoice
from engine.outputs import Usage
from engine.telemetry import parent_context, set_error, trace_headers


class JobSpans:
    """Makes the spans of jobs. Prompts and answers are in them only with ``record_prompts``."""

    def __init__(self, tracer: Tracer | None = None, *, record_prompts: bool = False) -> None:
        self._tracer = tracer or NoOpTracer()
        self._record_prompts = record_prompts

    def open(self, job: Job) -> JobSpan:
        """The span of a job that begins: a child of what its calls name, or a trace of its own with a link to the job
        that it repeats."""
        first = job.calls[0]
        parent = parent_context(first.traceparent, first.tracestate)
        followed = trace.get_current_span(parent_context(job.follows)).get_span_context()
        links = [Link(followed)] if followed.is_valid else []
        span = self._tracer.start_span("lacuna.job", Context() if links else parent, links=links)
        return JobSpan(span, job, record_prompts=self._record_prompts)


class JobSpan:
    """Owns the span of one job; ends it with the block that it is entered for. Costs next to nothing where nobody
    records it."""

    def __init__(self, span: Span, job: Job, *, record_prompts: bool) -> None:
        self._span = span
        self._record_prompts = record_prompts
        self._started_s = time.monotonic()
        self._usages: dict[int, Usage] = {}
        self._finish_reasons: dict[int, str] = {}
        self._texts = [""] * len(job.calls)
        self.job = job
        if span.is_recording():
            own = trace_headers(span)
            calls = (replace(call, traceparent=own.traceparent, tracestate=own.tracestate) for call in job.calls)
            self.job = replace(job, calls=tuple(calls))
            self._describe(job)

    def __enter__(self) -> JobSpan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._span.is_recording():
            self._tell_outcome(error)
        self._span.end()

    def chosen(self, choice: StrategyChoice) -> None:
        """Which strategy it gets, and why."""
        self._span.set_attributes(
            {
                "lacuna.strategy.name": choice.name,
                "lacuna.strategy.chosen_by": choice.chosen_by,
                "lacuna.strategy.adjusted": choice.adjusted,
                "lacuna.strategy.reason": choice.reason,
            }
        )

    def see(self, index: int, increment: Increment) -> None:
        """An increment of its ``index``-th sequence."""
        if not self._span.is_recording():
            return
        output = increment.output
        if not self._usages:
            first_s = time.monotonic() - self._started_s
            self._span.set_attribute("gen_ai.response.time_to_first_chunk", first_s)
        self._usages[index] = output.usage
        if output.finish_reason is not None:
            self._finish_reasons[index] = output.finish_reason
        if self._record_prompts:
            self._texts[index] += output.text + "".join(gap.text for gap in increment.gaps or ())

    def replica_lost(self, request_id: str, replica: str, num_tokens: int) -> None:
        """A sequence goes on elsewhere, from so many tokens."""
        self._span.add_event(
            "lacuna.replica_lost",
            {"lacuna.request_id": request_id, "lacuna.replica": replica, "lacuna.tokens": num_tokens},
        )

    def _describe(self, job: Job) -> None:
        call = job.calls[0]
        sampling = call.sampling
        attributes: dict[str, str | int | float | None] = {
            "gen_ai.operation.name": _operation(job),
            "gen_ai.provider.name": "lacuna",
            "gen_ai.request.model": job.model,
            "gen_ai.request.choice.count": job.num_choices,
            "gen_ai.request.max_tokens": sampling.max_tokens,
            "gen_ai.request.temperature": sampling.temperature,
            "gen_ai.request.top_k": sampling.top_k,
            "gen_ai.request.top_p": sampling.top_p,
            "gen_ai.request.seed": sampling.seed,
            "gen_ai.request.stream": call.stream != "final",
            "gen_ai.response.id": job.request_id,
            "session.id": call.session_id,
            "lacuna.job": job.key,
            "lacuna.sequences": len(job.calls),
            "lacuna.priority": job.priority,
            "lacuna.api_key_name": job.api_key_name or None,
            "lacuna.shadow": bool(job.follows),
        }
        self._span.set_attributes({name: value for name, value in attributes.items() if value is not None})
        if self._record_prompts:
            self._span.set_attribute("gen_ai.input.messages", _input_messages(job))

    def _tell_outcome(self, error: BaseException | None) -> None:
        reasons = [reason for _, reason in sorted(self._finish_reasons.items())]
        self._span.set_attribute("gen_ai.response.finish_reasons", reasons)
        self._span.set_attributes(self._spent())
        if self._record_prompts:
            self._span.set_attribute("gen_ai.output.messages", _output_messages(self._texts))
        if isinstance(error, (GeneratorExit, asyncio.CancelledError)):
            self._span.set_attribute("lacuna.cancelled", len(reasons) < len(self.job.calls))
        elif error is not None:
            set_error(self._span, error)

    def _spent(self) -> dict[str, int | float]:
        """What all sequences have cost so far; a prompt counts once for the choices that share it."""
        usages = [usage for _, usage in sorted(self._usages.items())]
        shared = self.job.num_choices if len(usages) == len(self.job.calls) else 1
        forwards, tokens = sum(usage.forwards for usage in usages), sum(usage.completion_tokens for usage in usages)
        return {
            "gen_ai.usage.input_tokens": sum(usage.prompt_tokens for usage in usages[::shared]),
            "gen_ai.usage.output_tokens": tokens,
            "lacuna.forwards": forwards,
            "lacuna.denoising_steps": sum(usage.denoising_steps for usage in usages),
            "lacuna.positions_computed": sum(usage.positions_computed for usage in usages),
            "lacuna.tokens_per_forward": tokens / forwards if forwards else 0.0,
        }


def _operation(job: Job) -> str:
    if job.is_comparison:
        return "compare"
    call = job.calls[0]
    if call.template is not None:
        return "infill"
    return "text_completion" if call.prompt.messages is None else "chat"


def _input_messages(job: Job) -> str:
    """One message list per prompt would not fit the convention: choices share a prompt, and batches are told apart by
    their order."""
    messages: list[Mapping[str, object]] = []
    for call in job.calls[:: job.num_choices]:
        prompt = call.prompt
        if prompt.messages is not None:
            messages += [{"role": one.role, "parts": [_text(one.content)]} for one in prompt.messages]
            continue
        text = prompt.text if prompt.text is not None else json.dumps(prompt.token_ids)
        messages.append({"role": "user", "parts": [_text(text), *map(_part, call.template or ())]})
    return json.dumps(messages)


def _part(part: str | Gap) -> dict[str, object]:
    return {"type": "gap", "tokens": part.tokens} if isinstance(part, Gap) else _text(part)


def _output_messages(texts: Sequence[str]) -> str:
    return json.dumps([{"role": "assistant", "parts": [_text(text)]} for text in texts])


def _text(content: str) -> dict[str, object]:
    return {"type": "text", "content": content}
