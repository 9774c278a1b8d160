"""Sixteen different requests at once give each what it gives alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.integration.conftest import Service

LLADA, SDAR = "lacuna-tiny-llada", "lacuna-tiny-sdar"
QUESTIONS = [
    "What is 17 + 25?",
    "What is 8 * 7?",
    "Convert 3 km to m.",
    "Write a Python function that returns the sum of a and b.",
]
STRATEGIES: list[tuple[str, dict[str, Any]]] = [
    (LLADA, {"decoder": "low_confidence", "cache": "none", "block_length": 16}),
    (LLADA, {"decoder": "threshold", "threshold": 0.9, "cache": "dual", "block_length": 32}),
    (LLADA, {"decoder": "threshold", "threshold": 0.6, "cache": "prefix", "block_length": 8}),
    (LLADA, {"decoder": "factor", "factor": 1.0, "cache": "dual", "block_length": 16}),
    (LLADA, {"decoder": "random", "cache": "prefix", "block_length": 32}),
    (SDAR, {"decoder": "low_confidence_dynamic", "threshold": 0.85, "cache": "block"}),
    (SDAR, {"decoder": "sequential", "cache": "block"}),
    (SDAR, {"decoder": "low_confidence_static", "steps": 2, "cache": "block"}),
]


def bodies() -> list[dict[str, Any]]:
    """Each strategy greedy and drawn, with lengths that do not fit the blocks."""
    return [
        {
            "model": model,
            "messages": [{"role": "user", "content": QUESTIONS[(index + drawn) % len(QUESTIONS)]}],
            "max_tokens": 11 + 7 * index + 5 * drawn,
            "temperature": 0.8 * drawn,
            "top_p": 0.95,
            "seed": 100 + index,
            "diffusion": strategy,
        }
        for drawn in (0, 1)
        for index, (model, strategy) in enumerate(STRATEGIES)
    ]


def ask(client: httpx.Client, body: dict[str, Any]) -> Any:
    answer = client.post("/v1/chat/completions", json=body).raise_for_status().json()
    choice, usage = answer["choices"][0], answer["usage"]
    # What of the prompt is computed and in how many forwards depends on what others share and need.
    steps = usage["diffusion"]["denoising_steps"]
    return (
        choice["message"]["content"],
        choice["finish_reason"],
        usage["prompt_tokens"],
        usage["completion_tokens"],
        steps,
    )


def test_sixteen_at_once_equal_each_alone(service: Service) -> None:
    requests = bodies()
    assert len(requests) == 16
    with httpx.Client(base_url=service.base_url, timeout=100) as client:
        alone = [ask(client, body) for body in requests]
        with ThreadPoolExecutor(16) as pool:
            together = list(pool.map(lambda body: ask(client, body), requests))
    for body, single, mixed in zip(requests, alone, together, strict=True):
        assert mixed == single, body
    assert service.is_idle()


def test_bad_requests_among_good_ones_harm_nobody(service: Service) -> None:
    good = bodies()[::4]
    bad: list[dict[str, Any]] = [
        good[0] | {"diffusion": {"decoder": "none such"}},
        good[0] | {"max_tokens": 10**6},
        good[0] | {"messages": []},
        good[0] | {"model": "gpt"},
    ]
    with httpx.Client(base_url=service.base_url, timeout=100) as client:
        alone = [ask(client, body) for body in good]
        mixture = [body for pair in zip(good, bad, strict=True) for body in pair]
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda body: client.post("/v1/chat/completions", json=body), mixture))
    assert [answer.status_code for answer in answers[1::2]] == [400, 400, 400, 404]
    for single, answer in zip(alone, answers[0::2], strict=True):
        assert answer.json()["choices"][0]["message"]["content"] == single[0]
