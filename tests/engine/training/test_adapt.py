"""Jobs of adaptations: the built-in tasks, the user's data, mixtures of experts."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.models.checkpoint import open_checkpoint
from engine.training.adapt import adapt_job, convert_only
from engine.training.adapt_config import AdaptConfig
from engine.training.block_diffusion import BlockDiffusion
from engine.training.job import Job
from tests.engine.training.qwen3 import save_qwen3, save_qwen3_moe

EMBEDDED = Path(__file__).parents[3] / "engine" / "checkpoints" / "lacuna-tiny-sdar"
CHAT = {"prompt": "Hi", "answer": "Yes"}
TEXT = {"text": "some words " * 20}


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen3(tmp_path_factory.mktemp("dense"))


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_qwen3_moe(tmp_path_factory.mktemp("experts"), router_aux_loss_coef=0.01)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, [CHAT, TEXT, {"answer": "a"}])))
    return path


def job(source: Path, **options: Any) -> Job:
    return adapt_job(AdaptConfig(source=source, **options)).job


def test_a_checkpoint_of_another_family_needs_data(dense: Path) -> None:
    with pytest.raises(ConfigError, match="needs --data"):
        job(dense)


def test_the_embedded_family_is_adapted_on_the_built_in_tasks() -> None:
    found = job(EMBEDDED, block_length=8, steps=7, rate=0.001)
    assert (found.mask, found.end, found.budget.steps, found.packed) == (1, 0, 7, False)
    assert found.files.config["block_size"] == found.model.spec.block_length == 8
    assert (found.optimisation.kind, found.optimisation.rate, found.optimisation.matrix_rate) == ("muon", 0.001, 0.02)
    assert all(parameter.requires_grad for parameter in found.model.parameters())
    assert found.validate is not None


def test_data_is_packed_and_trained_as_published(dense: Path, rows: Path) -> None:
    found = job(dense, data=(rows,), sequence_length=64, rows_per_step=3, phases=("cpt", "sft"))
    assert (found.packed, found.row_lengths, found.tokens_per_step) == (True, (128,), 384)
    assert (found.optimisation.kind, found.optimisation.rate, found.curriculum.decay_from) == ("adamw", 1e-5, 1.0)
    assert found.end == 256
    json.dumps(found.record)
    assert found.record["data"] == [{"file": "rows.jsonl", "bytes": rows.stat().st_size}]


def test_each_phase_has_its_own_rows_and_goes_on_after_a_restart(dense: Path, rows: Path) -> None:
    phases = {"data": (rows,), "sequence_length": 64, "phases": ("cpt", "sft")}
    first, second = job(dense, **phases).samples, job(dense, **phases).samples
    cpt, sft = BlockDiffusion(4, "cpt"), BlockDiffusion(4, "sft")
    assert all(sample.prompt for sample in islice((first.take_for(sft) for _ in range(9)), 9))
    assert not any(first.take_for(cpt).prompt for _ in range(9))
    assert first.bad_rows is not None
    assert first.bad_rows.count == 2, "one row, met in both phases"
    second.restore(json.loads(json.dumps(first.state())))
    for objective in (sft, cpt, cpt, sft):
        assert second.take_for(objective) == first.take_for(objective)


def test_a_sequence_fits_into_the_positions_of_the_checkpoint(dense: Path, rows: Path) -> None:
    assert job(dense, data=(rows,), block_length=16).row_lengths == (512,)
    with pytest.raises(ConfigError, match="exceeds the 256 positions"):
        job(dense, data=(rows,), sequence_length=512)


def test_held_out_likelihood_is_told_by_share_of_masks(dense: Path, rows: Path) -> None:
    found = job(dense, data=(rows,), validation=rows, sequence_length=64)
    assert found.validate is not None
    scores = found.validate()
    assert list(scores) == [f"likelihood {share} masked" for share in ("25%", "50%", "75%", "100%")]
    assert all(0 < value < 1 for value in scores.values())
    assert found.validate() == scores


def test_routers_can_be_frozen(experts: Path, rows: Path) -> None:
    frozen = job(experts, data=(rows,), freeze_router=True).model
    assert {name for name, each in frozen.named_parameters() if not each.requires_grad} == {
        "layers.0.mlp.gate.weight",
        "layers.1.mlp.gate.weight",
    }


def test_experts_are_balanced_as_the_checkpoint_says_or_as_asked(experts: Path, rows: Path) -> None:
    assert job(experts, data=(rows,)).router_balance == 0.01
    assert job(experts, data=(rows,), router_aux=0.0).router_balance == 0.0
    assert job(experts, data=(rows,), freeze_router=True).router_balance == 0.0


@pytest.mark.parametrize("option", [{"router_aux": 0.1}, {"freeze_router": True}])
def test_a_dense_network_has_no_router(dense: Path, rows: Path, option: dict[str, Any]) -> None:
    assert job(dense, data=(rows,)).router_balance == 0.0
    with pytest.raises(ConfigError, match="no experts"):
        job(dense, data=(rows,), **option)


def test_conversion_alone_needs_no_data(dense: Path, tmp_path: Path) -> None:
    notes = convert_only(AdaptConfig(source=dense, block_length=8), tmp_path / "sdar")
    assert "<|MASK|>" in notes[0]
    assert open_checkpoint(tmp_path / "sdar").spec.block_length == 8
