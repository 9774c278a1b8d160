"""A quantised network: what is replaced, what it answers, and where it is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.bench.throughput.shapes import random_model, shape
from engine.build import assemble_core, check_settings
from engine.config import EngineConfig, check_quantization
from engine.errors import ConfigError
from engine.llm_engine import LLMEngine
from engine.memory import weight_bytes
from engine.models.loader import build_model
from engine.models.quantization import quantize_int8
from engine.models.spec import DiffusionLM, ModelSpec
from engine.sampling_params import SamplingParams
from engine.sequence import GenerationRequest
from engine.tokenizer import MissingTokenizer
from tests.helpers.networks import dense_hidden

CPU = torch.device("cpu")
TINY = replace(shape("llada-tiny"), vocab_size=300, mask_token_id=290)


@pytest.mark.parametrize("tied", [False, True])
def test_logits_stay_close_and_bytes_are_those_that_were_planned(tied: bool) -> None:
    spec = replace(TINY, tie_word_embeddings=tied)
    model, tokens = random_model(spec, torch.float32, CPU), torch.arange(20)
    exact = model.compute_logits(dense_hidden(model, tokens))
    quantised = quantize_int8(model)
    logits = quantised.compute_logits(dense_hidden(quantised, tokens))
    assert 0 < (logits - exact).norm() < 0.05 * exact.norm()
    held = sum(parameter.nbytes for parameter in quantised.parameters())
    assert held == weight_bytes(build_model(spec), torch.float32, int8=True)
    assert held < 0.55 * weight_bytes(build_model(spec), torch.float32)


def answers(model: DiffusionLM, spec: ModelSpec, prompts: list[list[int]]) -> list[tuple[int, ...]]:
    config = EngineConfig(device="cpu", max_num_seqs=4, max_num_batched_tokens=256)
    engine = LLMEngine(assemble_core(model, config, 32), spec, MissingTokenizer(), config, 32)
    for index, prompt in enumerate(prompts):
        sampling = SamplingParams(max_tokens=16, ignore_eos=True)
        engine.add_request(
            GenerationRequest(
                request_id=str(index),
                prompt=prompt,
                sampling=sampling,
                strategy=engine.strategy({"threshold": 0.6, "cache": "dual", "block_length": 8}),
                stream="final",
            )
        )
    done: dict[str, tuple[int, ...]] = {}
    while engine.has_unfinished_requests():
        done |= {output.request_id: tuple(output.token_ids) for output in engine.step() if output.finished}
    return [done[str(index)] for index in range(len(prompts))]


def test_answers_do_not_depend_on_neighbours() -> None:
    model = quantize_int8(random_model(TINY, torch.float32, CPU))
    prompts = [[1, 2, 3], [40, 50, 60, 70, 80], [7] * 10]
    assert answers(model, TINY, prompts) == [answers(model, TINY, [prompt])[0] for prompt in prompts]


def test_what_int8_cannot_do_is_named() -> None:
    config = EngineConfig(quantization="int8")
    with pytest.raises(ConfigError, match="mixtures of experts") as caught:
        check_settings(shape("llada-moe-67m"), config, 256)
    assert caught.value.param == "quantization"
    with pytest.raises(ConfigError, match="not on cuda"):
        check_quantization(config, torch.device("cuda"))
    check_quantization(EngineConfig(), torch.device("cuda"))


def test_a_cpu_without_int8_instructions_is_warned_about(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    check_quantization(EngineConfig(quantization="int8"), CPU)
    assert "slower than float32" in caplog.text
