"""What an adaptation may be asked to do, and its stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.training.adapt_config import AdaptConfig, stages
from engine.training.block_diffusion import BlockDiffusion
from engine.training.job import Budget, Share, Stage
from engine.training.noise import Blocks


def config(**options: Any) -> AdaptConfig:
    return AdaptConfig(source=Path("model"), **options)


def test_block_lengths_double_up_to_the_target_which_has_half_of_the_training() -> None:
    assert stages(config(block_length=16), "blocks") == (
        Stage(0.25, (Share(Blocks(4)),)),
        Stage(0.5, (Share(Blocks(8)),)),
        Stage(1.0, (Share(Blocks(16)),)),
    )
    assert config(block_length=6).lengths == (4, 6)
    assert config(block_length=2).lengths == (2,)


def test_a_share_of_the_rows_is_autoregressive() -> None:
    (stage,) = stages(config(ar_share=0.25), "sdar")
    assert stage.mixture == (Share(BlockDiffusion(4), 0.75), Share(BlockDiffusion(1), 0.25))


def test_phases_and_block_lengths_are_laid_over_each_other() -> None:
    asked = config(block_length=8, phases=("cpt", "sft"), phase_shares=(3.0, 1.0))
    assert stages(asked, "sdar") == (
        Stage(0.5, (Share(BlockDiffusion(4, "cpt")),)),
        Stage(0.75, (Share(BlockDiffusion(8, "cpt")),)),
        Stage(1.0, (Share(BlockDiffusion(8, "sft")),)),
    )


def test_warm_up_is_a_small_part_of_the_steps() -> None:
    assert (config().budget, config().warmup_steps) == (Budget(1000, None), 30)
    assert config(steps=10_000).warmup_steps == 50
    assert (config(minutes=3.0).budget, config(minutes=3.0).warmup_steps) == (Budget(None, 3.0), 50)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        *(({"block_length": 8, "curriculum": c}, "must grow up to 8") for c in [(8, 4), (4, 4, 8), (4, 16), (0, 8)]),
        ({"ar_share": 1.0}, "ar_share"),
        ({"phases": ()}, "stage must be"),
        ({"phases": ("sft", "sft")}, "stage must be"),
        ({"phases": ("rl",)}, "stage must be"),
        ({"phase_shares": (0.5, 0.5)}, "1 numbers above 0"),
        ({"objective": "canvas"}, "objective must be"),
        ({"objective": "blocks", "phases": ("cpt",)}, "needs the objective sdar"),
        ({"optimizer": "sgd"}, "adamw or muon"),
        ({"router_aux": 0.1, "freeze_router": True}, "frozen"),
        ({"block_length": 16, "sequence_length": 24}, "multiple of all block lengths"),
    ],
)
def test_what_cannot_be_done_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        config(**options)
