"""Who executes a plan: this process alone, or all ranks of a sharded replica (``cluster/``)."""

from __future__ import annotations

from typing import Protocol

from engine.model_runner import ModelRunner
from engine.plan import IterationPlan, StepResult


class Executor(Protocol):
    """Executes plans in order. An exception means that the replica cannot go on."""

    def execute(self, plan: IterationPlan) -> StepResult:
        """Run one forward on every rank."""
        ...


class LocalExecutor:
    """One rank, in this process."""

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner

    def execute(self, plan: IterationPlan) -> StepResult:
        return self._runner.execute(plan)
