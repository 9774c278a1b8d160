"""What a generation leaves in the log of its request."""

from __future__ import annotations

from dataclasses import asdict

from deployments.logs.request_log import RequestLog, current
from deployments.messages import Increment, Job, Prompt
from deployments.telemetry import current_ids
from engine.outputs import Usage


class GenerationNotes:
    """Fills the log of the request that the current task works on, where there is one."""

    def __init__(self, job: Job, arm: str) -> None:
        self._log = current() or RequestLog(job.request_id)
        self._log.arm = arm
        self._log.trace_ids = current_ids() or self._log.trace_ids
        if self._log.keeps_texts:
            self._log.prompts += [_given(call.prompt) for call in job.calls[:: job.num_choices]]
            self._log.prompts += [str(part) for part in job.calls[0].template or ()]

    def increment(self, index: int, increment: Increment) -> None:
        """A sequence went on."""
        if self._log.keeps_texts:
            text = increment.output.text + "".join(gap.text for gap in increment.gaps or ())
            self._log.completions[index] = self._log.completions.get(index, "") + text

    def cost(self, usage: Usage) -> None:
        """What the request has cost, at its end."""
        self._log.usage = usage


def _given(prompt: Prompt) -> object:
    if prompt.messages is not None:
        return [asdict(message) for message in prompt.messages]
    return prompt.text if prompt.text is not None else prompt.token_ids
