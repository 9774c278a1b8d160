"""What `openai` clients may ask for beyond plain answers, and this server's own routes, under real clients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deployments.config import EMBEDDED_MODELS
from tests.integration.conftest import Service

LLADA, SDAR = "lacuna-tiny-llada", "lacuna-tiny-sdar"
MESSAGES: Any = [{"role": "user", "content": "What is 17 + 25?"}]


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[openai.OpenAI]:
    """One caller, who keeps one arm of the running experiment."""
    options: dict[str, Any] = {"max_retries": 0, "timeout": 60, "default_headers": {"x-session-id": "tests"}}
    with openai.OpenAI(base_url=f"{service.base_url}/v1", api_key="none", **options) as one:
        yield one


@pytest.mark.parametrize("model", EMBEDDED_MODELS)
def test_logprobs_of_chat_describe_the_answer(client: openai.OpenAI, model: str) -> None:
    ask = {"model": model, "messages": MESSAGES, "max_tokens": 40, "logprobs": True, "top_logprobs": 1}
    choice = client.chat.completions.create(**ask).choices[0]
    assert choice.logprobs is not None
    entries = choice.logprobs.content or []
    text = b"".join(bytes(entry.bytes or []) for entry in entries).decode()
    assert text == choice.message.content
    assert all(entry.logprob <= 0 for entry in entries)
    assert all(entry.top_logprobs[0].token == entry.token for entry in entries)
    streamed = [
        entry
        for chunk in client.chat.completions.create(**ask, stream=True)
        for part in chunk.choices
        if part.logprobs is not None
        for entry in part.logprobs.content or []
    ]
    assert [entry.logprob for entry in streamed] == [entry.logprob for entry in entries]


@pytest.mark.parametrize("model", EMBEDDED_MODELS)
def test_logprobs_are_the_models_probabilities_at_commit(client: openai.OpenAI, model: str) -> None:
    """What is decided with a threshold of 0.9 had at least this probability, except where a step had nothing better."""
    strategy = {"diffusion": {"decoder": "sequential"}}
    ask = {"model": model, "prompt": "2 + 3 =", "max_tokens": 1, "logprobs": 0, "extra_body": strategy}
    first = client.completions.create(**ask).choices[0]
    assert first.logprobs is not None
    greedy = (first.logprobs.token_logprobs or [])[0]
    drawn = {
        (choice.logprobs.tokens or [""])[0]: (choice.logprobs.token_logprobs or [0.0])[0]
        for choice in client.completions.create(**(ask | {"max_tokens": 1}), n=48, temperature=1.5, seed=1).choices
        if choice.logprobs is not None and choice.logprobs.tokens
    }
    assert len(drawn) > 3
    assert sum(map(math.exp, drawn.values())) <= 1 + 1e-4, "different tokens share one distribution"
    assert max(drawn.values()) == pytest.approx(greedy, abs=1e-4), "the most probable one is what temperature 0 takes"


def test_echo_repeats_the_prompt(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": LLADA, "prompt": "2 + 3 =", "max_tokens": 6}
    plain = client.completions.create(**ask).choices[0].text
    echoed = client.completions.create(**ask, echo=True, logprobs=0).choices[0]
    assert echoed.text == "2 + 3 =" + plain
    logprobs = echoed.logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert logprobs.token_logprobs is not None
    given = sum(number is None for number in logprobs.token_logprobs)
    assert "".join(logprobs.tokens[:given]) == "2 + 3 ="
    assert logprobs.text_offset is not None
    offsets = zip(logprobs.text_offset, logprobs.tokens, strict=True)
    assert all(echoed.text[at:].startswith(token) for at, token in offsets)
    chunks = list(client.completions.create(**ask, echo=True, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == echoed.text
    ids = client.completions.create(model=LLADA, prompt=[20, 21, 22], max_tokens=2, echo=True)
    assert ids.choices[0].text


def test_a_suffix_is_seen(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": LLADA, "prompt": "What is 17 + ", "max_tokens": 3}
    answer = client.completions.create(**ask, suffix="? 42")
    choice = answer.choices[0]
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 3
    assert choice.finish_reason in ("stop", "length")
    other = client.completions.create(**ask, suffix=" apples and eats them all on one day.", logprobs=0)
    assert other.choices[0].logprobs is not None
    assert len(other.choices[0].logprobs.tokens or []) == other.usage.completion_tokens  # type: ignore[union-attr]
    streamed = list(client.completions.create(**ask, suffix="? 42", stream=True))
    assert "".join(chunk.choices[0].text for chunk in streamed) == choice.text
    with pytest.raises(openai.BadRequestError, match="block-causal") as refused:
        client.completions.create(model=SDAR, prompt="What is 17 + ", max_tokens=8, suffix="? 42")
    assert refused.value.param == "template"


def test_ids_and_fingerprints(client: openai.OpenAI) -> None:
    ask: dict[str, Any] = {"model": SDAR, "messages": MESSAGES, "max_tokens": 8, "user": "me"}
    raw = client.chat.completions.with_raw_response.create(**ask, extra_headers={"x-request-id": "my-own:1"})
    assert raw.headers.get_list("x-request-id") == ["my-own:1"]
    first = raw.parse()
    chunks = list(client.chat.completions.create(**ask, stream=True))
    assert len({chunk.id for chunk in chunks}) == 1
    assert first.id != chunks[0].id
    assert first.system_fingerprint == chunks[0].system_fingerprint
    assert first.system_fingerprint.startswith("fp_")
    assert first._request_id == "my-own:1"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/health", None, 200),
        ("GET", "/nowhere", None, 404),
        ("GET", "/v1/infill", None, 405),
        ("POST", "/v1/completions", {"prompt": 5}, 400),
        ("POST", "/v1/completions", {"prompt": "x" * (5 * 2**20)}, 413),
        ("POST", "/v1/completions", {"prompt": "hi", "max_tokens": 2, "stream": True}, 200),
    ],
)
def test_exactly_one_request_id_in_every_answer(
    http: httpx.Client, method: str, path: str, body: Any, status: int
) -> None:
    for sent in (None, "mine"):
        response = http.request(method, path, json=body, headers={"x-request-id": sent} if sent else {})
        assert response.status_code == status, response.text[:300]
        (got,) = response.headers.get_list("x-request-id")
        assert got == (sent or got)
        assert len(got) >= 4


def test_infill_fills_every_gap_between_its_texts(http: httpx.Client) -> None:
    template = ["Tom has ", {"gap": 2}, " apples and buys 5 more.", {"gap": {"max_tokens": 12}}]
    body = {"model": LLADA, "template": template, "logprobs": True, "user": "me", "diffusion": {"decoder": "threshold"}}
    answer = http.post("/v1/infill", json=body).raise_for_status().json()
    exact, free = answer["gaps"]
    assert answer["text"] == f"Tom has {exact['text']} apples and buys 5 more.{free['text']}"
    assert len(exact["token_ids"]) == 2
    assert exact["finish_reason"] == "length"
    assert len(free["token_ids"]) <= 12
    for gap in (exact, free):
        assert len(gap["logprobs"]["content"]) == len(gap["token_ids"])
        assert all(entry["logprob"] <= 0 for entry in gap["logprobs"]["content"])
    assert answer["usage"]["completion_tokens"] == len(exact["token_ids"]) + len(free["token_ids"])
    again = http.post("/v1/infill", json=body).json()
    assert again["gaps"] == answer["gaps"]


def test_infill_with_a_block_causal_model_only_where_it_can_see(http: httpx.Client) -> None:
    template = ["Tom has ", {"gap": 2}, " apples."]
    refused = http.post("/v1/infill", json={"model": SDAR, "template": template})
    assert refused.status_code == 400
    assert "diffusion.block_length" in refused.json()["error"]["message"]
    allowed = http.post("/v1/infill", json={"model": SDAR, "template": template, "diffusion": {"block_length": 64}})
    assert allowed.status_code == 200, allowed.text
    ends = http.post("/v1/infill", json={"model": SDAR, "template": ["Tom has ", {"gap": 4}]})
    assert ends.json()["gaps"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("template", "param"),
    [
        (["a", {"gap": 10**9}], "template"),
        (["a", {"gap": 400}, "b", {"gap": 400}], "template"),
        (["a", {"gap": 1}, {"gap": 1}], "template"),
        ([{"gap": 1}], "template"),
    ],
)
def test_infill_refuses_by_name(http: httpx.Client, template: Any, param: str) -> None:
    response = http.post("/v1/infill", json={"model": LLADA, "template": template})
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith(param)


@pytest.mark.parametrize("model", EMBEDDED_MODELS)
def test_the_event_stream_builds_the_answer(client: openai.OpenAI, model: str) -> None:
    ask: dict[str, Any] = {"model": model, "messages": MESSAGES, "max_tokens": 40}
    whole = client.chat.completions.create(**ask).choices[0].message.content
    stream = client.chat.completions.create(**ask, stream=True, extra_body={"diffusion": {"stream": "events"}})
    choices = [choice for chunk in stream for choice in chunk.choices]
    events = [event for choice in choices for event in getattr(choice, "diffusion", {}).get("events", [])]
    assert "".join(choice.delta.content or "" for choice in choices) == whole, "the plain stream is append-only"
    assert "".join(event["text"] for event in events if event["type"] == "commit") == whole
    canvas: list[int | None] = []
    committed = 0
    for event in events:
        if event["type"] == "length":
            canvas += [None] * (event["length"] - len(canvas))
        elif event["type"] == "canvas":
            for place, token in zip(event["positions"], event["token_ids"], strict=True):
                assert canvas[place] is None
                canvas[place] = token
        else:
            assert event["type"] == "commit"
            assert event["start"] == committed
            committed = event["end"]
            assert canvas[event["start"] : event["end"]] == event["token_ids"]
    assert len(canvas) == 40


def test_metrics_of_the_running_service(http: httpx.Client) -> None:
    http.post("/v1/completions", json={"model": LLADA, "prompt": "2 + 3 =", "max_tokens": 4}).raise_for_status()
    response = http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    tokens = sum(sample.value for sample in families["lacuna_completion_tokens"].samples if sample.name.endswith("l"))
    assert tokens > 0
    assert families["lacuna_router_queue_depth"].samples[0].value == 0
