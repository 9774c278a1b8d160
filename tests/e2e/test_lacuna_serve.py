"""`lacuna serve` as a process: what it prints works, over HTTP, with the openai client and over gRPC."""

from __future__ import annotations

import re
import shlex
import subprocess

import grpc
import httpx
import openai

from deployments.config import EMBEDDED_MODELS
from protos import generation_pb2 as pb
from protos.generation_pb2_grpc import GenerationStub
from tests.e2e.conftest import BIN, Server


def test_the_printed_command_works_as_it_is(server: Server) -> None:
    printed = re.search(r"^ *curl .*?(?<!\\)$", server.greeting, flags=re.MULTILINE | re.DOTALL)
    assert printed is not None, server.greeting
    command = shlex.split(printed.group().replace("\\\n", " "))
    done = subprocess.run([command[0], "-sS", "--fail", *command[1:]], capture_output=True, text=True, check=True)
    assert '"role":"assistant"' in done.stdout


def test_http_and_grpc_serve_both_models(server: Server) -> None:
    assert httpx.get(f"{server.base_url}/health").json()["models"] == dict.fromkeys(EMBEDDED_MODELS, "ok")
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        models = GenerationStub(channel).ListModels(pb.ListModelsRequest()).models
    assert [model.id for model in models] == list(EMBEDDED_MODELS)


def test_the_offline_command_and_the_server_agree(server: Server) -> None:
    question = "What is 17 + 25?"
    options = ["--decoder", "threshold", "--threshold", "0.9", "--max-tokens", "48"]
    offline = subprocess.run(
        [BIN / "lacuna", "generate", question, *options], capture_output=True, text=True, check=True
    )
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key="none") as client:
        online = client.chat.completions.create(
            model=EMBEDDED_MODELS[0],
            messages=[{"role": "user", "content": question}],
            max_tokens=48,
            extra_body={"diffusion": {"decoder": "threshold", "threshold": 0.9}},
        )
    assert offline.stdout.removesuffix("\n") == online.choices[0].message.content
