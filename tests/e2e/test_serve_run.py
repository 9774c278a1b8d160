"""Serve's own command: `serve run` with the builder (HTTP only) and with the YAML file (HTTP and gRPC)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import grpc
import httpx
import pytest
import yaml

from protos import generation_pb2 as pb
from protos.generation_pb2_grpc import GenerationStub
from tests.e2e.conftest import BIN, ROOT, running
from tests.ports import free_port

READY = "is ready at"


def configuration(tmp_path: Path) -> tuple[Path, int, int]:
    """deployments/serve.yaml on free ports, with one model."""
    config = yaml.safe_load((ROOT / "deployments" / "serve.yaml").read_text())
    http_port, grpc_port = free_port(), free_port()
    config["http_options"]["port"] = http_port
    config["grpc_options"]["port"] = grpc_port
    arguments = config["applications"][0]["args"]
    arguments["models"] = arguments["models"][:1]
    arguments["graceful_shutdown_timeout_s"] = 2
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    return path, http_port, grpc_port


@pytest.mark.timeout(400)
def test_the_yaml_file_serves_http_and_grpc(tmp_path: Path) -> None:
    path, http_port, grpc_port = configuration(tmp_path)
    with running([str(BIN / "serve"), "run", str(path)], ready=READY):
        body = {"prompt": "2 + 3 =", "max_tokens": 4}
        answer = httpx.post(f"http://127.0.0.1:{http_port}/v1/completions", json=body, timeout=60).json()
        assert answer["usage"]["completion_tokens"] <= 4
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            response = GenerationStub(channel).Generate(
                pb.GenerateRequest(text="2 + 3 =", sampling=pb.Sampling(max_tokens=4))
            )
        assert response.choices[0].text == answer["choices"][0]["text"]


def test_a_wrong_setting_is_refused_with_what_is_allowed() -> None:
    command = [BIN / "serve", "run", "--non-blocking", "deployments.app:build_app", "model_list=x"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode != 0
    assert "unknown 'model_list'; allowed are: models" in done.stderr + done.stdout
