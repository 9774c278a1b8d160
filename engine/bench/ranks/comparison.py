"""Several ranks beside one: figures and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.table import Table

from engine.bench.ranks.measure import Measurement


@dataclass(frozen=True, slots=True)
class Compared:
    """A layout beside one rank alone; the same tokens are expected of both."""

    shape: str
    layout: str
    ranks: int
    one: Measurement
    many: Measurement

    @property
    def equal(self) -> bool:
        return self.one.tokens == self.many.tokens

    @property
    def overhead(self) -> float:
        """How much longer a forward takes the ranks than an even share of one rank's computing would."""
        return self.many.busy_s / (self.one.compute_s / self.ranks) - 1

    def to_dict(self) -> Mapping[str, object]:
        measured = asdict(self.many)
        del measured["tokens"]
        return {
            "shape": self.shape,
            "layout": self.layout,
            "ranks": self.ranks,
            "tokens_equal": self.equal,
            "one_rank_compute_s": self.one.compute_s,
            "one_rank_step_s": self.one.step_s,
            "overhead": self.overhead,
            "sent_bytes_per_token": self.many.sent_bytes_per_token,
            "byte_ratio": self.many.byte_ratio,
            **measured,
        }


def times_table(results: Sequence[Compared], workload: str) -> Table:
    """What a forward takes, and whether its tokens are those of one rank."""
    title = (
        f"ms of a mean forward; {workload}; one thread per rank. compute: CPU time of the slowest rank, plan coding "
        "included. All else: the shortest of runs and ranks. overhead: compute, exchange and sending over an even "
        "share of one rank's compute"
    )
    heads = "compute of one|compute|collectives|exchange|encode plan|send plan|decode plan|heartbeat|overhead|tokens"
    table = _empty_table(title, heads)
    for one in results:
        many = one.many
        table.add_row(
            one.shape,
            one.layout,
            str(one.ranks),
            *(f"{seconds * 1e3:.2f}" for seconds in (one.one.compute_s, many.compute_s)),
            f"{many.collectives:.1f}",
            *(f"{seconds * 1e3:.2f}" for seconds in (many.exchange_s, many.encode_s, many.send_s)),
            *(f"{seconds * 1e3:.2f}" for seconds in (many.decode_s, many.beat_s)),
            f"{one.overhead:+.0%}",
            "equal" if one.equal else "DIFFER",
        )
    return table


def bytes_table(results: Sequence[Compared]) -> Table:
    """What a forward sends."""
    title = "KiB that all ranks together send in a mean forward, as the system counts them, and the least that will do"
    table = _empty_table(title, "tensors|plans|sent|least tensors|least plans|sent : least|sent per token")
    for one in results:
        many = one.many
        least = (many.least.layers + many.least.vocabulary, many.least.plan)
        table.add_row(
            one.shape,
            one.layout,
            str(one.ranks),
            *(f"{size / 1024:.1f}" for size in (many.tensor_bytes, many.plan_bytes, many.sent_bytes)),
            *(f"{size / many.forwards / 1024:.1f}" for size in least),
            f"{many.byte_ratio:.3f}",
            f"{many.sent_bytes_per_token / 1024:.1f}",
        )
    return table


def _empty_table(title: str, heads: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("shape", no_wrap=True)
    table.add_column("layout", no_wrap=True)
    for head in ("ranks", *heads.split("|")):
        table.add_column(head, justify="right")
    return table
