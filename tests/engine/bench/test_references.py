"""The restated loops give what the published ones gave, and the command tells both sides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engine.bench.__main__ import main
from engine.bench.goldens.fastdllm_recording import Recording as FastDllmRecording
from engine.bench.goldens.sdar import Recording as SdarRecording
from engine.bench.references import fast_dllm, sdar
from engine.bench.references.measure import Comparison, Cost
from engine.bench.references.network import PublishedNetwork
from engine.bench.throughput.shapes import random_model, shape
from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.models.checkpoint import open_checkpoint
from engine.models.loader import load_model

GOLDENS = Path(__file__).parents[2] / "goldens"
FAST_DLLM_CASES = ("open_llada_d_thr09", "open_llada_d_quota_rem", "open_llada_d_thr_b3", "open_llada_d_quirk_steps")
SDAR_CASES = ("dense_hd16-p13-b4-s4-g20", "dense_hd16-p10-b4-s6-g14", "dense_bf16_sharded-p5-b16-s4-g27")


def network(folder: Path, mask_token_id: int) -> PublishedNetwork:
    checkpoint = open_checkpoint(folder, EngineConfig(mask_token_id=mask_token_id))
    return PublishedNetwork(load_model(folder, checkpoint.spec, torch.float32, torch.device("cpu")))


@pytest.mark.parametrize("name", FAST_DLLM_CASES)
def test_fast_dllm_fills_what_it_filled(name: str) -> None:
    case = FastDllmRecording.model_validate_json((GOLDENS / f"fastdllm/cases/{name}.json").read_bytes())
    params = case.params.model_dump()
    blocks = params["gen_length"] // params["block_length"]
    run = fast_dllm.generate(
        network(GOLDENS / "fastdllm/checkpoints" / case.checkpoint, case.params.mask_id),
        torch.tensor(case.prompt_ids),
        params["gen_length"],
        params["block_length"],
        params.get("threshold"),
        params["steps"] // blocks,
    )
    assert run.canvas_BL.tolist() == case.expected.output_ids
    assert run.forwards == case.expected.nfe


@pytest.mark.parametrize("name", SDAR_CASES)
def test_sdar_fills_what_it_filled(name: str) -> None:
    case = SdarRecording.model_validate_json((GOLDENS / f"sdar/cases/{name}.json").read_bytes())
    published = network(GOLDENS / "sdar" / case.checkpoint, case.mask_id)
    runs = [run for run in case.runs if run.strategy in ("low_confidence_static", "low_confidence_dynamic")]
    assert runs
    assert (case.top_k, case.top_p, case.stop_ids) == (0, 1.0, None)
    for recorded in runs:
        run = sdar.generate(
            published,
            torch.tensor(case.prompt_ids),
            case.gen_length,
            case.block_length,
            recorded.confidence_threshold,
            case.denoising_steps,
            case.temperature,
        )
        assert run.canvas_BL[0].tolist() == recorded.expected.output_ids, recorded.name
        assert run.forwards == recorded.expected.forwards.total, recorded.name


def test_positions_are_those_that_were_fed() -> None:
    published = PublishedNetwork(random_model(shape("llada-tiny"), torch.float32, torch.device("cpu")))
    prompts = torch.arange(2 * 5).view(2, 5)
    run = fast_dllm.generate(published, prompts, gen_length=8, block_length=4)
    assert (run.forwards, run.positions) == (8, 2 * (2 * 13 + 6 * 4))
    run = sdar.generate(published, prompts[0], gen_length=3, block_length=4)
    assert (run.forwards, run.positions) == (1 + 3 + 1, 5 * 4)  # three open positions share their block with the prompt


def test_a_mixture_of_experts_has_no_restated_loop() -> None:
    with pytest.raises(ConfigError, match="LLaDAMoEModelLM"):
        PublishedNetwork(random_model(shape("llada-moe-67m"), torch.float32, torch.device("cpu")))


def test_equal_completions_are_counted() -> None:
    costs = (
        Cost(seconds=seconds, forwards=1, positions=1, tokens=((1, 2), tokens))
        for seconds, tokens in ((6.0, (3,)), (2.0, (4,)))
    )
    comparison = Comparison(reference="SDAR one by one", published=next(costs), engine=next(costs))
    assert (comparison.ratio, comparison.equal_tokens) == (3.0, 1)


def test_both_sides_give_the_same_completions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads, output = torch.get_num_threads(), tmp_path / "references.json"
    words = ["references", "--shape", "llada-tiny", "sdar-tiny", "--block-length", "4", "--prompt", "6"]
    words += ["--generate", "8", "--requests", "1", "3", "--mixed", "--repeat", "1", "--threshold", "0.5", "none"]
    try:
        assert main([*words, "--output", str(output)]) == 0
    finally:
        torch.set_num_threads(threads)
    rows = json.loads(output.read_text())
    assert len(rows) == 4 + 2 + 2 * 2, "several requests are put to Fast-dLLM's loop in two ways"
    for row in rows:
        assert row["equal_tokens"] == int(row["requests"]) or "lock step" in row["reference"]
        assert row["engine"]["forwards"] <= row["published"]["forwards"]
    assert "times as fast" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--shape", "llada-9b"], "llada-9b"),
        (["--shape", "llada-tiny", "--generate", "10", "--block-length", "4"], "no multiple"),
        (["--shape", "llada-tiny", "--generate", "32", "--threshold", "high"], "neither a number nor none"),
    ],
)
def test_what_cannot_be_compared_is_named(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        assert main(["references", *words]) == 2
    finally:
        torch.set_num_threads(threads)
    assert says in capsys.readouterr().out
