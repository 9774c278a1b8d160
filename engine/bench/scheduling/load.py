"""Requests of random tokens for an engine with random weights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import torch

from engine.bench.throughput.shapes import random_model, shape
from engine.build import assemble_core, check_settings
from engine.config import parse_engine_config, resolve_device, resolve_dtype
from engine.executor import Executor, LocalExecutor
from engine.llm_engine import LLMEngine
from engine.model_runner import ModelRunner
from engine.models.spec import ModelSpec
from engine.sampling_params import SamplingParams
from engine.sequence import GenerationRequest
from engine.strategy import Strategy
from engine.tokenizer import MissingTokenizer


def make_engine(
    shape_name: str,
    settings: Mapping[str, object],
    max_model_len: int,
    executor: Callable[[ModelRunner], Executor] = LocalExecutor,
) -> LLMEngine:
    """An engine over random weights in a named shape; ConfigError names a wrong setting."""
    config = parse_engine_config(settings)
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    spec, device = shape(shape_name), resolve_device(config)
    check_settings(spec, config, max_model_len)
    model = random_model(spec, resolve_dtype(config, device, torch.bfloat16), device)
    core = assemble_core(model, config, max_model_len, executor=executor)
    return LLMEngine(core, spec, MissingTokenizer(), config, max_model_len)


class RequestMaker:
    """Requests with seeded random prompts that run to their ``max_tokens``; ids and tokens never repeat."""

    def __init__(self, spec: ModelSpec, strategy: Strategy, seed: int = 0) -> None:
        self._spec = spec
        self._strategy = strategy
        self._rng = np.random.default_rng(seed)
        self._numbers = itertools.count()

    def make(self, prompt_len: int, max_tokens: int, priority: int = 0) -> GenerationRequest:
        number = next(self._numbers)
        return GenerationRequest(
            request_id=str(number),
            prompt=self._rng.integers(0, self._spec.mask_token_id, prompt_len).tolist(),
            sampling=SamplingParams(max_tokens=max_tokens, ignore_eos=True, seed=number),
            strategy=self._strategy,
            priority=priority,
            stream="final",
        )
