"""All checks, and the report on them. A new check is a function that yields findings, and a line in ``CHECKS``."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deployments.doctor.cluster import check_cluster
from deployments.doctor.devices import check_gpus, check_processor
from deployments.doctor.finding import Check, Finding, Status, Subject, failure
from deployments.doctor.ledger import check_ledger
from deployments.doctor.models import check_checkpoints, check_memory, check_settings
from deployments.doctor.ports import check_access, check_ports
from deployments.doctor.room import check_local_room
from deployments.doctor.system import check_clock, check_disk, check_open_files, check_shared_memory
from deployments.doctor.versions import check_generated_code, check_packages, check_pins, check_python
from engine.errors import LacunaError

CHECKS: tuple[Check, ...] = (
    check_python,
    check_packages,
    check_pins,
    check_generated_code,
    check_processor,
    check_gpus,
    check_open_files,
    check_shared_memory,
    check_disk,
    check_clock,
    check_settings,
    check_checkpoints,
    check_memory,
    check_local_room,
    check_ports,
    check_access,
    check_ledger,
    check_cluster,
)
STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILURE: "bold red"}


def examine(subject: Subject, checks: Iterable[Check] = CHECKS) -> list[Finding]:
    """Run the checks in order. One that cannot look (a file of /proc that is not for us, say) is a failure itself."""
    found: list[Finding] = []
    for check in checks:
        try:
            found += check(subject)
        except (OSError, LacunaError) as error:
            found.append(failure(check.__name__.removeprefix("check_"), f"could not look: {error}", "see the message"))
    return found


def fails(findings: Iterable[Finding]) -> bool:
    return any(finding.status is Status.FAILURE for finding in findings)


def render(findings: Sequence[Finding], width: int, *, colour: bool) -> str:
    """A table in plain ASCII characters, and a last line with the sum."""
    table = Table("check", "status", "found", box=box.ASCII, pad_edge=False)
    for finding in findings:
        text = Text(finding.message)
        if finding.remedy:
            text.append(f"\n-> {finding.remedy}", style="bold")
        table.add_row(finding.check, Text(finding.status, style=STYLES[finding.status]), text)
    target = io.StringIO()
    console = Console(
        file=target, width=width, force_terminal=colour, no_color=not colour, highlight=False, emoji=False
    )
    console.print(table)
    console.print(summary(findings))
    return target.getvalue()


def summary(findings: Sequence[Finding]) -> str:
    counts = {status: sum(finding.status is status for finding in findings) for status in Status}
    verdict = "This cannot be served as it is." if counts[Status.FAILURE] else "Ready to serve."
    return f"{counts[Status.FAILURE]} failures, {counts[Status.WARNING]} warnings, {counts[Status.OK]} ok. {verdict}"
