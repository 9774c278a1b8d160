"""The engine for one model: offline generation, and the step-by-step interface that servers drive.

engine = LLMEngine.from_pretrained("path/to/checkpoint")
outputs = engine.generate(["What is 2 + 3?"], SamplingParams(max_tokens=32))
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from engine.build import build_core
from engine.config import EngineConfig, resolve_max_model_len
from engine.core import EngineCore, EngineStats, SequenceUpdate
from engine.errors import ConfigError, InvalidRequestError, LacunaError, OverloadedError
from engine.executor import Executor, LocalExecutor
from engine.input_processor import InputProcessor
from engine.model_runner import ModelRunner
from engine.models.checkpoint import open_checkpoint
from engine.models.loader import LoadProgress
from engine.models.spec import ModelSpec
from engine.outputs import RequestOutput
from engine.parallel import ALONE, Ranks
from engine.presets.named import newest
from engine.presets.table import strategies_of
from engine.sampling_params import SamplingParams
from engine.sequence import GenerationRequest, Sequence
from engine.step_meter import StepReadings
from engine.strategy import PRESET, Strategy, parse_strategy
from engine.strategy_catalog import describe_strategies
from engine.telemetry import EngineTelemetry
from engine.text_stream import TextStream
from engine.tokenizer import MissingTokenizer, Tokenizer, load_tokenizer

logger = logging.getLogger(__name__)


class LLMEngine:
    """Owns a model's core and the texts of its requests. Not thread-safe: one thread drives it.

    ``validate`` and ``strategy`` only read and may be called from any thread.
    """

    def __init__(
        self, core: EngineCore, spec: ModelSpec, tokenizer: Tokenizer, config: EngineConfig, max_model_len: int
    ) -> None:
        self._core = core
        self.spec = spec
        self.tokenizer = tokenizer
        self.config = config
        self.max_model_len = max_model_len
        self._input = InputProcessor(
            spec,
            tokenizer,
            max_model_len,
            config.max_num_seqs,
            config.seed,
            has_text=not isinstance(tokenizer, MissingTokenizer),
            named=strategies_of(spec.preset_family, config.strategies),
            shares_prefixes=config.prefix_sharing,
        )
        self._check_own_strategies()
        self._requests: dict[str, _Running] = {}

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        config: EngineConfig | None = None,
        on_progress: Callable[[LoadProgress], None] | None = None,
        ranks: Ranks = ALONE,
        executor: Callable[[ModelRunner], Executor] = LocalExecutor,
        telemetry: EngineTelemetry | None = None,
    ) -> LLMEngine:
        """Load a checkpoint folder in its published layout; of a sharded model the leading rank's part, whose runner
        ``executor`` wraps. The other ranks call :func:`engine.build.load_follower`.

        CheckpointError and ConfigError say what is wrong with the folder or the settings.
        """
        config = config or EngineConfig()
        if config.num_threads is not None:
            torch.set_num_threads(config.num_threads)
        checkpoint = open_checkpoint(path, config)
        spec = checkpoint.spec
        max_model_len = resolve_max_model_len(config, spec.max_position_embeddings)
        tokenizer = load_tokenizer(checkpoint.path, {spec.mask_token_id, *spec.stop_token_ids})
        core = build_core(
            checkpoint, config, max_model_len, on_progress, ranks=ranks, executor=executor, telemetry=telemetry
        )
        return cls(core, spec, tokenizer, config, max_model_len)

    def strategy(self, options: Mapping[str, object]) -> Strategy:
        """Validate a strategy's options; ``{}`` is the model's default. Errors name the option."""
        return parse_strategy(options, self._input.limits)

    def describe_strategies(self) -> list[dict[str, object]]:
        """The presets, decoders, cache policies and transforms that suit this model."""
        return describe_strategies(self.spec.attention, self._input.limits.named)

    def presets(self) -> dict[str, dict[str, object]]:
        """By goal (quality, balanced, fast) the options of the newest named strategy for it, ready for a request."""
        offered: dict[str, dict[str, object]] = {}
        for named in newest(self._input.limits.named):
            if not named.goal:
                continue
            try:
                offered[named.goal] = self.strategy({PRESET: named.label}).to_dict()
            except InvalidRequestError as error:
                logger.warning("preset %s is not offered: %s", named.label, error)
        return offered

    def _check_own_strategies(self) -> None:
        """The operator's strategies have to suit the model; ConfigError names the first that does not."""
        for own in self.config.strategies:
            try:
                self.strategy({PRESET: f"{own.name}@{own.version}"})
            except InvalidRequestError as error:
                message = f"strategies: {own.name}@{own.version} does not suit this model: {error.message}"
                raise ConfigError(message, "strategies") from error

    def validate(self, request: GenerationRequest) -> Sequence:
        """Check a request without adding it."""
        return self._input.process(request)

    def add_request(self, request: GenerationRequest) -> None:
        """Queue a request. InvalidRequestError, ContextLengthError or OverloadedError when it cannot run."""
        self.add(self.validate(request))

    def add(self, sequence: Sequence) -> None:
        """Queue a validated request."""
        if sequence.request_id in self._requests:
            raise InvalidRequestError(f"request id {sequence.request_id!r} is already in use", "request_id")
        self._core.add(sequence)
        stream = TextStream(self.tokenizer.detokenizer(), sequence.request.sampling.stop)
        stream.resume(sequence.request.shown)
        self._requests[sequence.request_id] = _Running(sequence, stream)

    def abort(self, request_id: str) -> None:
        """Drop a request in any state; an unknown id has already finished."""
        running = self._requests.pop(request_id, None)
        if running is not None:
            self._core.abort(running.sequence)

    def abandon(self, error: LacunaError) -> None:
        """No further step will be taken: the traces of what has not finished end with ``error``."""
        for running in self._requests.values():
            if running.sequence.trace is not None:
                running.sequence.trace.fail(error)

    def has_unfinished_requests(self) -> bool:
        return bool(self._requests)

    def step(self) -> list[RequestOutput]:
        """Run one forward; returns the increments that it made visible."""
        outputs = (self._output(update) for update in self._core.step())
        return [output for output in outputs if output is not None]

    def generate(
        self,
        prompts: SequenceOf[str | SequenceOf[int]],
        sampling: SamplingParams | None = None,
        strategy: Strategy | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[RequestOutput]:
        """Complete all prompts, as many at a time as there are slots; results in order.

        ``on_progress(finished, total)`` is called as requests finish. Without a seed of its own, request i draws with
        the engine's seed + i.
        """
        sampling = sampling or SamplingParams()
        if sampling.seed is None:
            seeds = [self.config.seed + index for index in range(len(prompts))]
        else:
            seeds = [sampling.seed] * len(prompts)
        requests = [
            GenerationRequest(
                request_id=f"offline-{index}",
                prompt=prompt,
                sampling=replace(sampling, seed=seed),
                strategy=strategy,
                stream="final",
            )
            for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
        ]
        return self.run(requests, on_progress)

    def run(
        self, requests: SequenceOf[GenerationRequest], on_progress: Callable[[int, int], None] | None = None
    ) -> list[RequestOutput]:
        """Complete requests of any mixture; the final output of each, in order. DeadlineExceededError ends them all."""
        if len({request.request_id for request in requests}) < len(requests):
            raise InvalidRequestError("a request id is already in use: those of one call must differ", "request_id")
        waiting = deque(self.validate(request) for request in requests)
        finished: dict[str, RequestOutput] = {}
        mine: set[str] = set()
        try:
            while len(finished) < len(requests):
                self._add_some(waiting, mine)
                for output in self.step():
                    if output.error is not None:
                        raise output.error
                    finished |= {output.request_id: output} if output.finished else {}
                if on_progress is not None:
                    on_progress(len(finished), len(requests))
        finally:
            for request_id in mine:
                self.abort(request_id)
        return [finished[request.request_id] for request in requests]

    def _add_some(self, waiting: deque[Sequence], added: set[str]) -> None:
        """Move requests from ``waiting`` into the engine while it has use for them and room."""
        while waiting and len(self._requests) < self.config.max_num_seqs:
            try:
                self.add(waiting[0])
            except OverloadedError:
                if not self._requests:
                    raise
                return
            added.add(waiting.popleft().request_id)

    def stats(self) -> EngineStats:
        return self._core.stats()

    def readings(self) -> StepReadings:
        """What has been measured of the steps so far; may be called from any thread."""
        return self._core.readings()

    def _output(self, update: SequenceUpdate) -> RequestOutput | None:
        sequence = update.sequence
        running = self._requests[sequence.request_id]
        ended = update.finish_reason is not None
        increment = running.stream.add(update.token_ids, last=ended)
        if increment.stop is not None and not ended:
            self._core.abort(sequence, "stop")
        finish = "stop" if increment.stop is not None else update.finish_reason
        running.text += increment.text
        running.token_ids += increment.token_ids
        running.logprobs += update.logprobs
        if finish is None and not running.has_news(update):
            return None
        if finish is not None:
            del self._requests[sequence.request_id]
        text, token_ids, logprobs = running.take()
        return RequestOutput(
            request_id=sequence.request_id,
            text=text,
            token_ids=token_ids,
            usage=replace(
                update.usage,
                completion_tokens=running.stream.num_tokens,
                strategy=sequence.strategy.used() if finish is not None else None,
            ),
            finish_reason=finish,
            stop_reason=increment.stop if increment.stop is not None else update.stop_token_id,
            canvas=update.canvas,
            logprobs=logprobs,
            pending_ids=running.stream.pending_ids,
            error=update.error,
        )


@dataclass(slots=True)
class _Running:
    """A request in the engine, with what is visible but not handed out yet; ``logprobs`` also those of tokens that
    are still held back."""

    sequence: Sequence
    stream: TextStream
    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()

    def has_news(self, update: SequenceUpdate) -> bool:
        """Whether an increment is due before the end."""
        if self.sequence.request.stream == "final":
            return False
        return bool(self.text or self.token_ids or update.canvas is not None)

    def take(self) -> tuple[str, tuple[int, ...], tuple[float, ...]]:
        """Hand out what there is: text, token ids and their log-probabilities."""
        number = len(self.token_ids)
        taken = self.text, self.token_ids, self.logprobs[:number]
        self.text, self.token_ids, self.logprobs = "", (), self.logprobs[number:]
        return taken
