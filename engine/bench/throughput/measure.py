"""One workload through the engine, with the time of each part and the work that it had to do at least."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from engine.attention.backend import AttentionBackend
from engine.bench.throughput.roofline import Clock, Roofline, Work, body_work, head_work
from engine.build import assemble_core
from engine.config import EngineConfig, resolve_cuda_graphs
from engine.core import EngineStats
from engine.decoding.vocabulary import Best, Vocabulary
from engine.executor import Executor, LocalExecutor
from engine.llm_engine import LLMEngine
from engine.model_runner import ModelRunner
from engine.models.spec import CheckpointTensor, DiffusionLM, ModelSpec
from engine.outputs import RequestOutput, Usage
from engine.plan import IterationPlan, StepResult
from engine.read_tokens import read_tokens
from engine.sampling_params import SamplingParams
from engine.sequence import GenerationRequest
from engine.tokenizer import MissingTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """So many requests at once: lengths of prompt and completion of each, and the strategy of all."""

    prompt_lens: Sequence[int]
    completion_lens: Sequence[int]
    strategy: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Times:
    """Seconds: the whole steps, of these the rank's share, of that the layers and the output head; and the least work
    of layers and head."""

    step_s: float = 0.0
    execute_s: float = 0.0
    body_s: float = 0.0
    head_s: float = 0.0
    head_positions: int = 0
    body: Work = field(default_factory=lambda: Work(0.0, 0.0))
    head: Work = field(default_factory=lambda: Work(0.0, 0.0))
    floor_s: float = 0.0

    def reset(self) -> None:
        """Begin to count again."""
        for item in fields(self):
            fresh = item.default_factory() if callable(item.default_factory) else item.default
            setattr(self, item.name, fresh)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Results of a workload. Shares are of the whole time; ``limit_share`` is the least possible time of the matrix
    products over the time of layers and head (of whole forwards, where parts are not timed: then ``body_share`` is that
    of the forwards). ``forward_ms`` is a forward's time up to the copy of its result, ``floor_ms`` the least possible;
    ``graph_forwards`` were replayed, ``idle_positions`` computed for blocks that were complete."""

    tokens: int
    forwards: int
    positions: int
    seconds: float
    tokens_per_s: float
    tokens_per_forward: float
    positions_per_token: float
    body_share: float
    head_share: float
    decide_share: float
    host_share: float
    flops_utilisation: float
    bytes_utilisation: float
    limit_share: float
    peak_memory_mib: float
    forward_ms: float
    floor_ms: float
    graph_forwards: int
    idle_positions: int

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


class TimedModel(DiffusionLM):
    """A network whose layers and output head are timed; everything else is the network's own."""

    def __init__(self, model: DiffusionLM, times: Times, clock: Clock | None = None) -> None:
        super().__init__()
        self.spec = model.spec
        self._model = model
        self._times = times
        self._clock = clock or Clock(next(model.parameters()).device)

    @property
    def num_kv_heads(self) -> int:
        return self._model.num_kv_heads

    @property
    def vocabulary(self) -> Vocabulary:
        return self._model.vocabulary

    def embed(self, token_ids_T: Tensor) -> Tensor:
        return self._model.embed(token_ids_T)

    def mix(self, weights_MV: Tensor) -> Tensor:
        return self._model.mix(weights_MV)

    def forward(
        self, embeddings_TD: Tensor, positions_T: Tensor, attention: AttentionBackend, read_M: Tensor | None = None
    ) -> Tensor:
        started = self._clock.now()
        hidden_TD: Tensor = self._model(embeddings_TD, positions_T, attention, read_M)
        self._times.body_s += self._clock.now() - started
        return hidden_TD

    def compute_logits(self, hidden_MD: Tensor) -> Tensor:
        started = self._clock.now()
        logits_MV = self._model.compute_logits(hidden_MD)
        self._times.head_s += self._clock.now() - started
        self._times.head_positions += len(hidden_MD)
        return logits_MV

    def best(self, hidden_MD: Tensor, without: int) -> Best:
        started = self._clock.now()
        best = self._model.best(hidden_MD, without)
        self._times.head_s += self._clock.now() - started
        self._times.head_positions += len(hidden_MD)
        return best

    def checkpoint_tensors(self) -> Iterator[CheckpointTensor]:
        return self._model.checkpoint_tensors()


class TimedExecutor:
    """A local rank whose steps are timed and whose least work is counted. With ``whole`` nothing times the head: its
    positions are those that were open when the host looked last, and the forward's time counts as the layers'."""

    def __init__(
        self,
        runner: ModelRunner,
        times: Times,
        spec: ModelSpec,
        roofline: Roofline,
        itemsize: int,
        clock: Clock,
        *,
        whole: bool,
    ) -> None:
        self._whole = whole
        self._inner: Executor = LocalExecutor(runner)
        self._times = times
        self._spec = spec
        self._roofline = roofline
        self._itemsize = itemsize
        self._clock = clock

    def execute(self, plan: IterationPlan) -> StepResult:
        times = self._times
        before = times.head_positions
        started = self._clock.now()
        result = self._inner.execute(plan)  # ends with the copy to the host
        seconds = self._clock.now() - started
        times.execute_s += seconds
        if self._whole:
            times.body_s += seconds
            times.head_positions += len(plan.decoded.open_block_M) * plan.num_steps
        body = body_work(self._spec, plan.rows, self._itemsize, self._num_read(plan))
        head = head_work(self._spec, (times.head_positions - before) // plan.num_steps, self._itemsize)
        for _ in range(plan.num_steps):
            times.body, times.head = times.body + body, times.head + head
            times.floor_s += self._roofline.floor_s(body) + self._roofline.floor_s(head)
        return result

    def _num_read(self, plan: IterationPlan) -> int | None:
        """For how many tokens the last layer has to be computed to its end; None: for all."""
        moe = self._spec.moe
        if moe is not None and moe.routing.per_block:
            return None
        read_M = read_tokens(plan, np.zeros(len(plan.decoded), np.bool_), self._spec.logit_shift)
        return None if read_M is None else len(read_M)


class Bench:
    """Owns an engine over ``model`` whose parts are timed, by the wall or by CPU time.

    Where steps are recorded as graphs, and with ``whole``, only whole forwards are: to time a part the host has to wait
    for the device.
    """

    def __init__(
        self,
        model: DiffusionLM,
        config: EngineConfig,
        max_model_len: int,
        roofline: Roofline,
        *,
        whole: bool = False,
        cpu_time: bool = False,
    ) -> None:
        self._times = Times()
        weight = next(model.parameters())
        whole = whole or resolve_cuda_graphs(config, weight.device)
        clock = Clock(weight.device, cpu=cpu_time)
        self._clock = Clock(torch.device("cpu"), cpu=cpu_time)  # a step ends with the copy to the host
        itemsize = 1 if config.quantization == "int8" else weight.dtype.itemsize  # of weights, and K/V no less

        def executor(runner: ModelRunner) -> Executor:
            return TimedExecutor(runner, self._times, model.spec, roofline, itemsize, self._clock, whole=whole)

        network = model if whole else TimedModel(model, self._times, clock)
        core = assemble_core(network, config, max_model_len, executor=executor)
        self._engine = LLMEngine(core, model.spec, MissingTokenizer(), config, max_model_len)
        self._roofline = roofline
        self._num_runs = 0

    def best_of(self, workload: Workload, repeats: int) -> Measurement:
        """The fastest of ``repeats`` runs, after one that warms up."""
        return self.best_of_each([workload], repeats)[0]

    def best_of_each(self, workloads: Sequence[Workload], repeats: int) -> list[Measurement]:
        """The fastest run of each workload. They take turns, so that a busy minute of the machine does not fall on all
        runs of one."""
        rounds = [[self.run(workload) for workload in workloads] for _ in range(1 + repeats)][1:]
        return [min(runs, key=lambda one: one.seconds) for runs in zip(*rounds, strict=True)]

    def run(self, workload: Workload) -> Measurement:
        """One run."""
        engine, times = self._engine, self._times
        times.reset()
        self._num_runs += 1
        before = engine.stats()
        for request in self._requests(workload):
            engine.add_request(request)
        outputs: list[RequestOutput] = []
        while engine.has_unfinished_requests():
            started = self._clock.now()
            outputs += engine.step()
            times.step_s += self._clock.now() - started
        finished = [output.usage for output in outputs if output.finished]
        return self._measurement(finished, before, engine.stats())

    def _requests(self, workload: Workload) -> Iterator[GenerationRequest]:
        """Prompts of seeded random ids; completions never end early and runs share no K/V, so that every run does the
        same work."""
        spec = self._engine.spec
        rng = np.random.default_rng(0)
        strategy = self._engine.strategy(workload.strategy)
        for index, (prompt_len, max_tokens) in enumerate(
            zip(workload.prompt_lens, workload.completion_lens, strict=True)
        ):
            yield GenerationRequest(
                request_id=str(index),
                prompt=rng.integers(0, spec.mask_token_id, prompt_len).tolist(),
                sampling=SamplingParams(max_tokens=max_tokens, ignore_eos=True, seed=index),
                strategy=strategy,
                stream="final",
                cache_salt=str(self._num_runs),
            )

    def _measurement(self, usages: Sequence[Usage], before: EngineStats, after: EngineStats) -> Measurement:
        times, limits = self._times, self._roofline
        forwards = after.forwards - before.forwards
        tokens = sum(usage.completion_tokens for usage in usages)
        positions = sum(usage.positions_computed for usage in usages)
        products_s = times.body_s + times.head_s
        work = times.body + times.head
        return Measurement(
            tokens=tokens,
            forwards=forwards,
            positions=positions,
            seconds=times.step_s,
            tokens_per_s=tokens / times.step_s,
            tokens_per_forward=tokens / sum(usage.forwards for usage in usages),
            positions_per_token=positions / tokens,
            body_share=times.body_s / times.step_s,
            head_share=times.head_s / times.step_s,
            decide_share=(times.execute_s - products_s) / times.step_s,
            host_share=(times.step_s - times.execute_s) / times.step_s,
            flops_utilisation=work.flops / products_s / limits.flops_per_s,
            bytes_utilisation=work.bytes / products_s / limits.bytes_per_s,
            limit_share=times.floor_s / products_s,
            peak_memory_mib=peak_memory_mib(),
            forward_ms=times.execute_s / forwards * 1e3,
            floor_ms=times.floor_s / forwards * 1e3,
            graph_forwards=after.graph_forwards - before.graph_forwards,
            idle_positions=after.idle_positions - before.idle_positions,
        )


def peak_memory_mib() -> float:
    """The most memory this process has had: of the device where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
