"""The one line that every answered request leaves."""

from __future__ import annotations

import logging
import time

from deployments.logs.request_log import RequestLog

logger = logging.getLogger(__name__)


def log_access(log: RequestLog, transport: str, method: str, route: str, status: int) -> None:
    """``route`` is the server's own name of it, ``status`` the HTTP status (that says the same, for gRPC)."""
    fields: dict[str, object] = {
        "transport": transport,
        "method": method,
        "route": route,
        "status": status,
        "duration_s": round(time.monotonic() - log.started_s, 6),
    }
    named = {"model": log.model, "api_key": log.api_key_name, "arm": log.arm, "error": log.error}
    fields |= {name: value for name, value in named.items() if value}
    fields |= _cost(log)
    if log.keeps_texts and log.prompts:
        fields["prompts"] = log.prompts
        fields["completions"] = [text for _, text in sorted(log.completions.items())]
    logger.info("%s %s %d", method, route, status, extra={"fields": fields})


def _cost(log: RequestLog) -> dict[str, object]:
    usage = log.usage
    if usage is None:
        return {}
    return {
        "strategy": usage.strategy.name if usage.strategy else "unfinished",
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "forwards": usage.forwards,
        "tokens_per_forward": round(usage.tokens_per_forward, 3),
    }
