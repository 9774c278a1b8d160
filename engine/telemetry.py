"""Traces of sequences, through the OpenTelemetry API alone: nothing is recorded unless a process has an SDK.

    lacuna.sequence -+- lacuna.queue     it waits for a slot
                     +- lacuna.prefill   from its slot to the end of the first forward that decides positions of it
                     +- lacuna.block     one block, from its first denoising step to its last
                     |  +- lacuna.forward   the block's first forward, one span per rank
                     +- lacuna.block ...

The forward that ends the prefill is also the first one of the first block, as it mostly computes both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from engine.errors import InvalidRequestError, LacunaError

Attributes = Mapping[str, str | int | float | bool]

_W3C = TraceContextTextMapPropagator()


def parent_context(traceparent: str | None, tracestate: str | None = None) -> Context:
    """The context that W3C headers describe; without a parent where there is none or it cannot be read."""
    carrier = {"traceparent": traceparent or "", "tracestate": tracestate or ""}
    return _W3C.extract(carrier, Context())


@dataclass(frozen=True, slots=True)
class TraceHeaders:
    """W3C's trace context as text; None where there is none."""

    traceparent: str | None = None
    tracestate: str | None = None


def trace_headers(span: Span) -> TraceHeaders:
    """By which others become children of ``span``; empty for a span without ids."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, trace.set_span_in_context(span, Context()))
    return TraceHeaders(**carrier)


def set_error(span: Span, error: BaseException) -> None:
    """Mark a span as failed. The message of a wrong request may repeat a client's words, and that of an unknown error
    anything: of these only the class is told."""
    told = isinstance(error, LacunaError) and not isinstance(error, InvalidRequestError)
    span.set_status(Status(StatusCode.ERROR, str(error) if told else None))
    span.set_attribute("error.type", type(error).__name__)


@dataclass(frozen=True, slots=True)
class Work:
    """What a sequence has cost up to some moment, and the tokens that it got for it."""

    forwards: int = 0
    denoising_steps: int = 0
    positions: int = 0
    tokens: int = 0

    def __sub__(self, earlier: Work) -> Work:
        return Work(*(now - before for now, before in zip(astuple(self), astuple(earlier), strict=True)))

    def attributes(self) -> Attributes:
        """As attributes of a span."""
        return {
            "lacuna.forwards": self.forwards,
            "lacuna.denoising_steps": self.denoising_steps,
            "lacuna.positions_computed": self.positions,
            "lacuna.tokens": self.tokens,
            "lacuna.tokens_per_forward": self.tokens / self.forwards if self.forwards else 0.0,
        }


class EngineTelemetry:
    """Opens the traces of sequences. Without a provider it is the process's own, if it has one."""

    def __init__(self, provider: TracerProvider | None = None, num_ranks: int = 1) -> None:
        self._tracer = trace.get_tracer("lacuna.engine", tracer_provider=provider)
        self._num_ranks = num_ranks

    def open(self, traceparent: str | None, tracestate: str | None, arrived_ns: int) -> SequenceTrace | None:
        """The trace of a sequence that waits since ``arrived_ns``; None where nobody records it."""
        parent = parent_context(traceparent, tracestate)
        caller = trace.get_current_span(parent).get_span_context()
        if caller.is_valid and not caller.trace_flags.sampled:
            return None
        span = self._tracer.start_span("lacuna.sequence", parent, start_time=arrived_ns)
        return SequenceTrace(self._tracer, span, arrived_ns, self._num_ranks) if span.is_recording() else None


class SequenceTrace:
    """Owns the spans of one sequence that have begun and not ended; only the engine's thread touches them.

    ``block`` is where the block in progress is, [start, end) of the canvas; None between blocks.
    """

    def __init__(self, tracer: Tracer, span: Span, arrived_ns: int, num_ranks: int) -> None:
        self._tracer = tracer
        self._span = span
        self._num_ranks = num_ranks
        self._live: dict[str, Span] = {"lacuna.sequence": span}
        self._num_blocks = 0
        self._before = Work()
        self.block: tuple[int, int] | None = None
        self._begin("lacuna.queue", "lacuna.sequence", arrived_ns)

    def describe(self, attributes: Attributes) -> None:
        """What is known of the sequence when it comes."""
        self._span.set_attributes(attributes)

    def admitted(self) -> None:
        """It has its slot."""
        self._end("lacuna.queue")
        self._begin("lacuna.prefill", "lacuna.sequence")

    def suspended(self) -> None:
        """It has lost its slot and waits for another."""
        self._end("lacuna.prefill")
        self._begin("lacuna.queue", "lacuna.sequence")

    def begin_block(self, block: tuple[int, int], before: Work) -> None:
        """The next forward is the first one that decides positions of ``block``; ``before`` excludes it."""
        self.block, self._before = block, before
        self._begin("lacuna.block", "lacuna.sequence")

    def begin_forward(self, attributes: Attributes) -> str | None:
        """The block's first forward begins; returns the context for the same forward on other ranks."""
        self._begin("lacuna.forward", "lacuna.block")
        self._live["lacuna.forward"].set_attributes({"lacuna.rank": 0, **attributes})
        return trace_headers(self._live["lacuna.block"]).traceparent

    def end_forward(self) -> None:
        """Its result is here."""
        self._end("lacuna.forward")

    def end_prefill(self, work: Work) -> None:
        """The first forward that decides has ended; does nothing later on."""
        self._end("lacuna.prefill", work)

    def end_block(self, work: Work, batch_size: int) -> None:
        """The block is complete, or its sequence has ended; ``batch_size`` sequences run now."""
        if self.block is None:
            return
        start, end = self.block
        self._live["lacuna.block"].set_attributes(
            {
                "lacuna.block.index": self._num_blocks,
                "lacuna.block.start": start,
                "lacuna.block.end": end,
                "lacuna.batch_size": batch_size,
                "lacuna.ranks": self._num_ranks,
            }
        )
        self._end("lacuna.block", work - self._before)
        self._num_blocks += 1
        self.block = None

    def finish(self, reason: str, work: Work) -> None:
        """The sequence has left the engine; what had not ended has been cut short."""
        self._span.set_attributes({"lacuna.finish_reason": reason, "lacuna.blocks": self._num_blocks})
        self._span.set_attributes(work.attributes())
        self._end_all()

    def fail(self, error: BaseException) -> None:
        """The engine did not take the sequence, or has stopped."""
        set_error(self._span, error)
        self._end_all()

    def _begin(self, name: str, parent: str, start_ns: int | None = None) -> None:
        context = trace.set_span_in_context(self._live[parent], Context())
        self._live[name] = self._tracer.start_span(name, context, start_time=start_ns)

    def _end(self, name: str, work: Work | None = None) -> None:
        if (span := self._live.pop(name, None)) is not None:
            if work is not None:
                span.set_attributes(work.attributes())
            span.end()

    def _end_all(self) -> None:
        for name in reversed(list(self._live)):
            self._end(name)


class RankTelemetry:
    """Makes the spans of a rank other than the first: of those forwards whose plan has a context."""

    def __init__(self, rank: int, provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("lacuna.engine", tracer_provider=provider)
        self._rank = rank

    @contextmanager
    def forward(self, traceparent: str | None) -> Iterator[None]:
        """Around the execution of a plan."""
        if traceparent is None:
            yield
            return
        span = self._tracer.start_span("lacuna.forward", parent_context(traceparent))
        span.set_attribute("lacuna.rank", self._rank)
        try:
            yield
        except Exception as error:
            set_error(span, error)
            raise
        finally:
            span.end()
