"""One workload by a published loop and by the engine, in turns, with the tokens of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from engine.bench.references import fast_dllm, sdar
from engine.bench.references.network import PublishedNetwork
from engine.bench.references.published_run import PublishedRun
from engine.bench.throughput.roofline import Clock
from engine.build import assemble_core
from engine.config import EngineConfig
from engine.llm_engine import LLMEngine
from engine.models.spec import DiffusionLM
from engine.outputs import RequestOutput
from engine.sampling_params import SamplingParams
from engine.sequence import GenerationRequest
from engine.tokenizer import MissingTokenizer

Tokens = tuple[tuple[int, ...], ...]
"""The completions of a workload's requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Requests with prompts of one length (what the published loops can batch) and completions of ``lengths``.
    ``threshold`` None: one position at each step."""

    prompts: Sequence[Sequence[int]]
    lengths: Sequence[int]
    block_length: int
    threshold: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a workload took."""

    seconds: float
    forwards: int
    positions: int
    tokens: Tokens

    def to_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds, "forwards": self.forwards, "positions": self.positions}


class System(Protocol):
    """Something that completes a workload."""

    def __call__(self, workload: Workload) -> Cost: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The fastest run of the engine and of a published loop, put to the workload in the way ``reference``.
    ``equal_tokens`` of how many requests the completions are the same."""

    reference: str
    published: Cost
    engine: Cost

    @property
    def ratio(self) -> float:
        return self.published.seconds / self.engine.seconds

    @property
    def equal_tokens(self) -> int:
        return sum(a == b for a, b in zip(self.published.tokens, self.engine.tokens, strict=True))

    def to_dict(self) -> dict[str, object]:
        published, engine = self.published.to_dict(), self.engine.to_dict()
        numbers = {"ratio": self.ratio, "equal_tokens": self.equal_tokens}
        return {"reference": self.reference, **numbers, "published": published, "engine": engine}


class Engine:
    """This engine over ``model``, all requests of a workload at once."""

    def __init__(self, model: DiffusionLM, config: EngineConfig, max_model_len: int, clock: Clock) -> None:
        core = assemble_core(model, config, max_model_len)
        self._engine = LLMEngine(core, model.spec, MissingTokenizer(), config, max_model_len)
        self._clock = clock

    def __call__(self, workload: Workload) -> Cost:
        engine = self._engine
        strategy = engine.strategy(self._options(workload))
        before, started = engine.stats(), self._clock.now()
        for index, (prompt, length) in enumerate(zip(workload.prompts, workload.lengths, strict=True)):
            sampling = SamplingParams(max_tokens=length, ignore_eos=True, seed=index)
            request = GenerationRequest(
                request_id=str(index), prompt=list(prompt), sampling=sampling, strategy=strategy, stream="final"
            )
            engine.add_request(request)
        finished: dict[str, RequestOutput] = {}
        while engine.has_unfinished_requests():
            finished |= {output.request_id: output for output in engine.step() if output.finished}
        seconds, after = self._clock.now() - started, engine.stats()
        return Cost(
            seconds=seconds,
            forwards=after.forwards - before.forwards,
            positions=after.positions - before.positions,
            tokens=tuple(tuple(finished[str(index)].token_ids) for index in range(len(workload.prompts))),
        )

    def _options(self, workload: Workload) -> Mapping[str, object]:
        options: dict[str, object] = {"block_length": workload.block_length}
        if self._engine.spec.attention == "bidirectional":
            options["cache"] = "dual"
            rule = "threshold" if workload.threshold is not None else "low_confidence"
        else:
            rule = "low_confidence_dynamic" if workload.threshold is not None else "low_confidence_static"
        return options | {"decoder": rule} | ({} if workload.threshold is None else {"threshold": workload.threshold})


class Published:
    """The loop that was published with the family of ``network``."""

    def __init__(self, network: PublishedNetwork, clock: Clock) -> None:
        self._network = network
        self._clock = clock

    def ways(self) -> Mapping[str, System]:
        """How a workload can be put to it: Fast-dLLM's takes batches, which end with their longest completion. Last one
        by one, as which a single request goes in any way."""
        if self._network.spec.attention == "bidirectional":
            return {"Fast-dLLM in lock step": self._in_lock_step, "Fast-dLLM one by one": self._one_by_one}
        return {"SDAR one by one": self._one_by_one}

    def _in_lock_step(self, workload: Workload) -> Cost:
        prompts_BP = torch.tensor(workload.prompts)
        return self._timed(
            workload,
            lambda: [
                fast_dllm.generate(
                    self._network, prompts_BP, max(workload.lengths), workload.block_length, workload.threshold
                )
            ],
        )

    def _one_by_one(self, workload: Workload) -> Cost:
        def runs() -> list[PublishedRun]:
            return [
                self._alone(prompt, length, workload)
                for prompt, length in zip(workload.prompts, workload.lengths, strict=True)
            ]

        return self._timed(workload, runs)

    def _alone(self, prompt: Sequence[int], length: int, workload: Workload) -> PublishedRun:
        prompt_P, rule = torch.tensor(prompt), (workload.block_length, workload.threshold)
        if self._network.spec.attention == "bidirectional":
            whole = -(-length // workload.block_length) * workload.block_length
            return fast_dllm.generate(self._network, prompt_P[None], whole, *rule)
        return sdar.generate(self._network, prompt_P, length, *rule)

    def _timed(self, workload: Workload, work: Callable[[], list[PublishedRun]]) -> Cost:
        started = self._clock.now()
        runs = work()
        seconds = self._clock.now() - started
        rows = [row for run in runs for row in run.canvas_BL.tolist()]
        return Cost(
            seconds=seconds,
            forwards=sum(run.forwards for run in runs),
            positions=sum(run.positions for run in runs),
            tokens=tuple(
                tuple(row[len(prompt) : len(prompt) + length])
                for row, prompt, length in zip(rows, workload.prompts, workload.lengths, strict=True)
            ),
        )


def compare(
    published: Mapping[str, System],
    engine: System,
    workload: Workload,
    repeats: int,
    on_run: Callable[[str], None] = lambda run: None,
) -> list[Comparison]:
    """All sides in turns after a round that warms up; the published loop in every way that differs. ``on_run`` is told
    what runs next."""
    ways = dict(published) if len(workload.prompts) > 1 else dict(list(published.items())[-1:])
    systems = {**ways, "engine": engine}
    rounds: list[dict[str, Cost]] = []
    for number in range(1 + repeats):
        costs = {}
        for name, system in systems.items():
            on_run(f"{name}, {f'run {number} of {repeats}' if number else 'warm-up'}")
            costs[name] = system(workload)
        rounds.append(costs)
    best = {name: min((costs[name] for costs in rounds[1:]), key=lambda cost: cost.seconds) for name in systems}
    return [Comparison(reference=way, published=best[way], engine=best["engine"]) for way in ways]
