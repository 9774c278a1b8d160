"""Jobs of adaptations: curricula, refusals, and a short run."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.training.adapt import AdaptConfig, adapt_job, stages
from engine.training.block_diffusion import BlockDiffusion
from engine.training.job import Share
from engine.training.noise import Blocks
from tests.engine.training.qwen3 import save_qwen3

EMBEDDED = Path(__file__).parents[3] / "engine" / "checkpoints" / "lacuna-tiny-sdar"
ANYWHERE = Path("model")


def test_block_lengths_double_up_to_the_target_which_has_half_of_the_training() -> None:
    found = stages(AdaptConfig(source=ANYWHERE, block_length=16))
    assert [(stage.until, stage.mixture) for stage in found] == [
        (0.25, (Share(Blocks(4)),)),
        (0.5, (Share(Blocks(8)),)),
        (1.0, (Share(Blocks(16)),)),
    ]
    assert AdaptConfig(source=ANYWHERE, block_length=6).lengths == (4, 6)
    assert AdaptConfig(source=ANYWHERE, block_length=2).lengths == (2,)


def test_a_share_of_the_rows_is_autoregressive() -> None:
    (stage,) = stages(AdaptConfig(source=ANYWHERE, objective="sdar", ar_share=0.25))
    assert stage.mixture == (Share(BlockDiffusion(4), 0.75), Share(BlockDiffusion(1), 0.25))


@pytest.mark.parametrize("lengths", [(8, 4), (4, 4, 8), (4, 16), (0, 8)])
def test_a_curriculum_grows_up_to_the_target(lengths: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="must grow up to 8"):
        AdaptConfig(source=ANYWHERE, block_length=8, curriculum=lengths)


def test_a_checkpoint_of_another_family_needs_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name data"):
        adapt_job(AdaptConfig(source=save_qwen3(tmp_path)))


def test_the_job_is_about_the_converted_network() -> None:
    job, _ = adapt_job(AdaptConfig(source=EMBEDDED, block_length=8, steps=7))
    assert (job.mask, job.end, job.budget.steps) == (1, 0, 7)
    assert job.files.config["block_size"] == job.model.spec.block_length == 8
    assert all(parameter.requires_grad for parameter in job.model.parameters())
