"""The log files of the running service: every line an object, requests by their ids, no text of a request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import ray

from deployments.config import EMBEDDED_MODELS
from deployments.launch import APP_NAME
from protos import generation_pb2 as pb
from protos.generation_pb2_grpc import GenerationStub
from tests.integration.conftest import Service

CANARY = "Canary7f3a"
SDAR = EMBEDDED_MODELS[0]
TRACE = "0af7651916cd43dd8448eb211c80319c"


def log_folder() -> Path:
    """Where this Ray's processes log."""
    return Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"  # type: ignore[attr-defined]


def replica_logs() -> Iterator[list[dict[str, Any]]]:
    """The lines of each replica, as Serve has written them so far. (Other applications of this Ray log as text.)"""
    for file in sorted((log_folder() / "serve").glob(f"replica_{APP_NAME}_*.log")):
        yield [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def lines_of(request_id: str) -> list[dict[str, Any]]:
    return [line for lines in replica_logs() for line in lines if line.get("request_id") == request_id]


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
    assert "ends with InvalidRequestError of strategy.threshold" in told["message"], "under the client's id"
    everywhere = [file for file in log_folder().rglob("*") if file.is_file()]
    assert len(everywhere) > 10
    assert not [file for file in everywhere if CANARY.encode() in file.read_bytes()]


def test_every_line_is_an_object_with_its_process(service: Service) -> None:
    """Serve's first lines, before our code runs, are objects with its own names."""
    components = set()
    for lines in replica_logs():
        ours = [line for line in lines if "asctime" not in line]
        assert lines[-len(ours) :] == ours
        for line in ours:
            assert {"time", "level", "logger", "message", "component", "replica"} <= line.keys(), line
            components.add((line["component"], line.get("model") if line["component"] == "engine" else None))
    assert components >= {("ingress", None), *(("engine", model) for model in EMBEDDED_MODELS)}
