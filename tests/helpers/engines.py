"""Engines for tests: over a real checkpoint, or over a network whose tokens are specified."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from engine.build import make_sharing, scheduling_rules
from engine.cache import CACHE_POLICIES
from engine.cache.block_manager import BlockManager
from engine.cache.policy import AttentionPattern, IntArray
from engine.config import EngineConfig
from engine.core import EngineCore
from engine.detokenizer import ByteDetokenizer, Detokenizer
from engine.errors import InvalidRequestError
from engine.executor import Executor, LocalExecutor
from engine.iteration import IterationManager
from engine.layout import MAX_ALIGNED_BLOCK_LENGTH
from engine.llm_engine import LLMEngine
from engine.model_runner import ModelRunner
from engine.models.spec import ModelSpec
from engine.outputs import FinishReason, RequestOutput
from engine.pacing import ForwardBudget
from engine.plan import IterationPlan, Splice, StepResult
from engine.plan_codec import decode_plan, encode_plan
from engine.sampling_params import SamplingParams
from engine.scheduler import Scheduler
from engine.sequence import GenerationRequest
from engine.slots import SlotTable
from engine.telemetry import EngineTelemetry
from engine.tokenizer import Tokenizer

MASK, EOS, VOCAB_SIZE = 256, 257, 260
"""Ids of :class:`ByteTokenizer`; smaller ids are bytes."""


class ByteTokenizer(Tokenizer):
    """One token per UTF-8 byte."""

    def __init__(self) -> None:
        self.vocab_size = VOCAB_SIZE
        self.special_ids = frozenset({MASK, EOS})
        self.has_chat_template = False

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def apply_chat_template(self, messages: Sequence[Mapping[str, object]]) -> list[int]:
        raise InvalidRequestError("there is no chat template", "messages")

    def detokenizer(self, *, skip_special_tokens: bool = True) -> Detokenizer:
        return ByteDetokenizer(lambda token_id: bytes([token_id]) if token_id < MASK else b"")

    def token_text(self, token_id: int) -> str:
        return self.decode([token_id])

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < MASK else b""


def spec_of(pattern: AttentionPattern, block_length: int = 4) -> ModelSpec:
    """A spec without a network behind it."""
    return ModelSpec(
        architecture="scripted",
        attention=pattern,
        vocab_size=VOCAB_SIZE,
        hidden_size=8,
        intermediate_size=8,
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        head_dim=8,
        max_position_embeddings=128,
        rope_theta=1e4,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        attention_bias=False,
        mask_token_id=MASK,
        stop_token_ids=frozenset({EOS}),
        block_length=block_length,
    )


def letter(canvas: Sequence[int] | IntArray, position: int) -> int:
    """The default script: a letter that depends on the prompt's first token and the position."""
    return ord("a") + (int(canvas[0]) * 5 + position * 7) % 26


@dataclass(slots=True)
class ScriptedExecutor:
    """Fills the first ``per_step`` masks of each decided block with ``token_at(canvas, position)``.

    Keeps its own canvases, as a rank would, and refuses plans that no rank could execute. ``fails_at`` is the index of
    the plan that raises.
    """

    token_at: Callable[[IntArray, int], int] = letter
    per_step: int = 2
    fails_at: int | None = None
    canvases: dict[int, IntArray] = field(default_factory=dict)
    plans: list[IterationPlan] = field(default_factory=list)

    def execute(self, plan: IterationPlan) -> StepResult:
        if len(self.plans) == self.fails_at:
            raise RuntimeError("the device is gone")
        self.plans.append(plan)
        for splice in plan.splices:
            self.canvases[splice.slot] = spliced(self.canvases[splice.slot], splice)
        for admission in plan.admitted:
            self.canvases[admission.slot] = admission.tokens.copy()
        check_plan(plan, self.canvases)
        decoded = plan.decoded
        width = int((decoded.end_N - decoded.start_N).max(initial=0))
        tokens_NB = np.full((len(decoded), width), MASK, np.int64)
        for n in range(len(decoded)):
            canvas = self.canvases[int(decoded.slot_N[n])]
            start, end = int(decoded.start_N[n]), int(decoded.end_N[n])
            masks = [position for position in range(start, end) if canvas[position] == MASK]
            for position in masks if decoded.force_N[n] else masks[: self.per_step]:
                canvas[position] = self.token_at(canvas, position)
            tokens_NB[n, : end - start] = canvas[start:end]
        return StepResult(tokens_NB, np.ones(len(decoded), np.bool_), np.full(tokens_NB.shape, 0.5, np.float32))


def spliced(canvas: IntArray, splice: Splice) -> IntArray:
    """A canvas as the splice leaves it."""
    return np.concatenate((canvas[: splice.at], splice.tokens, canvas[splice.at + splice.removed :]))


def check_plan(plan: IterationPlan, canvases: Mapping[int, IntArray]) -> None:
    """What every executor relies on."""
    rows, decoded = plan.rows, plan.decoded
    stored = list(zip(*(array.tolist() for array in rows.tokens()), strict=True))
    assert len(stored) == len(set(stored)), "a position is computed twice in one forward"
    assert all(position < len(canvases[slot]) for slot, position in stored)
    assert len(set(decoded.slot_N.tolist())) == len(decoded), "a slot decides twice in one forward"
    for n in range(len(decoded)):
        slot, guide = int(decoded.slot_N[n]), int(decoded.guide_slot_N[n])
        first, length = int(decoded.first_token_N[n]), int(decoded.end_N[n] - decoded.start_N[n])
        block = [(slot, int(decoded.start_N[n]) + i) for i in range(length)]
        assert stored[first : first + length] == block, "the decided block is not where the plan says"
        if guide >= 0:
            twin = int(decoded.guide_token_N[n])
            assert stored[twin : twin + length] == [(guide, position) for _, position in block]
    bounds = [(start, end) for _, start, end in decoded.groups]
    assert [row for start, end in bounds for row in range(start, end)] == list(range(len(decoded)))


@dataclass(slots=True)
class Rig:
    """An engine whose parts can be looked at."""

    engine: LLMEngine
    core: EngineCore
    blocks: BlockManager
    slots: SlotTable
    iteration: IterationManager
    executor: Executor

    def check_empty(self) -> None:
        """Nothing is left behind: all slots and pages are free, no request is known."""
        self.blocks.check()
        stats = self.engine.stats()
        assert (stats.num_running, stats.num_waiting) == (0, 0)
        assert stats.num_free_slots == self.engine.config.max_num_seqs
        assert stats.num_free_pages == self.blocks.num_pages
        assert not self.slots.running.any()
        assert not self.engine.has_unfinished_requests()


def scripted(
    pattern: AttentionPattern = "block_causal",
    executor: Executor | None = None,
    *,
    max_model_len: int = 64,
    token_budget: int = 256,
    fused: bool = True,
    page_size: int = 8,
    num_pages: int | None = None,
    telemetry: EngineTelemetry | None = None,
    clock: Callable[[], float] = perf_counter,
    **options: Any,
) -> Rig:
    """An engine over an executor with specified tokens; ``options`` are those of EngineConfig."""
    config = EngineConfig(**({"max_num_seqs": 3, "fused": fused} | options))
    executor = executor if executor is not None else ScriptedExecutor()
    slot_len = max_model_len + (MAX_ALIGNED_BLOCK_LENGTH - 1 if pattern == "block_causal" else 0)
    num_pages = num_pages if num_pages is not None else config.max_num_seqs * -(-slot_len // page_size)
    blocks = BlockManager(config.max_num_seqs, num_pages, page_size, slot_len)
    budget = ForwardBudget(token_budget, config.long_prefill_budget or 32)
    slots = SlotTable(config.max_num_seqs, slot_len, MASK)
    policies = {
        name: CACHE_POLICIES.get(name)(pattern, fused=fused)
        for name in CACHE_POLICIES
        if pattern in CACHE_POLICIES.get(name).patterns
    }
    sharing = make_sharing(config, pattern, blocks, slots, policies)
    iteration = IterationManager(slots, policies, budget, fused=fused, eos_token_id=EOS, sharing=sharing)
    core = EngineCore(
        Scheduler(config.max_num_seqs, blocks, scheduling_rules(config)), blocks, iteration, executor, telemetry, clock
    )
    engine = LLMEngine(core, spec_of(pattern), ByteTokenizer(), config, max_model_len)
    return Rig(engine, core, blocks, slots, iteration, executor)


def load(folder: Path, **options: Any) -> LLMEngine:
    """An engine over a checkpoint; ``options`` are those of EngineConfig."""
    settings: dict[str, Any] = {"max_model_len": 64, "device": "cpu"} | options
    return LLMEngine.from_pretrained(folder, EngineConfig(**settings))


def make_request(
    request_id: str, prompt: str | Sequence[int], engine: LLMEngine | None = None, **options: Any
) -> GenerationRequest:
    """A request; ``options`` are those of SamplingParams and GenerationRequest, ``strategy`` a mapping."""
    names = (
        "priority",
        "timeout_s",
        "cache_salt",
        "stream",
        "template",
        "generated",
        "num_shown",
        "traceparent",
        "tracestate",
    )
    own: dict[str, Any] = {name: options.pop(name) for name in names if name in options}
    strategy = options.pop("strategy", None)
    if strategy is not None:
        assert engine is not None
        own["strategy"] = engine.strategy(strategy)
    return GenerationRequest(request_id=request_id, prompt=prompt, sampling=SamplingParams(**options), **own)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What must not depend on neighbours."""

    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason | None
    stop_reason: int | str | None
    denoising_steps: int


def outcome(increments: Sequence[RequestOutput]) -> Outcome:
    """All increments of one request as one; checks what holds for every stream."""
    assert [increment.finished for increment in increments] == [False] * (len(increments) - 1) + [True]
    last = increments[-1]
    token_ids = tuple(token for increment in increments for token in increment.token_ids)
    assert last.usage.completion_tokens == len(token_ids)
    return Outcome(
        token_ids=token_ids,
        text="".join(increment.text for increment in increments),
        finish_reason=last.finish_reason,
        stop_reason=last.stop_reason,
        denoising_steps=last.usage.denoising_steps,
    )


class ByWire(LocalExecutor):
    """A rank that gets its plans as another one sends them. ``plans`` are those that were sent."""

    def __init__(self, runner: ModelRunner) -> None:
        super().__init__(runner)
        self.plans: list[IterationPlan] = []

    def execute(self, plan: IterationPlan) -> StepResult:
        self.plans.append(plan)
        return super().execute(decode_plan(encode_plan(plan)))


def final(engine: LLMEngine, requests: Sequence[GenerationRequest]) -> dict[str, RequestOutput]:
    """Run requests to their ends, all at once; the last output of each."""
    for one in requests:
        engine.add_request(one)
    done: dict[str, RequestOutput] = {}
    while engine.has_unfinished_requests():
        done |= {output.request_id: output for output in engine.step() if output.finished}
    return done


def drive(engine: LLMEngine, requests: Sequence[GenerationRequest], every: int = 0) -> dict[str, Outcome]:
    """Run requests to their ends; with ``every``, one joins each so many steps, else all at once."""
    pending = list(requests)
    increments: dict[str, list[RequestOutput]] = {one.request_id: [] for one in requests}
    for step in range(20_000):
        while pending and (every == 0 or step % every == 0):
            engine.add_request(pending.pop(0))
            if every:
                break
        if not pending and not engine.has_unfinished_requests():
            return {name: outcome(items) for name, items in increments.items()}
        for output in engine.step():
            increments[output.request_id].append(output)
    raise AssertionError("the engine does not come to an end")
