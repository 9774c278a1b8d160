"""What a client saw of one request."""

from __future__ import annotations

from dataclasses import dataclass, field

from deployments.bench.load.requests import LoadRequest


@dataclass(slots=True)
class Record:
    """Times are seconds of ``time.perf_counter``. ``scheduled_s`` is when the request was due: with an open loop its
    schedule says so, and latency counts from there even where the generator was late or a connection had to wait, so
    that slow answers do not hide by making later requests start later. ``error`` names the kind, "" when all went well.
    """

    request: LoadRequest
    scheduled_s: float
    sent_s: float = 0.0
    chunks_s: list[float] = field(default_factory=list)
    ended_s: float = 0.0
    completion_tokens: int = 0
    prompt_tokens: int = 0
    forwards: int = 0
    error: str = ""

    @property
    def succeeded(self) -> bool:
        return not self.error

    @property
    def late_s(self) -> float:
        """How late the generator sent it."""
        return self.sent_s - self.scheduled_s

    @property
    def total_s(self) -> float:
        return self.ended_s - self.scheduled_s

    @property
    def first_s(self) -> float:
        """To the first block; of an answer that comes whole, to its end."""
        return (self.chunks_s[0] if self.chunks_s else self.ended_s) - self.scheduled_s

    def gaps_s(self) -> list[float]:
        """From each block to the next."""
        return [after - before for before, after in zip(self.chunks_s, self.chunks_s[1:], strict=False)]
