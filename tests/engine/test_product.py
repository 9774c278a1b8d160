"""Every decoder with several cache policies and transforms of all kinds, all in one batch: each request gets exactly
what it gets alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.engines import Outcome, drive, load
from tests.helpers.mixture import mixture

ROOMY = {"max_num_seqs": 80}


@pytest.fixture(scope="module", params=["llada_folder", "sdar_folder"])
def folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Outcome]:
    """The outcome of each request as the only one of its engine."""
    engine = load(folder, max_num_seqs=2)
    outcomes: dict[str, Outcome] = {}
    for one in mixture(engine):
        outcomes |= drive(engine, [one])
    assert len({outcome.token_ids for outcome in outcomes.values()}) > len(outcomes) / 2
    assert {outcome.finish_reason for outcome in outcomes.values()} == {"stop", "length"}
    return outcomes


def test_all_in_one_batch_or_in_passing_equal_each_alone(folder: Path, alone: dict[str, Outcome]) -> None:
    together = load(folder, **ROOMY)
    assert drive(together, mixture(together)) == alone
    assert together.stats().forwards < 100, "the batch did not run together"
    assert together.stats().num_free_slots == 80

    crowded = load(folder, max_num_seqs=5, max_num_batched_tokens=70, page_size=8)
    assert drive(crowded, mixture(crowded)[::-1], every=3) == alone
    assert crowded.stats().num_free_slots == 5


def test_requests_that_leave_early_leave_no_trace(folder: Path, alone: dict[str, Outcome]) -> None:
    engine = load(folder, **ROOMY, page_size=16)
    requests = mixture(engine)
    for one in requests:
        engine.add_request(one)
    leaving = {one.request_id for one in requests[1::2]}
    for name in sorted(leaving):
        engine.step()
        engine.abort(name)
    while engine.has_unfinished_requests():
        engine.step()
    assert drive(engine, requests[::-1]) == alone
