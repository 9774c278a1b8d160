"""deployments/http_app.py and http_gate.py: request ids, keys, limits, documentation and metrics of the whole app."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from deployments.api_keys import ApiKey, KeyRing, digest
from deployments.config import AppConfig
from tests.deployments.fakes import FakeEngine, FakeRouter, http_client

CONFIG = AppConfig.parse({"models": "fake=/x", "max_body_bytes": 2000})
KEYS = KeyRing([ApiKey(name="alice", sha256=digest("secret"))])
BODY = {"prompt": "hi"}
REQUESTS: list[tuple[str, str, Any, int]] = [
    ("POST", "/v1/completions", BODY, 200),
    ("POST", "/v1/completions", BODY | {"stream": True}, 200),
    ("POST", "/v1/completions", {"prompt": 5}, 400),
    ("POST", "/v1/completions", BODY | {"model": "none"}, 404),
    ("POST", "/v1/completions", {"prompt": "x" * 3000}, 413),
    ("GET", "/v1/completions", None, 405),
    ("GET", "/none", None, 404),
    ("GET", "/v1/models", None, 200),
    ("GET", "/health", None, 200),
    ("GET", "/metrics", None, 200),
    ("GET", "/openapi.json", None, 200),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), REQUESTS)
async def test_every_answer_names_its_request(method: str, path: str, body: Any, status: int) -> None:
    async with http_client(CONFIG, FakeEngine()) as client:
        response = await client.request(method, path, json=body)
    assert response.status_code == status
    assert response.headers["x-request-id"].startswith("req-")
    if status >= 400:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


async def test_the_clients_request_id_is_left_to_the_server_in_front() -> None:
    """Serve's own server repeats it in every answer: the application must not send it a second time."""
    async with http_client(CONFIG, FakeEngine()) as client:
        response = await client.get("/health", headers={"x-request-id": "mine"})
    assert "x-request-id" not in response.headers


@pytest.mark.parametrize("wrong", ["a b", "x" * 129, "a\tb", "é"])
async def test_request_ids_that_do_not_belong_into_logs_are_refused(wrong: str) -> None:
    async with http_client(CONFIG, FakeEngine()) as client:
        response = await client.get("/v1/models", headers={"x-request-id": wrong.encode()})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "x-request-id"


async def test_a_bug_is_an_error_object_with_the_requests_id(caplog: pytest.LogCaptureFixture) -> None:
    async with http_client(CONFIG, FakeEngine(fail_after=0, error=KeyError("secret"))) as client:
        response = await client.post("/v1/completions", json=BODY, headers={"x-request-id": "mine"})
    assert response.status_code == 500
    assert "mine" in response.json()["error"]["message"]
    assert "secret" not in response.text
    assert "mine" in caplog.text


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/completions"), ("POST", "/v1/infill"), ("GET", "/v1/models"), ("GET", "/metrics"), ("GET", "/x")],
)
async def test_without_a_key_there_is_nothing(method: str, path: str) -> None:
    engine = FakeEngine()
    async with http_client(CONFIG, engine, keys=KEYS) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
            response = await client.request(method, path, headers=headers, json=BODY)
            assert response.status_code == 401
            assert response.json()["error"]["code"] == "invalid_api_key"
            assert response.headers["www-authenticate"] == "Bearer"
    assert not engine.calls


async def test_with_a_key_there_is_everything_and_health_needs_none() -> None:
    router = FakeRouter()
    async with http_client(CONFIG, FakeEngine(), router, keys=KEYS) as client:
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/openapi.json")).status_code == 200
        answer = await client.post("/v1/completions", json=BODY, headers={"authorization": "Bearer secret"})
    assert answer.status_code == 200


async def test_open_paths_are_configurable() -> None:
    config = CONFIG.model_copy(update={"open_paths": ["/metrics"]})
    async with http_client(config, FakeEngine(), keys=KEYS) as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/health")).status_code == 401


async def test_a_body_that_does_not_say_its_length_is_cut_off_too() -> None:
    async def endless() -> AsyncGenerator[bytes]:
        while True:
            yield b"x" * 500

    async with http_client(CONFIG, FakeEngine()) as client:
        response = await client.post("/v1/completions", content=endless())
    assert response.status_code == 413
    assert "2000" in response.json()["error"]["message"]


async def test_the_documentation_is_complete() -> None:
    async with http_client(CONFIG, FakeEngine(), keys=KEYS) as client:
        schema = (await client.get("/openapi.json")).json()
        assert "swagger" in (await client.get("/docs")).text
    assert schema["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            assert {"200", "202"} & set(operation["responses"])
            if path != "/health":
                assert operation["security"] == [{"HTTPBearer": []}]
                assert operation["responses"]["401"]["content"]["application/json"]["schema"]
            if "requestBody" in operation:
                (content,) = operation["requestBody"]["content"].values()
                name = content["schema"]["$ref"].rsplit("/", 1)[1]
                described = schema["components"]["schemas"][name]
                assert "examples" in described or any("examples" in one for one in described["properties"].values())
    assert "422" not in str(schema["paths"]), "there is no such answer"
