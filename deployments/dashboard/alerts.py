"""Alert rules for Prometheus; what to do about each is in ``deployments/RUNBOOK.md``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deployments.metrics.catalogue import METRICS

RUNBOOK = "deployments/RUNBOOK.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """``expr`` holds for ``minutes`` before anybody is told."""

    name: str
    expr: str
    minutes: int
    severity: Literal["critical", "warning"]
    summary: str

    def rule(self) -> dict[str, object]:
        """As Prometheus reads it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": f"{self.minutes}m",
            "labels": {"severity": self.severity},
            "annotations": {"summary": self.summary, "runbook": f"{RUNBOOK}#{self.name.lower()}"},
        }


def _series(name: str, **only: str) -> str:
    spec = METRICS[name]
    assert spec.kind != "histogram"
    assert set(only) <= set(spec.labels)
    return spec.series + ("{" + ", ".join(f'{label}="{value}"' for label, value in only.items()) + "}" if only else "")


def _rate(name: str, by: str, matching: str = "", window: str = "5m") -> str:
    return f"sum by ({by}) (rate({_series(name)}{matching}[{window}]))"


_DEPTH = _series("router_queue_depth")
_FREE_PAGES = _series("engine_pages", state="free")

ALERTS = (
    Alert(
        name="LacunaNoReplica",
        expr=f"{_DEPTH} > 0 and {_series('router_replicas')} == 0",
        minutes=10,
        severity="critical",
        summary="Requests for {{ $labels.model }} wait and no engine replica lives.",
    ),
    Alert(
        name="LacunaQueueGrows",
        expr=f"avg_over_time({_DEPTH}[5m]) > 10 and deriv({_DEPTH}[15m]) > 0",
        minutes=10,
        severity="warning",
        summary="The queue of {{ $labels.model }} is long and grows.",
    ),
    Alert(
        name="LacunaRefusesRequests",
        expr=_rate("router_refused", "model, reason", '{reason!="no_spare_place"}') + " > 0",
        minutes=5,
        severity="warning",
        summary="Requests for {{ $labels.model }} are refused: {{ $labels.reason }}.",
    ),
    Alert(
        name="LacunaReplicasMissing",
        expr=f"{_series('router_wanted_replicas')} > {_series('router_replicas')}",
        minutes=20,
        severity="warning",
        summary="{{ $labels.model }} needs more replicas than it gets.",
    ),
    Alert(
        name="LacunaErrorRate",
        expr=_rate("requests", "model", '{status="5xx"}') + " / " + _rate("requests", "model") + " > 0.05",
        minutes=5,
        severity="critical",
        summary="More than 5 % of the requests for {{ $labels.model }} fail on the server's side.",
    ),
    Alert(
        name="LacunaReplays",
        expr=f"increase({_series('replays')}[15m]) > 0",
        minutes=0,
        severity="warning",
        summary="A replica of {{ $labels.model }} was lost while it worked; its requests went on elsewhere.",
    ),
    Alert(
        name="LacunaNoFreePages",
        expr=f"{_FREE_PAGES} == 0 and ignoring (state) {_series('engine_waiting_sequences')} > 0",
        minutes=15,
        severity="warning",
        summary="An engine of {{ $labels.model }} has had no free pages for its waiting sequences.",
    ),
    Alert(
        name="LacunaLedgerUnwritable",
        expr=f"{_series('ledger_healthy')} == 0",
        minutes=10,
        severity="warning",
        summary="The ledger of the experiments cannot be written.",
    ),
    Alert(
        name="LacunaScrapeIncomplete",
        expr=f"{_series('scrape_failed')} == 1",
        minutes=5,
        severity="warning",
        summary="The {{ $labels.component }} {{ $labels.model }} does not say what it measures.",
    ),
    Alert(
        name="LacunaScrapeMissing",
        expr=f"absent({_series('scrape_duration_seconds')})",
        minutes=5,
        severity="critical",
        summary="Nothing of Lacuna is scraped.",
    ),
)


def rules() -> dict[str, object]:
    """The content of a rule file, or of a PrometheusRule's ``spec``."""
    return {"groups": [{"name": "lacuna", "rules": [alert.rule() for alert in ALERTS]}]}
