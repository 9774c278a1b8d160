"""Settings: bounds, unknown keys, and what "auto" resolves to."""

from __future__ import annotations

import logging
from dataclasses import FrozenInstanceError, fields

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from engine import config as config_module
from engine.config import (
    EngineConfig,
    parse_engine_config,
    resolve_cuda_graphs,
    resolve_device,
    resolve_dtype,
    resolve_max_model_len,
    resolve_steps_per_look,
)
from engine.errors import ConfigError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"max_num_seq": 4}, "max_num_seq"),
        ({"max_num_seqs": 0}, "max_num_seqs"),
        ({"max_num_seqs": "many"}, "max_num_seqs"),
        ({"dtype": "int4"}, "dtype"),
        ({"device": "gpu"}, "device"),
        ({"block_length": 0}, "block_length"),
        ({"mask_token_id": -1}, "mask_token_id"),
        ({"stop_token_ids": [-1]}, "stop_token_ids.0"),
        ({"max_queue_len": -1}, "max_queue_len"),
    ],
)
def test_a_bad_setting_is_named(options: dict[str, object], param: str) -> None:
    with pytest.raises(ConfigError, match=param) as caught:
        parse_engine_config(options)

    assert caught.value.param == param


def test_an_unknown_setting_lists_what_there_is() -> None:
    with pytest.raises(ConfigError, match="max_num_batched_tokens"):
        parse_engine_config({"max_tokens": 1})


def test_settings_of_a_file_are_accepted_as_they_are_written() -> None:
    config = parse_engine_config({"device": "cpu", "stop_token_ids": [2, 1, 2], "dtype": "bfloat16", "fused": False})

    assert config == EngineConfig(device="cpu", stop_token_ids=frozenset({1, 2}), dtype="bfloat16", fused=False)


def test_a_config_is_immutable_and_refuses_unknown_keys_in_python() -> None:
    with pytest.raises(FrozenInstanceError):
        EngineConfig().seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        TypeAdapter(EngineConfig).validate_python({"sed": 1})


def test_every_setting_is_described() -> None:
    properties = TypeAdapter(EngineConfig).json_schema()["properties"]

    assert set(properties) == {field.name for field in fields(EngineConfig)}
    assert all(properties[name].get("description") for name in properties)


@pytest.mark.parametrize(
    ("asked", "device", "stored", "expected"),
    [
        ("auto", CPU, torch.bfloat16, torch.float32),
        ("auto", CPU, torch.float16, torch.float32),
        ("auto", CUDA, torch.bfloat16, torch.bfloat16),
        ("auto", CUDA, torch.float64, torch.float32),
        ("bfloat16", CPU, torch.float32, torch.bfloat16),
        ("float32", CUDA, torch.bfloat16, torch.float32),
    ],
)
def test_dtype(asked: str, device: torch.device, stored: torch.dtype, expected: torch.dtype) -> None:
    assert resolve_dtype(parse_engine_config({"dtype": asked}), device, stored) == expected


def test_slow_bfloat16_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})

    assert not config_module.has_fast_bfloat16()
    with caplog.at_level(logging.WARNING):
        resolve_dtype(EngineConfig(dtype="bfloat16"), CPU, torch.float32)
    assert "slower than float32" in caplog.text


def test_bfloat16_in_hardware_is_silent(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})

    with caplog.at_level(logging.WARNING):
        resolve_dtype(EngineConfig(dtype="bfloat16"), CPU, torch.float32)
    assert not caplog.records


@pytest.mark.parametrize(("capable", "says"), [(True, "takes less time"), (False, "")])
def test_bfloat16_is_offered_where_it_is_fast(
    capable: bool, says: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": capable})

    with caplog.at_level(logging.INFO):
        assert resolve_dtype(EngineConfig(), CPU, torch.bfloat16) == torch.float32
    assert says in caplog.text
    assert bool(caplog.records) == capable


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device(EngineConfig()) == CPU
    with pytest.raises(ConfigError, match="no CUDA device"):
        resolve_device(EngineConfig(device="cuda:0"))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device(EngineConfig()) == CUDA
    assert resolve_device(EngineConfig(device="cuda:0")) == torch.device("cuda:0")
    with pytest.raises(ConfigError, match="only 1"):
        resolve_device(EngineConfig(device="cuda:1"))


def test_max_model_len() -> None:
    assert resolve_max_model_len(EngineConfig(), 512) == 512
    assert resolve_max_model_len(EngineConfig(), 131072) == 4096
    assert resolve_max_model_len(EngineConfig(max_model_len=8192), 131072) == 8192
    with pytest.raises(ConfigError, match="512 positions"):
        resolve_max_model_len(EngineConfig(max_model_len=513), 512)


def test_graphs_need_a_gpu_and_an_exchange_that_nobody_waits_for() -> None:
    assert [resolve_cuda_graphs(EngineConfig(), device) for device in (CPU, CUDA)] == [False, True]
    assert not resolve_cuda_graphs(EngineConfig(cuda_graphs="off"), CUDA)
    assert not resolve_cuda_graphs(EngineConfig(expert_parallel_size=2, expert_dispatch="all_to_all"), CUDA)
    asked = EngineConfig(cuda_graphs="on"), EngineConfig(cuda_graphs="on", expert_dispatch="all_to_all")
    for config, device in zip(asked, (CPU, CUDA), strict=True):
        with pytest.raises(ConfigError, match="cuda_graphs") as caught:
            resolve_cuda_graphs(config, device)
        assert caught.value.param == "cuda_graphs"


def test_steps_per_look() -> None:
    assert [resolve_steps_per_look(EngineConfig(), device) for device in (CPU, CUDA)] == [1, 2]
    assert resolve_steps_per_look(EngineConfig(steps_per_look=4), CPU) == 4
    with pytest.raises(ConfigError, match="steps_per_look"):
        parse_engine_config({"steps_per_look": 17})
