"""The service under a real gRPC client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import struct_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from deployments.config import EMBEDDED_MODELS
from protos import generation_pb2 as pb
from protos.generation_pb2_grpc import GenerationStub
from tests.integration.conftest import Service

SDAR = "lacuna-tiny-sdar"
CANCELS = 30
CHAT = pb.ChatMessages(messages=[pb.ChatMessage(role="user", content="What is 17 + 25?")])


@pytest.fixture
def channel(service: Service) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(service.grpc_address) as one:
        yield one


def request(**fields: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(**({"model": SDAR, "chat": CHAT, "sampling": pb.Sampling(max_tokens=48)} | fields))


def long_request(model: str = SDAR, **fields: Any) -> pb.GenerateRequest:
    sampling = pb.Sampling(max_tokens=300, ignore_eos=True)
    return request(model=model, sampling=sampling, strategy=pb.Strategy(decoder="low_confidence"), **fields)


def test_both_transports_give_the_same_answer(stub: GenerationStub, http: httpx.Client) -> None:
    over_grpc = stub.Generate(request(request_id="mine"))
    body = {"model": SDAR, "messages": [{"role": "user", "content": "What is 17 + 25?"}], "max_tokens": 48}
    over_http = http.post("/v1/chat/completions", json=body).json()
    assert over_grpc.request_id == "mine"
    assert over_grpc.choices[0].text == over_http["choices"][0]["message"]["content"]
    assert over_grpc.usage.forwards == over_http["usage"]["diffusion"]["forwards"]
    assert over_grpc.usage.completion_tokens == len(over_grpc.choices[0].token_ids)


@pytest.mark.parametrize("mode", [pb.STREAM_MODE_FINAL, pb.STREAM_MODE_BLOCK, pb.STREAM_MODE_STEP])
def test_streams_concatenate_to_the_whole(stub: GenerationStub, mode: pb.StreamMode.ValueType) -> None:
    whole = stub.Generate(request())
    chunks = list(stub.GenerateStream(request(stream_mode=mode)))
    assert "".join(chunk.delta.text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage
    assert (len(chunks) == 2) == (mode == pb.STREAM_MODE_FINAL)
    assert any(chunk.HasField("canvas") for chunk in chunks) == (mode == pb.STREAM_MODE_STEP)


def test_text_and_token_ids(stub: GenerationStub) -> None:
    by_ids = pb.GenerateRequest(token_ids=pb.TokenIds(ids=[20, 21, 22]), sampling=pb.Sampling(max_tokens=4))
    assert stub.Generate(by_ids).usage.prompt_tokens == 3
    by_text = pb.GenerateRequest(text="2 + 3 =", sampling=pb.Sampling(max_tokens=4), n=2)
    assert len(stub.Generate(by_text).choices) == 2


def test_models_and_strategies(stub: GenerationStub) -> None:
    models = stub.ListModels(pb.ListModelsRequest()).models
    assert [model.id for model in models] == list(EMBEDDED_MODELS)
    assert [model.is_default for model in models] == [True, False]
    listed = {
        model: {part.name: part for part in stub.ListStrategies(pb.ListStrategiesRequest(model=model)).strategies}
        for model in EMBEDDED_MODELS
    }
    assert "dual" in listed["lacuna-tiny-llada"]
    assert "dual" not in listed[SDAR]
    assert "threshold" in listed[SDAR]["threshold"].schema["properties"]
    assert listed[SDAR]["balanced"].options["decoder"] == models[0].presets["balanced"]["decoder"]


def test_a_preset_is_used_and_named(stub: GenerationStub) -> None:
    asked = request(strategy=pb.Strategy(preset="fast", params={"threshold": 0.75}))
    used = stub.Generate(asked).usage.strategy
    assert (used.name, used.version, used.options["threshold"]) == ("fast", 2, 0.75)


def test_health_and_reflection(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service_name in ("", "lacuna.v1.Generation", SDAR):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service_name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    watch = health.Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert {"lacuna.v1.Generation", "grpc.health.v1.Health"} <= set(services)


def test_cancelling_right_after_a_chunk_frees_the_slots(
    stub: GenerationStub, service: Service, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    before = service.engine_stats(SDAR)["forwards"]
    for _ in range(CANCELS):
        stream = stub.GenerateStream(long_request(stream_mode=pb.STREAM_MODE_STEP))
        next(stream)
        stream.cancel()
    eventually(service.is_idle)
    assert service.engine_stats(SDAR)["forwards"] - before < CANCELS * 150, "of 300 steps each"


def test_the_clients_deadline_frees_the_slot(
    stub: GenerationStub, service: Service, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Generate(long_request(), timeout=0.1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    eventually(service.is_idle)


def test_our_own_deadline_frees_the_slot(
    stub: GenerationStub, service: Service, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        stub.Generate(long_request(timeout_ms=50))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    assert "timeout_ms" in caught.value.details()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 20
    eventually(service.is_idle)


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"model": "gpt"}, grpc.StatusCode.NOT_FOUND, ["gpt", "lacuna-tiny-llada"]),
        ({"strategy": pb.Strategy(decoder="magic")}, grpc.StatusCode.INVALID_ARGUMENT, ["magic", "strategy.decoder"]),
        (
            {"strategy": pb.Strategy(cache="dual")},
            grpc.StatusCode.INVALID_ARGUMENT,
            ["dual", "strategy.cache", "block"],
        ),
        ({"sampling": pb.Sampling(max_tokens=0)}, grpc.StatusCode.INVALID_ARGUMENT, ["max_tokens"]),
        ({"sampling": pb.Sampling(max_tokens=9999)}, grpc.StatusCode.INVALID_ARGUMENT, ["max_tokens", "9999"]),
        ({"sampling": pb.Sampling(temperature=-1)}, grpc.StatusCode.INVALID_ARGUMENT, ["temperature"]),
        ({"chat": None, "text": ""}, grpc.StatusCode.INVALID_ARGUMENT, ["prompt"]),
        ({"chat": None}, grpc.StatusCode.INVALID_ARGUMENT, ["prompt", "token_ids"]),
        ({"chat": None, "text": "word " * 9999}, grpc.StatusCode.INVALID_ARGUMENT, ["prompt"]),
        ({"chat": None, "token_ids": pb.TokenIds(ids=[10**9])}, grpc.StatusCode.INVALID_ARGUMENT, ["token id"]),
    ],
)
def test_bad_requests(stub: GenerationStub, fields: dict[str, Any], code: grpc.StatusCode, words: list[str]) -> None:
    for call in (lambda one: stub.Generate(one), lambda one: list(stub.GenerateStream(one))):
        with pytest.raises(grpc.RpcError) as caught:
            call(request(**fields))
        error: Any = caught.value
        assert error.code() is code
        assert all(word in error.details() for word in words), error.details()
        assert "Traceback" not in error.details()


def test_a_knob_out_of_bounds_is_named(stub: GenerationStub) -> None:
    params = struct_pb2.Struct()
    params.update({"threshold": 2})
    with pytest.raises(grpc.RpcError) as caught:
        stub.Generate(request(strategy=pb.Strategy(decoder="threshold", params=params)))
    assert "strategy.threshold" in caught.value.details()  # type: ignore[attr-defined]


@pytest.mark.parametrize("body", [b"\x12\x02\xff\xfe", b"\xff\xff\xff"], ids=["not UTF-8", "not protobuf"])
def test_bytes_that_are_no_request(channel: grpc.Channel, stub: GenerationStub, body: bytes) -> None:
    raw = channel.unary_unary(
        "/lacuna.v1.Generation/Generate", request_serializer=bytes, response_deserializer=pb.GenerateResponse.FromString
    )
    with pytest.raises(grpc.RpcError) as caught:
        raw(body)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    assert "GenerateRequest" in caught.value.details()  # type: ignore[attr-defined]
    assert stub.Generate(request()).choices, "nobody else notices"
