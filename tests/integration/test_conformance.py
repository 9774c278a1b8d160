"""Whatever is sent, in whatever order: no failure of the server, no hang, and nobody beside it notices.

The HTTP cases come from the service's own OpenAPI page (schemathesis), the gRPC cases from its descriptors. A canary
asks the same question all the while and must get the same answer.
"""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.specs.openapi import checks

from protos import generation_pb2 as pb
from tests.helpers.proto_messages import messages
from tests.integration.conftest import Service

MODELS = ["lacuna-tiny-sdar", "lacuna-tiny-llada"]
CANARY: dict[str, Any] = {
    "model": MODELS[1],
    "messages": [{"role": "user", "content": "What is 17 + 25?"}],
    "max_tokens": 40,
    "user": "canary",
}
PATIENCE_S = 30.0
SETTINGS = settings(
    max_examples=20,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
RESPONSE_CHECKS: list[Any] = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
ALLOWED_CODES = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
RPCS: dict[str, tuple[type[Any], type[Any]]] = {
    "Generate": (pb.GenerateRequest, pb.GenerateResponse),
    "GenerateStream": (pb.GenerateRequest, pb.GenerateChunk),
    "Infill": (pb.InfillRequest, pb.InfillResponse),
    "ListModels": (pb.ListModelsRequest, pb.ListModelsResponse),
    "ListStrategies": (pb.ListStrategiesRequest, pb.ListStrategiesResponse),
}


@pytest.fixture(scope="module", autouse=True)
def canary(service: Service) -> Iterator[None]:
    """Asks the same thing over and over, beside everything else in this module."""
    answers: list[Any] = []
    ended = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=service.base_url, timeout=PATIENCE_S) as client:
            while not ended.is_set():
                response = client.post("/v1/chat/completions", json=CANARY)
                body = response.json()
                told = body.get("usage") or {}  # how much others have spared a request is no property of its answer
                usage = [told.get("completion_tokens"), (told.get("diffusion") or {}).get("forwards")]
                answers.append([response.status_code, body.get("choices"), usage, body.get("error")])
                time.sleep(0.1)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(PATIENCE_S)
    assert not thread.is_alive(), "the canary hangs"
    assert len(answers) > 5
    assert answers[0][0] == 200
    assert [answer for answer in answers if answer != answers[0]] == []


def operations(service: Service) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schema = schemathesis.openapi.from_url(f"{service.base_url}/openapi.json")
    return [result.ok() for result in schema.get_all_operations()]


def tamed(case: Any, plausible: bool) -> Any:
    """Half of the bodies get what lets them reach an engine, and none may run for long."""
    if isinstance(case.body, dict):
        case.body["timeout_ms"] = 2000
        if plausible:
            case.body |= {"model": MODELS[len(case.body) % 2], "max_tokens": 8, "diffusion": {}, "priority": 0}
            if "template" in case.body:
                del case.body["max_tokens"]
    return case


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
def test_http(service: Service, mode: GenerationMode) -> None:
    statuses: set[int] = set()
    for operation in operations(service):

        @SETTINGS
        @given(case=operation.as_strategy(generation_mode=mode), plausible=st.booleans())
        def check(case: Any, plausible: bool) -> None:
            response = tamed(case, plausible).call(base_url=service.base_url, timeout=PATIENCE_S)
            statuses.add(response.status_code)
            case.validate_response(response, checks=RESPONSE_CHECKS)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the generator, about schemas and examples
            with contextlib.suppress(Unsatisfiable) if mode is GenerationMode.NEGATIVE else contextlib.nullcontext():
                check()  # where nothing can be wrong, there is no invalid case
    assert (200 if mode is GenerationMode.POSITIVE else 400) in statuses


def tamed_message(message: Any, plausible: bool) -> Any:
    if hasattr(message, "timeout_ms"):
        message.timeout_ms = 2000
        message.priority = 0
        if plausible:
            message.model = MODELS[message.ByteSize() % 2]
            message.ClearField("strategy")
            message.ClearField("sampling")
            if message.DESCRIPTOR.name == "InfillRequest":
                message.template.insert(0, pb.Segment(text="hi "))
                message.template.insert(1, pb.Segment(gap=pb.Gap(tokens=2)))
                del message.template[2:]
            else:
                message.text, message.n, message.suffix = "hi", 1, ""
                message.sampling.max_tokens = 8
    return message


def outcome(channel: grpc.Channel, rpc: str, data: bytes, metadata: Any = ()) -> grpc.StatusCode:
    """The status of a call with these bytes; answers must be readable."""
    options = {"request_serializer": bytes, "response_deserializer": RPCS[rpc][1].FromString}
    path = f"/lacuna.v1.Generation/{rpc}"
    try:
        if rpc == "GenerateStream":
            list(channel.unary_stream(path, **options)(data, timeout=PATIENCE_S, metadata=metadata))
        else:
            channel.unary_unary(path, **options)(data, timeout=PATIENCE_S, metadata=metadata)
    except grpc.RpcError as error:
        failure: Any = error
    else:
        return grpc.StatusCode.OK
    assert "Traceback" not in failure.details()
    code: grpc.StatusCode = failure.code()
    return code


@pytest.mark.parametrize("rpc", RPCS)
def test_grpc_messages(service: Service, rpc: str) -> None:
    codes: set[grpc.StatusCode] = set()
    with grpc.insecure_channel(service.grpc_address) as channel:

        @SETTINGS
        @given(message=messages(RPCS[rpc][0]), plausible=st.booleans())
        def check(message: Any, plausible: bool) -> None:
            started = time.monotonic()
            code = outcome(channel, rpc, tamed_message(message, plausible).SerializeToString())
            assert code in ALLOWED_CODES, message
            assert time.monotonic() - started < PATIENCE_S / 2, message
            codes.add(code)

        check()
    assert grpc.StatusCode.OK in codes


def test_grpc_bytes(service: Service) -> None:
    """Messages with a few bytes changed, cut or added, and odd metadata."""
    valid = pb.GenerateRequest(text="hi", sampling=pb.Sampling(max_tokens=4), timeout_ms=2000).SerializeToString()
    codes: set[grpc.StatusCode] = set()
    with grpc.insecure_channel(service.grpc_address) as channel:

        @SETTINGS
        @given(
            rpc=st.sampled_from(sorted(RPCS)),
            place=st.integers(0, len(valid)),
            junk=st.binary(max_size=4),
            value=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
            key=st.sampled_from(["x-request-id", "authorization", "x-lacuna-timeout-ms", "traceparent", "session_id"]),
        )
        def check(rpc: str, place: int, junk: bytes, key: str, value: str) -> None:
            code = outcome(channel, rpc, valid[:place] + junk + valid[place + 1 :], ((key, value),))
            assert code in ALLOWED_CODES
            codes.add(code)

        check()
    assert grpc.StatusCode.INVALID_ARGUMENT in codes
