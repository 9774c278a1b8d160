"""The EngineReplica deployment: one engine of one model behind Serve."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from functools import partial

from cluster.rank_worker import GroupSettings
from cluster.worker_group import WorkerGroup
from deployments.config import ModelConfig
from deployments.experiments.config import ExperimentConfig, check_arms
from deployments.identity import own_replica_id
from deployments.infill import InfillTask, check_visible
from deployments.logs.config import LogConfig
from deployments.logs.request_log import RequestLog, begin
from deployments.logs.setup import set_up_rank, set_up_replica
from deployments.messages import GenerateCall, Increment, ModelCard, Prompt, StrategyPart
from deployments.metrics.engine_samples import engine_samples
from deployments.metrics.spec import Sample
from deployments.presentation import Presenter, echo_of
from deployments.streams import until
from deployments.telemetry.context import entered, within
from deployments.telemetry.generations import generation
from deployments.telemetry.settings import TelemetryConfig
from deployments.telemetry.tracing import rank_tracing, start_tracing
from engine.async_engine import AsyncEngine
from engine.errors import InvalidRequestError, LacunaError
from engine.llm_engine import LLMEngine
from engine.models.loader import LoadProgress
from engine.outputs import RequestOutput
from engine.sequence import GenerationRequest
from engine.strategy import SHARED_OPTIONS, Strategy
from engine.telemetry import EngineTelemetry, set_error, trace_headers

logger = logging.getLogger(__name__)


class LoadLog:
    """Logs the loading of weights at every tenth of the way."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._started_s = time.monotonic()
        self._tenths = 0

    def __call__(self, progress: LoadProgress) -> None:
        tenths = 10 * progress.loaded_bytes // max(progress.total_bytes, 1)
        if tenths > self._tenths:
            self._tenths = tenths
            rate = progress.loaded_bytes / 1e9 / max(time.monotonic() - self._started_s, 1e-6)
            logger.info("loading %s: %d %% (%.2f GB/s)", self._model, 10 * tenths, rate)


def start_ranks(model: ModelConfig, logs: LogConfig, telemetry: TelemetryConfig) -> WorkerGroup | None:
    """The other ranks of a sharded model, in the bundles of this replica's placement group."""
    config = model.engine_config()
    if config.layout.world_size == 1:
        return None
    settings = GroupSettings(
        checkpoint=model.checkpoint(),
        config=config,
        num_threads=config.num_threads or max(int(model.num_cpus), 1),
        timeout_s=model.rank_timeout_s,
        start_timeout_s=model.rank_start_timeout_s,
        on_start=partial(set_up_rank, logs, model.id, own_replica_id()),
        tracing=partial(rank_tracing, telemetry, own_replica_id()) if telemetry.is_on else None,
    )
    return WorkerGroup(settings, model.placement())


def load_engine(model: ModelConfig, ranks: WorkerGroup | None, telemetry: EngineTelemetry) -> LLMEngine:
    """The engine of this process: all of it, or the leading rank."""
    path, config, log = model.checkpoint(), model.engine_config(), LoadLog(model.id)
    if ranks is None:
        return LLMEngine.from_pretrained(path, config, log, telemetry=telemetry)
    with ranks.loading(log) as on_progress:
        return LLMEngine.from_pretrained(path, config, on_progress, ranks.ranks, ranks.lead, telemetry=telemetry)


class EngineReplica:
    """Owns an AsyncEngine, and the other ranks of a sharded model.

    Errors that concern the client are yielded as the last item, not raised: Serve would log a raised one as a failure
    of this replica. Closing ``generate`` aborts the sequence; its slot is free before the next step.
    """

    def __init__(
        self,
        model: ModelConfig,
        experiments: Sequence[ExperimentConfig] = (),
        logs: LogConfig | None = None,
        telemetry: TelemetryConfig | None = None,
    ) -> None:
        set_up_replica(logs or LogConfig(), "engine", model.id)
        self.model = model
        telemetry = telemetry or TelemetryConfig()
        self.tracing = start_tracing(telemetry, "engine", own_replica_id)
        self._tracer = self.tracing.tracer()
        self.ranks = start_ranks(model, logs or LogConfig(), telemetry)
        spans = EngineTelemetry(self.tracing.provider, model.engine_config().layout.world_size)
        self.engine = AsyncEngine(load_engine(model, self.ranks, spans), followers=self.ranks)
        if self.ranks is not None:
            self.ranks.on_failure(self.engine.fail)
        self.default_strategy = self._strategy({})
        check_arms(experiments, self._strategy)
        self.engine.start()

    async def generate(self, call: GenerateCall) -> AsyncGenerator[Increment | LacunaError]:
        """Increments of one sequence, or one error."""
        begin(RequestLog(call.client_request_id or call.request_id))
        with generation(self._tracer, call) as span:
            own = trace_headers(span)
            call = replace(call, traceparent=own.traceparent, tracestate=own.tracestate)
            increments = within(span, until(self._increments(call), call.timeout_s))
            try:
                async with aclosing(increments):
                    async for increment in increments:
                        yield increment
            except LacunaError as error:
                with entered(span):
                    logger.info("sequence %s ends with %s of %s", call.request_id, type(error).__name__, error.param)
                set_error(span, error)
                yield of_strategy(error) if error.param in SHARED_OPTIONS else error

    async def card(self) -> ModelCard:
        """What clients may know about the model."""
        spec = self.engine.spec
        return ModelCard(
            id=self.model.id,
            description=self.model.description,
            architecture=spec.architecture,
            attention=spec.attention,
            block_length=spec.block_length,
            max_model_len=self.engine.max_model_len,
            default_strategy=self.default_strategy.to_dict(),
            presets=self.engine.presets(),
        )

    async def strategies(self) -> list[StrategyPart]:
        """What this model's strategies are named and built from."""
        return [StrategyPart(**part) for part in self.engine.describe_strategies()]  # type: ignore[arg-type]

    async def stats(self) -> dict[str, object]:
        """The engine's counters, and whose they are; of a sharded model also where its ranks run."""
        ranks = [] if self.ranks is None else [asdict(info) for info in self.ranks.infos]
        return {"replica": own_replica_id(), **asdict(self.engine.stats()), "ranks": ranks}

    async def metrics(self) -> list[Sample]:
        """What the engine measures, under this replica's name."""
        replica = own_replica_id()
        samples = engine_samples(self.engine.stats(), self.engine.readings())
        return [sample.labelled(replica=replica) for sample in samples]

    def check_health(self) -> None:
        """Raises when a rank is lost or the engine's thread died or makes no progress; Serve then replaces this
        replica with all its ranks."""
        if self.ranks is not None:
            self.ranks.check()
        self.engine.check_health()

    async def health(self) -> None:
        """As ``check_health``, for the ingress."""
        self.check_health()

    async def live(self) -> str:
        """The id by which the router knows this replica; raises as ``check_health`` does."""
        self.check_health()
        return own_replica_id()

    async def __del__(self) -> None:
        await self.engine.close()
        await asyncio.to_thread(self.tracing.close)

    async def _increments(self, call: GenerateCall) -> AsyncGenerator[Increment]:
        prompt = self._prompt(call.prompt)
        if call.template is not None:
            yield await self._infilled(call, prompt)
            return
        presenter = Presenter(call, prompt, self.engine.tokenizer, self.engine.spec.mask_token_id)
        outputs = self._outputs(call, self._request(call, prompt))
        async with aclosing(outputs):
            async for output in outputs:
                yield presenter.increment(output)

    async def _outputs(self, call: GenerateCall, request: GenerationRequest) -> AsyncGenerator[RequestOutput]:
        """The engine's increments. Of a token whose end was held back, as it may begin a stop text, a lost replica may
        have shown the beginning: that is not shown again."""
        shown_tokens = call.generated[: call.num_shown]
        surplus = max(call.shown_chars - len(self.engine.tokenizer.detokenizer().add(shown_tokens)), 0)
        outputs = self.engine.generate(request)
        async with aclosing(outputs):
            async for output in outputs:
                yield replace(output, text=output.text[surplus:]) if surplus else output
                surplus = max(surplus - len(output.text), 0)

    async def _infilled(self, call: GenerateCall, prompt: str | tuple[int, ...]) -> Increment:
        engine = self.engine
        prompt_ids = engine.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        task = InfillTask.of(call, call.strategy or self.model.default_strategy, engine)
        request = replace(
            self._request(replace(call, strategy=task.strategy, sampling=task.sampling, stream="final"), prompt_ids),
            template=task.layout.template,
        )
        if engine.spec.attention == "block_causal":
            assert request.strategy is not None
            check_visible(task.layout, len(prompt_ids), request.strategy.block_length)
        outputs = engine.generate(request)
        async with aclosing(outputs):
            (output,) = [one async for one in outputs]
        return task.result(output, engine.tokenizer, echo_of(prompt, engine.tokenizer) if call.echo else None)

    def _request(self, call: GenerateCall, prompt: str | Sequence[int]) -> GenerationRequest:
        strategy = self._strategy(call.strategy) if call.strategy else self.default_strategy
        return GenerationRequest(
            request_id=call.request_id,
            prompt=prompt,
            sampling=call.sampling,
            strategy=strategy,
            priority=call.priority,
            timeout_s=call.timeout_s,
            cache_salt=call.cache_salt,
            stream="step" if call.stream == "events" else call.stream,
            generated=call.generated,
            num_shown=call.num_shown,
            traceparent=call.traceparent,
            tracestate=call.tracestate,
        )

    def _strategy(self, options: Mapping[str, object]) -> Strategy:
        try:
            return self.engine.strategy(options or self.model.default_strategy)
        except InvalidRequestError as error:
            raise of_strategy(error) from None

    def _prompt(self, prompt: Prompt) -> str | tuple[int, ...]:
        if prompt.text is not None:
            return prompt.text
        if prompt.token_ids is not None:
            return prompt.token_ids
        assert prompt.messages is not None
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        return tuple(self.engine.tokenizer.apply_chat_template(messages))


def of_strategy(error: LacunaError) -> LacunaError:
    """The error with its option named as a part of the request: ``strategy.threshold``."""
    return type(error)(error.message, "strategy" if error.param is None else f"strategy.{error.param}")
