"""`lacuna serve` over several ranks: on one machine, and on a cluster of two nodes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import BIN, ROOT, running
from tests.ports import free_port

pytestmark = pytest.mark.timeout(400)

PROMPT = "What is 17 + 25?"
PLACES = """
import json, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
groups = ray.util.placement_group_table().values()
print(json.dumps({group["name"]: list(group["bundles_to_node_id"].values()) for group in groups}))
"""


def lacuna(*words: str | Path) -> str:
    done = subprocess.run([BIN / "lacuna", *words], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of experts with random weights."""
    folder = tmp_path_factory.mktemp("moe") / "checkpoint"
    lacuna("models", "synthesize", folder, "--experts", "4")
    return folder


@pytest.fixture(scope="module")
def expected(moe: Path) -> str:
    """What one process answers without a server."""
    words = ["generate", PROMPT, "--raw", "-m", moe, "--max-tokens", "24", "--decoder", "threshold"]
    return lacuna(*words).strip("\n")


def complete(port: int, model: str) -> str:
    body: dict[str, Any] = {"model": model, "prompt": PROMPT, "max_tokens": 24, "diffusion": {"decoder": "threshold"}}
    response = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body, timeout=120)
    assert response.status_code == 200, response.text
    text: str = response.json()["choices"][0]["text"]
    return text


def test_two_ranks_on_one_machine_answer_as_one(moe: Path, expected: str) -> None:
    port = free_port()
    command = ["serve", "--tp", "2", "--ep", "2", "-m", f"moe={moe}", "--port", port, "--grpc-port", free_port()]
    with running([str(BIN / "lacuna"), *map(str, command)], ready="Press Ctrl-C"):
        assert complete(port, "moe").strip("\n") == expected


def test_a_machine_without_room_is_told_what_is_missing(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("models: [{id: lacuna-tiny-sdar, num_cpus: 1000}]")
    command = [BIN / "lacuna", "serve", "--config", config, "--tp", "2", "--port", str(free_port())]
    refused = subprocess.run([*command, "--grpc-port", str(free_port())], capture_output=True, text=True, cwd=ROOT)
    assert refused.returncode == 2, refused.stderr
    assert "lacuna-tiny-sdar: 2 ranks of 1000 CPU each do not fit on one node" in refused.stderr
    assert "missing: 2000 CPU" in refused.stderr


def test_ranks_are_packed_on_one_node_or_spread_over_two(moe: Path, expected: str, tmp_path: Path) -> None:
    engine = {"tensor_parallel_size": 2, "expert_parallel_size": 2}
    models = [
        {"id": strategy, "path": str(moe), "engine": engine, "placement_strategy": strategy}
        for strategy in ("STRICT_PACK", "STRICT_SPREAD")
    ]
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"models": models, "graceful_shutdown_timeout_s": 2}))
    port = free_port()
    nodes = [sys.executable, "-m", "cluster.local", "--nodes", "2", "--cpus", "2"]
    with running(nodes, ready=" nodes at ") as greeting:
        address = greeting.split(" nodes at ")[1].split()[0]
        command = ["serve", "--ray-address", address, "--config", config, "--port", port, "--grpc-port", free_port()]
        with running([str(BIN / "lacuna"), *map(str, command)], ready="Press Ctrl-C"):
            assert {complete(port, model["id"]).strip("\n") for model in models} == {expected}
            script = [sys.executable, "-c", PLACES, address]
            places = json.loads(subprocess.run(script, capture_output=True, text=True, check=True, cwd=ROOT).stdout)
    (packed,) = [nodes for name, nodes in places.items() if "STRICT_PACK" in name]
    (spread,) = [nodes for name, nodes in places.items() if "STRICT_SPREAD" in name]
    assert len(packed) == len(spread) == 2
    assert len(set(packed)) == 1
    assert len(set(spread)) == 2
