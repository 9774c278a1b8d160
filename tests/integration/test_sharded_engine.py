"""Engines over real processes that meet through gloo: every family and layout gives the tokens of one rank."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.parallel import ParallelLayout
from tests.helpers.engines import Outcome, drive, load
from tests.helpers.families import BLOCK_LENGTH, FAMILIES, write_family
from tests.helpers.mixture import mixture
from tests.helpers.processes import RankProcesses

OPTIONS = {"block_length": BLOCK_LENGTH, "max_num_seqs": 32, "num_threads": 1, "check_ranks": 1}
DENSE = {2: [ParallelLayout(2)], 4: [ParallelLayout(4)]}
MIXTURES = {
    2: [ParallelLayout(2), ParallelLayout(1, 2), ParallelLayout(2, 2), ParallelLayout(2, 2, "all_to_all")],
    4: [ParallelLayout(2, 4), ParallelLayout(4, 2), ParallelLayout(4, 4), ParallelLayout(2, 4, "all_to_all")],
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=[2, 4])
def processes(request: pytest.FixtureRequest) -> Iterator[RankProcesses]:
    ranks = RankProcesses(request.param)
    yield ranks
    ranks.close()


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Outcome]]:
    """What one rank answers, by family; filled as it is asked for."""
    return {}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_are_those_of_one_rank(
    name: str, processes: RankProcesses, alone: dict[str, dict[str, Outcome]], tmp_path: Path
) -> None:
    folder = write_family(name, tmp_path)
    if name not in alone:
        engine = load(folder, **OPTIONS)
        alone[name] = drive(engine, mixture(engine, 1))
        assert len({outcome.token_ids for outcome in alone[name].values()}) > len(alone[name]) / 2

    for layout in (DENSE if FAMILIES[name].moe is None else MIXTURES)[processes.world_size]:
        sizes = {
            "tensor_parallel_size": layout.tensor,
            "expert_parallel_size": layout.expert,
            "expert_dispatch": layout.dispatch,
        }
        with processes.engine(folder, **OPTIONS, **sizes) as engine:
            assert drive(engine, mixture(engine, 1)) == alone[name], layout
