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
from tests.helpers.rank_processes import RankProcesses

OPTIONS = {"block_length": BLOCK_LENGTH, "max_num_seqs": 32, "num_threads": 1, "check_ranks": 1}
WIDE, NARROW = ParallelLayout(2, 4), ParallelLayout(4, 2)
EXCHANGING = {2: ParallelLayout(2, 2, "all_to_all"), 4: ParallelLayout(2, 4, "all_to_all")}
LAYOUTS = {
    2: {
        name: [ParallelLayout(2)] + ([] if spec.moe is None else [ParallelLayout(1, 2), ParallelLayout(2, 2)])
        for name, spec in FAMILIES.items()
    },
    4: {
        "llada": [ParallelLayout(4)],
        "dream": [ParallelLayout(4)],
        "llada-moe": [NARROW],
        "llada2 groups": [WIDE, NARROW, EXCHANGING[4]],
        "sdar-moe": [WIDE],
    },
}
"""By the number of ranks. Each family on two, and what four can have that two cannot: fewer key heads than ranks,
tensor groups that hold the same, ranks that share an expert."""
LAYOUTS[2]["llada2 blocks"].append(EXCHANGING[2])


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def processes(request: pytest.FixtureRequest) -> Iterator[RankProcesses]:
    ranks = RankProcesses(request.param)
    yield ranks
    ranks.close()


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Outcome]]:
    """What one rank answers, by family; filled as it is asked for."""
    return {}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("processes", "name"), [(world, name) for world in LAYOUTS for name in LAYOUTS[world]], indirect=["processes"]
)
def test_tokens_are_those_of_one_rank(
    name: str, processes: RankProcesses, alone: dict[str, dict[str, Outcome]], tmp_path: Path
) -> None:
    folder = write_family(name, tmp_path)
    if name not in alone:
        engine = load(folder, **OPTIONS)
        alone[name] = drive(engine, mixture(engine, 1))
        assert len({outcome.token_ids for outcome in alone[name].values()}) > len(alone[name]) / 2

    for layout in LAYOUTS[processes.world_size][name]:
        sizes = {
            "tensor_parallel_size": layout.tensor,
            "expert_parallel_size": layout.expert,
            "expert_dispatch": layout.dispatch,
        }
        with processes.engine(folder, **OPTIONS, **sizes) as engine:
            requests = mixture(engine, 1)[:: processes.world_size // 2]  # four ranks on two cores take their time
            expected = {request.request_id: alone[name][request.request_id] for request in requests}
            assert drive(engine, requests) == expected, layout
