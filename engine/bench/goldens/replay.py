"""Running cases: those that share an engine go through it together, as one mixed batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from engine.bench.goldens import dinfer_decoders, dinfer_e2e, fastdllm, published, sdar, sglang_algorithms
from engine.bench.goldens.case import Case, DirectCase, GenerationCase, Network, Row, RowRun
from engine.bench.goldens.complaints import complaint
from engine.bench.goldens.engines import RecordedRow
from engine.bench.goldens.folders import Folder
from engine.bench.goldens.requests import Engine, run_requests
from engine.bench.goldens.results import CaseResult, Mode, NotSupportedError, Status
from engine.config import EngineConfig
from engine.errors import ConfigError, LacunaError, UnknownStrategyError, UnsupportedModelError
from engine.sequence import GenerationRequest

LOADERS: Mapping[str, Callable[[Path], Iterator[Case]]] = {
    "fastdllm": fastdllm.load,
    "sdar": sdar.load,
    "dinfer_decoders": dinfer_decoders.load,
    "dinfer_e2e": dinfer_e2e.load,
    "published_decoders": published.load,
    "sglang_algorithms": sglang_algorithms.load,
}
"""How the cases of each kind of folder are read."""

FIRST_SEED = 2**31
"""Seeds of recorded rows; those that engines give to others are small."""


class LoadEngine(Protocol):
    """Makes an engine for a checkpoint, as ``engines.load_engine`` does; ``recorded`` is what is known of
    requests by their seed."""

    def __call__(self, path: Path, config: EngineConfig, recorded: Mapping[int, RecordedRow]) -> Engine: ...


@dataclass(frozen=True, slots=True)
class EngineKey:
    """What cases must share to run in one engine."""

    checkpoint: Path
    mask_token_id: int
    mode: Mode
    network: Network | None = None


def load_cases(folders: Sequence[Folder]) -> list[Case]:
    """The cases of all folders; ConfigError where one holds none."""
    cases: list[Case] = []
    for folder in folders:
        own = list(LOADERS[folder.kind](folder.path))
        if not own:
            raise ConfigError(f"{folder.path} holds no case", "PATH")
        for case in own:
            case.folder = folder.path
        cases += own
    return cases


def count_replays(cases: Sequence[Case], modes: Sequence[Mode]) -> int:
    """How many results :func:`replay` gives."""
    return sum(max(len(_modes_of(case, modes)), 1) for case in cases)


def replay(
    cases: Sequence[Case], modes: Sequence[Mode], load_engine: LoadEngine, base: EngineConfig
) -> Iterator[CaseResult]:
    """Replay every case in each of ``modes`` that it has; results come engine by engine.

    ``base`` gives device and threads; what a recording fixes (mask id, canvas length, fusion) is set per engine.
    """
    groups: dict[EngineKey, list[GenerationCase]] = {}
    for case in cases:
        if isinstance(case, DirectCase):
            yield _replay_direct(case)
        elif isinstance(case, GenerationCase):
            shared = _modes_of(case, modes)
            for mode in shared:
                groups.setdefault(EngineKey(case.checkpoint, case.mask_token_id, mode, case.network), []).append(case)
            if not shared:
                yield _result(case, modes[0], "not_supported", f"comparable in {'+'.join(case.modes)} mode only")
    for key, members in groups.items():
        yield from _replay_group(key, members, load_engine, base)


def _modes_of(case: Case, modes: Sequence[Mode]) -> list[Mode]:
    return [mode for mode in modes if mode in case.modes] if isinstance(case, GenerationCase) else []


def _replay_direct(case: DirectCase) -> CaseResult:
    try:
        return _verdict(case, "parity", case.differences())
    except NotSupportedError as missing:
        return _result(case, "parity", "not_supported", str(missing))


def _replay_group(
    key: EngineKey, cases: Sequence[GenerationCase], load_engine: LoadEngine, base: EngineConfig
) -> Iterator[CaseResult]:
    results: list[CaseResult] = []
    rows: dict[int, Sequence[Row]] = {}
    for index, case in enumerate(cases):
        try:
            rows[index] = case.rows(key.mode)
        except NotSupportedError as missing:
            results.append(_result(case, key.mode, "not_supported", str(missing)))
        except ValueError as error:
            results.append(_result(case, key.mode, "failed", f"unreadable: {complaint(error)}"))
    recorded, rows = recorded_rows(rows)
    try:
        config = _engine_config(key, rows, base)
        engine = (
            load_engine(key.checkpoint, config, recorded)
            if key.network is None
            else key.network.load_engine(key.checkpoint, config)
        )
    except UnsupportedModelError as missing:
        yield from (_result(case, key.mode, "not_supported", str(missing)) for case in cases)
        return
    except LacunaError as error:
        yield from (_result(case, key.mode, "failed", f"cannot load {key.checkpoint.name}: {error}") for case in cases)
        return
    yield from results
    yield from _replay_rows(engine, key.mode, {cases[index]: own for index, own in rows.items()})


def recorded_rows(
    rows: Mapping[int, Sequence[Row]],
) -> tuple[dict[int, RecordedRow], dict[int, Sequence[Row]]]:
    """Give every row that brought random numbers or steps a seed of its own, by which it is found."""
    recorded: dict[int, RecordedRow] = {}
    seeded: dict[int, Sequence[Row]] = {}
    for index, own in rows.items():
        seeded[index] = [_seeded(row, recorded) if row.draws or row.steps else row for row in own]
    return recorded, seeded


def _seeded(row: Row, recorded: dict[int, RecordedRow]) -> Row:
    seed = FIRST_SEED + len(recorded)
    draws = torch.tensor(row.draws) if row.draws else None
    recorded[seed] = RecordedRow(len(row.prompt_ids), draws, row.steps)
    return replace(row, sampling=replace(row.sampling, seed=seed))


def _engine_config(key: EngineKey, rows: Mapping[int, Sequence[Row]], base: EngineConfig) -> EngineConfig:
    lengths = [row.canvas_len for own in rows.values() for row in own]
    return EngineConfig(
        dtype="float32",
        device=base.device,
        num_threads=base.num_threads,
        max_model_len=max(lengths, default=None),
        max_queue_len=len(lengths),
        mask_token_id=key.mask_token_id,
        fused=key.mode == "default",
        prefix_sharing=False,  # the references compute every prompt, and at once
        long_prefill_budget=base.max_num_batched_tokens,
    )


def _replay_rows(engine: Engine, mode: Mode, rows: Mapping[GenerationCase, Sequence[Row]]) -> Iterator[CaseResult]:
    requests: dict[str, GenerationRequest] = {}
    ready: list[tuple[GenerationCase, list[str]]] = []
    for number, (case, own) in enumerate(rows.items()):
        names = [f"{number}/{index}" for index in range(len(own))]
        try:
            made = {name: _request(engine, name, row) for name, row in zip(names, own, strict=True)}
        except UnknownStrategyError as missing:
            yield _result(case, mode, "not_supported", str(missing))
        except LacunaError as error:
            yield _result(case, mode, "failed", str(error))
        else:
            requests |= made
            ready.append((case, names))
    outcome = run_requests(engine, list(requests.values()))
    for case, names in ready:
        errors = [outcome.errors[name] for name in names if name in outcome.errors]
        if errors:
            yield _result(case, mode, "failed", errors[0])
        else:
            runs = _in_order(outcome.runs, names)
            verdict = _verdict(case, mode, case.differences(mode, runs))
            yield replace(verdict, forwards=case.forwards(mode, runs))


def _request(engine: Engine, name: str, row: Row) -> GenerationRequest:
    return GenerationRequest(
        request_id=name,
        prompt=row.prompt_ids,
        sampling=row.sampling,
        strategy=engine.strategy(row.options),
        stream="step",
    )


def _in_order(runs: Mapping[str, RowRun], names: Sequence[str]) -> list[RowRun]:
    return [runs[name] for name in names]


def _verdict(case: Case, mode: Mode, differences: Sequence[str]) -> CaseResult:
    return _result(case, mode, "failed" if differences else "passed", "; ".join(differences))


def _result(case: Case, mode: Mode, status: Status, reason: str) -> CaseResult:
    return CaseResult(
        kind=case.kind,
        folder=str(case.folder),
        id=case.id,
        mode=mode,
        required=case.required,
        status=status,
        reason=reason,
    )
