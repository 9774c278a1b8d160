"""deployments/http_api.py with its bodies and events: what a client reads, without Serve."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from deployments import replay
from deployments.callers import Caller
from deployments.config import AppConfig
from deployments.http_api import HttpApi
from deployments.openai_api.requests import CompletionBody
from deployments.strategy_choice import GOALS
from engine.errors import EngineDeadError, OverloadedError
from tests.deployments.fakes import FakeEngine, FakeRouter, http_client, metered

CONFIG = AppConfig.parse({"models": "fake=/x", "keepalive_s": 0.05})


async def post(path: str, engine: FakeEngine, router: FakeRouter | None = None, **fields: Any) -> httpx.Response:
    async with http_client(CONFIG, engine, router) as client:
        return await client.post(path, json=fields)


async def complete(engine: FakeEngine, router: FakeRouter | None = None, **fields: Any) -> httpx.Response:
    return await post("/v1/completions", engine, router, **({"prompt": "hi"} | fields))


async def chat(engine: FakeEngine, **fields: Any) -> httpx.Response:
    return await post("/v1/chat/completions", engine, **({"messages": [{"role": "user", "content": "hi"}]} | fields))


def events(response: httpx.Response) -> list[str]:
    assert response.text.endswith("\n\n")
    return response.text.removesuffix("\n\n").split("\n\n")


def chunks(response: httpx.Response) -> list[Any]:
    texts = events(response)
    assert texts.pop() == "data: [DONE]"
    assert all(text.startswith("data: ") and "\n" not in text for text in texts)
    return [json.loads(text.removeprefix("data: ")) for text in texts]


async def test_a_whole_completion() -> None:
    answer = (await complete(FakeEngine(["a", "b"]), n=2)).json()
    assert [choice["text"] for choice in answer["choices"]] == ["ab", "ab"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert [choice["logprobs"] for choice in answer["choices"]] == [None, None]
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["system_fingerprint"].startswith("fp_")
    assert answer["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 0},
        "diffusion": {
            "denoising_steps": 4,
            "forwards": 4,
            "positions_computed": 32,
            "tokens_per_forward": 1.0,
            "strategy": {
                "name": "fast",
                "version": 2,
                "options": {"threshold": 0.5},
                "chosen_by": "default",
                "adjusted": False,
                "reason": "",
            },
        },
    }


async def test_a_whole_chat_answer() -> None:
    answer = (await chat(FakeEngine(["a", "b"]))).json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "ab", "refusal": None}
    assert answer["choices"][0]["finish_reason"] == "stop"


async def test_a_streamed_completion() -> None:
    found = chunks(await complete(FakeEngine(["a", "", "b"]), stream=True))
    assert [chunk["choices"][0]["text"] for chunk in found] == ["a", "b"], "an increment without news is not sent"
    assert [chunk["choices"][0]["finish_reason"] for chunk in found] == [None, "stop"]
    assert "usage" not in found[-1]


async def test_a_streamed_chat_answer() -> None:
    found = chunks(await chat(FakeEngine(["a", "b"]), stream=True, stream_options={"include_usage": True}))
    assert [chunk["choices"][0]["delta"] for chunk in found[:-1]] == [
        {"role": "assistant", "content": ""}, {"content": "a"}, {"content": "b"}, {},
    ]  # fmt: skip
    assert found[-2]["choices"][0]["finish_reason"] == "stop"
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["completion_tokens"] == 2
    for field in ("id", "created", "model", "system_fingerprint"):
        assert len({chunk[field] for chunk in found}) == 1


async def test_answers_have_ids_of_their_own() -> None:
    engine = FakeEngine()
    assert (await complete(engine)).json()["id"] != (await complete(engine)).json()["id"]


async def test_several_streamed_choices_keep_their_index() -> None:
    found = chunks(await complete(FakeEngine(["a", "b"]), stream=True, n=3, stream_options={"include_usage": True}))
    for index in range(3):
        mine = [chunk["choices"][0] for chunk in found[:-1] if chunk["choices"][0]["index"] == index]
        assert "".join(choice["text"] for choice in mine) == "ab"
    assert found[-1]["usage"]["prompt_tokens"] == 3


async def test_the_probabilities_of_a_completion() -> None:
    answer = (await complete(FakeEngine(["a", "é", "b"]), logprobs=1, echo=True)).json()
    choice = answer["choices"][0]
    assert choice["text"] == "hiaéb"
    assert choice["logprobs"]["tokens"] == ["h", "i", "a", "é", "b"]
    assert choice["logprobs"]["token_logprobs"] == [None, None, -0.5, -1.0, None], "nan is no JSON"
    assert choice["logprobs"]["text_offset"] == [0, 1, 2, 3, 4]
    assert choice["logprobs"]["top_logprobs"] == [None, None, {"a": -0.5}, {"é": -1.0}, None]


async def test_the_probabilities_of_a_streamed_completion_add_up_to_those_of_the_whole() -> None:
    whole = (await complete(FakeEngine(["a", "é", "b"]), logprobs=0, echo=True)).json()["choices"][0]["logprobs"]
    parts = chunks(await complete(FakeEngine(["a", "é", "b"]), logprobs=0, echo=True, stream=True))
    assert "".join(part["choices"][0]["text"] for part in parts) == "hiaéb"
    for field in ("tokens", "token_logprobs", "text_offset"):
        assert [item for part in parts for item in part["choices"][0]["logprobs"][field]] == whole[field]
    assert whole["top_logprobs"] is None


@pytest.mark.parametrize("stream", [False, True])
async def test_the_probabilities_of_a_chat_answer(*, stream: bool) -> None:
    response = await chat(FakeEngine(["a", "é"]), logprobs=True, top_logprobs=1, stream=stream)
    choices = [part["choices"][0] for part in chunks(response)] if stream else response.json()["choices"]
    entries = [entry for choice in choices if choice["logprobs"] for entry in choice["logprobs"]["content"]]
    assert [(entry["token"], entry["logprob"], entry["bytes"]) for entry in entries] == [
        ("a", -0.5, [97]),
        ("é", -1.0, [0xC3, 0xA9]),
    ]
    assert [len(entry["top_logprobs"]) for entry in entries] == [1, 1]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_suffix_makes_a_gap(*, stream: bool) -> None:
    engine = FakeEngine(["a", "b"])
    response = await complete(engine, suffix="end", max_tokens=2, logprobs=0, echo=True, stream=stream)
    choice = chunks(response)[-1]["choices"][0] if stream else response.json()["choices"][0]
    assert choice["text"] == "hiab"
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"]["token_logprobs"] == [None, None, -0.5, -1.0]
    template = engine.calls[0].template
    assert template is not None
    assert [part if isinstance(part, str) else part.tokens for part in template] == [2, "end"]
    assert engine.calls[0].sampling.max_tokens == 3, "what the router predicts its work from"


async def test_infilling() -> None:
    template = ["one ", {"gap": 2}, " three ", {"gap": {"max_tokens": 1}}]
    answer = (await post("/v1/infill", FakeEngine(["a", "b"]), template=template, logprobs=True)).json()
    assert answer["text"] == "one ab three ab"
    assert [gap["text"] for gap in answer["gaps"]] == ["ab", "ab"]
    assert answer["gaps"][0]["token_ids"] == [0, 1]
    assert [entry["logprob"] for entry in answer["gaps"][1]["logprobs"]["content"]] == [-0.5, -1.0]
    assert answer["object"] == "infill"


async def test_a_stream_of_denoising_steps_carries_the_canvas() -> None:
    found = chunks(await complete(FakeEngine(["a", "b"]), stream=True, diffusion={"stream": "step"}))
    assert found[0]["choices"][0]["diffusion"]["canvas"] == {
        "token_ids": [0, 99],
        "texts": ["a", ""],
        "revealed_at": [1, 0],
    }


async def test_a_stream_of_events_says_what_each_step_changed() -> None:
    found = chunks(await chat(FakeEngine(["a", "b"]), stream=True, diffusion={"stream": "events"}))
    choices = [chunk["choices"][0] for chunk in found]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "ab", "the plain stream is unchanged"
    events_found = [event for choice in choices for event in choice.get("diffusion", {}).get("events", [])]
    assert [event["type"] for event in events_found] == ["length", "canvas", "commit", "canvas", "commit"]
    assert events_found[0] == {"type": "length", "length": 2}
    first = {"step": 1, "positions": [0], "token_ids": [0], "texts": ["0"], "probabilities": [0.606531]}
    assert events_found[1] == {"type": "canvas", **first}
    commit = {"step": 2, "start": 1, "end": 2, "token_ids": [1], "text": "b", "logprobs": [-1.0]}
    assert events_found[4] == {"type": "commit", **commit}
    assert [choice["diffusion"]["forwards"] for choice in choices if "diffusion" in choice] == [1, 2]


async def test_silence_is_filled_with_comments() -> None:
    texts = events(await complete(FakeEngine(["a", "b"], delay_s=0.12), stream=True))
    assert ": keep-alive" in texts
    assert texts[-1] == "data: [DONE]"


async def test_waiting_for_a_place_is_filled_with_comments_too() -> None:
    router = FakeRouter(wait_s=0.2)
    response = await complete(FakeEngine(["a"]), router, stream=True)
    assert response.status_code == 200
    texts = events(response)
    assert texts[:2] == [": keep-alive"] * 2
    assert texts[-1] == "data: [DONE]"


async def test_the_last_chunk_says_which_strategy_was_used_and_why() -> None:
    presets = {goal: {"preset": f"{goal}@1", "decoder": "threshold"} for goal in GOALS}
    engine, router = FakeEngine(["a", "b"], presets=presets), FakeRouter(pressure=1.5)
    options = {"goal": "quality", "adapt": True}
    streamed = chunks(
        await complete(engine, router, stream=True, stream_options={"include_usage": True}, diffusion=options)
    )
    strategy = streamed[-1]["usage"]["diffusion"]["strategy"]
    assert (strategy["chosen_by"], strategy["adjusted"]) == ("goal", True)
    assert strategy["reason"] == "quality@1 became balanced@1 under load (1.5 requests per place)"
    assert engine.calls[0].strategy == {"preset": "balanced@1"}


async def test_a_wrong_goal_is_named_as_the_body_names_it() -> None:
    response = await complete(FakeEngine(), diffusion={"goal": "best"})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "diffusion.goal"


async def test_an_error_before_the_first_byte_has_its_own_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "MAX_REPLAYS", 0)
    failing = FakeEngine(["a"], fail_after=0, error=EngineDeadError("gone"))
    response = await complete(failing, stream=True)
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "engine_unavailable"


async def test_an_error_in_mid_stream_is_the_last_event() -> None:
    failing = FakeEngine(["a", "b", "c"], fail_after=1, error=RuntimeError("secret"))
    texts = events(await complete(failing, stream=True))
    assert json.loads(texts[-1].removeprefix("data: "))["error"]["type"] == "server_error"
    assert "secret" not in "".join(texts)
    assert "[DONE]" not in "".join(texts)


async def test_overload_is_429_with_retry_after() -> None:
    response = await complete(FakeEngine(), FakeRouter(OverloadedError("full", None, 3.0)))
    assert response.status_code == 429
    assert response.headers["retry-after"] == "3"
    assert response.json()["error"]["code"] == "overloaded"


async def test_unknown_models_are_404() -> None:
    response = await complete(FakeEngine(), model="gpt-9")
    assert response.status_code == 404
    assert response.json()["error"]["param"] == "model"


async def test_a_client_that_goes_away_stops_the_engine() -> None:
    engine = FakeEngine(["x"] * 1000, delay_s=0.01)
    api = HttpApi(metered(engine), CONFIG)
    response = await api.completions(CompletionBody(prompt="hi", stream=True), Caller())
    sent = asyncio.Event()

    async def send(message: Any) -> None:
        if message.get("body"):
            sent.set()

    async def receive() -> Any:
        await sent.wait()
        return {"type": "http.disconnect"}

    await response({"type": "http", "method": "POST", "path": "/"}, receive, send)
    assert not engine.running


async def test_models_strategies_and_health() -> None:
    async with http_client(CONFIG, FakeEngine()) as client:
        assert (await client.get("/v1/models")).json()["data"][0]["lacuna"]["is_default"] is True
        assert (await client.get("/v1/models/fake")).json()["object"] == "model"
        assert (await client.get("/v1/models/none")).status_code == 404
        presets = (await client.get("/v1/models/fake")).json()["lacuna"]["presets"]
        assert presets == {"fast": {"preset": "fast@2", "threshold": 0.5}}
        decoder, preset = (await client.get("/v1/strategies")).json()["data"]
        assert (decoder["name"], decoder["schema"], decoder["traits"]) == ("threshold", {"type": "object"}, ["edits"])
        assert (preset["version"], preset["goal"], preset["options"]) == (2, "fast", {"threshold": 0.5})
        assert (await client.get("/v1/strategies", params={"model": "none"})).status_code == 404
        assert (await client.get("/health")).status_code == (await client.get("/healthz")).status_code == 200


async def test_a_dead_engine_shows_in_health() -> None:
    config = AppConfig.parse({"models": "fake=/x,dead=/y"})
    async with http_client(config, FakeEngine(), dead=FakeEngine(unhealthy=EngineDeadError("stuck"))) as client:
        response = await client.get("/health")
    assert response.status_code == 503
    assert response.json()["models"] == {"fake": "ok", "dead": "unavailable"}
    assert response.json()["reasons"] == {"dead": "stuck"}


async def test_health_says_why_no_replica_runs() -> None:
    router = FakeRouter()
    router.missing = " No replica of the model runs: 1 GPU is missing"
    async with http_client(AppConfig(), FakeEngine(unhealthy=EngineDeadError("gone")), router) as client:
        answer = (await client.get("/health")).json()
    assert answer["reasons"] == {"fake": "No replica of the model runs: 1 GPU is missing"}
