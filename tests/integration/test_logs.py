"""The log files of the running service: every line an object, requests by their ids, no text of a request."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import ray

from deployments.config import EMBEDDED_MODELS
from protos import generation_pb2 as pb
from protos.generation_pb2_grpc import GenerationStub
from tests.integration.conftest import Service

CANARY = "Canary7f3a"
SDAR = EMBEDDED_MODELS[0]
TRACE = "0af7651916cd43dd8448eb211c80319c"


def log_lines() -> list[str]:
    """Of all replicas, as Serve has written them so far."""
    session = Path(ray._private.worker._global_node.get_session_dir_path())  # type: ignore[attr-defined]
    files = sorted((session / "logs" / "serve").glob("replica_*.log"))
    return [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def lines_of(request_id: str) -> list[dict[str, Any]]:
    loaded = map(json.loads, log_lines())
    return [line for line in loaded if line.get("request_id") == request_id]


def access_line(request_id: str, eventually: Callable[[Callable[[], bool]], None]) -> dict[str, Any]:
    def found() -> list[dict[str, Any]]:
        return [line for line in lines_of(request_id) if line["logger"] == "deployments.logs.access"]

    eventually(lambda: bool(found()))
    (line,) = found()
    return line


def test_requests_leave_one_line_each_and_no_text(
    service: Service, http: httpx.Client, stub: GenerationStub, eventually: Callable[[Callable[[], bool]], None]
) -> None:
    body = {"model": SDAR, "prompt": f"What is {CANARY}?", "max_tokens": 8, "diffusion": {"decoder": "threshold"}}
    http.post("/v1/completions", json=body, headers={"x-request-id": "log-1"}).raise_for_status()
    wrong = body | {"diffusion": {"decoder": "threshold", "threshold": CANARY}}
    assert http.post("/v1/completions", json=wrong, headers={"x-request-id": "log-2"}).status_code == 400
    request = pb.GenerateRequest(model=SDAR, text=CANARY, sampling=pb.Sampling(max_tokens=8))
    list(stub.GenerateStream(request, metadata=[("x-request-id", "log-3")]))
    with pytest.raises(grpc.RpcError):
        stub.Generate(pb.GenerateRequest(model=CANARY, text=CANARY), metadata=[("x-request-id", "log-4")])

    answered = access_line("log-1", eventually)
    assert answered["route"] == "/v1/completions"
    assert (answered["status"], answered["strategy"], answered["model"]) == (200, "threshold", SDAR)
    assert answered["forwards"] >= 1
    assert answered["component"] == "ingress"
    assert answered["replica"]
    refused = access_line("log-2", eventually)
    assert (refused["status"], refused["error"]) == (400, "InvalidRequestError")
    assert access_line("log-3", eventually)["route"] == "GenerateStream"
    assert access_line("log-4", eventually)["status"] == 404
    (told,) = [line for line in lines_of("log-2") if line["component"] == "engine"]
    assert "ends with InvalidRequestError of threshold" in told["message"], "under the client's id"
    assert not [line for line in log_lines() if CANARY in line]


def test_every_line_is_an_object_with_its_process(service: Service) -> None:
    components = set()
    for line in map(json.loads, log_lines()):
        assert {"time", "level", "logger", "message", "component", "replica"} <= line.keys(), line
        components.add((line["component"], line.get("model") if line["component"] == "engine" else None))
    assert {("ingress", None), ("router", None)} | {("engine", model) for model in EMBEDDED_MODELS} >= components
    assert ("ingress", None) in components
