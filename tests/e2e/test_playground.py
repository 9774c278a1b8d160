"""The playground in a real browser against the whole service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.conftest import Server
from tests.helpers.browser import launched, opened

LLADA, SDAR = "lacuna-tiny-llada", "lacuna-tiny-sdar"
PROMPT = "Tell a story about Ben the clever owl, who finds a red box in the castle."
TEXT = "Ben was a clever owl. One day Ben went to the castle and found a red box."


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as one:
        yield one


def address(server: Server, **settings: object) -> str:
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
    return f"{server.base_url}/playground#{urlencode(texts)}"


def answer(server: Server, path: str, **body: object) -> Any:
    response = httpx.post(f"{server.base_url}/v1/{path}", json=body, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def chat(server: Server, max_tokens: int, **strategy: object) -> Any:
    messages = [{"role": "user", "content": PROMPT}]
    return answer(server, "chat/completions", model=LLADA, messages=messages, max_tokens=max_tokens, diffusion=strategy)


def run(page: Page) -> None:
    page.get_by_role("button", name="Run", exact=True).click()


def expect_end(page: Page) -> None:
    expect(page.get_by_role("status")).to_have_text("Both answers are complete.", timeout=60_000)
    expect(page.get_by_role("button", name="Play")).to_be_visible(timeout=30_000)


def test_two_strategies_denoise_side_by_side(server: Server, browser: Browser) -> None:
    with opened(browser, address(server, model=LLADA)) as page:
        page.get_by_label("Prompt").fill(PROMPT)
        page.get_by_label("Max tokens").fill("48")
        page.get_by_role("combobox", name="Strategy B").select_option("decoder:threshold")
        lane = page.get_by_role("region", name="Strategy B and its run")
        lane.get_by_text("Parameters").click()
        lane.get_by_label("threshold", exact=True).fill("0.8")
        run(page)
        seen = set()
        while page.get_by_role("button", name="Pause").count():
            seen.add(page.locator("#A-canvas").inner_text())
        expect_end(page)
        assert len(seen) > 3, "the canvas changes while one looks at it"
        for name, strategy in {"A": {"preset": "quality"}, "B": {"decoder": "threshold", "threshold": 0.8}}.items():
            expected = chat(server, 48, **strategy)
            assert page.locator(f"#{name}-text").text_content() == expected["choices"][0]["message"]["content"]
            usage = expected["usage"]["diffusion"]
            expect(page.locator(f"#{name}-count-forwards")).to_have_text(str(usage["forwards"]))
            expect(page.locator(f"#{name}-count-step")).to_have_text(str(usage["denoising_steps"]))
            expect(page.locator(f"#{name}-count-tpf")).to_have_text(f"{usage['tokens_per_forward']:.2f}")
            expect(page.locator(f"#{name}-usage")).to_contain_text(f"{usage['positions_computed']} positions computed")


def test_the_steps_can_be_gone_through_again(server: Server, browser: Browser) -> None:
    with opened(browser, address(server, model=LLADA, prompt=PROMPT, maxTokens=32)) as page:
        page.get_by_label("Pace").select_option("0")
        run(page)
        expect_end(page)
        slider, masks = page.get_by_label("Denoising step"), page.locator("#A-canvas .mask")
        last = page.locator("#A-text").text_content()
        slider.focus()
        page.keyboard.press("Home")
        expect(masks).to_have_count(32)
        expect(page.locator("#A-count-forwards")).to_have_text("0")
        page.keyboard.press("ArrowRight")
        expect(masks).to_have_count(31)
        expect(page.locator("#A-canvas .fresh")).to_have_count(1)
        assert page.locator("#A-text").text_content() != last
        page.get_by_role("button", name="Play").click()
        expect(page.get_by_role("button", name="Play")).to_be_visible(timeout=30_000)
        assert page.locator("#A-text").text_content() == last


def test_what_a_decoder_takes_back_is_marked(server: Server, browser: Browser) -> None:
    saber = {"choice": "decoder:saber", "options": {"block_length": 32, "cache": "none"}}
    asked = "Write a Python function h(x) that reverses x."
    with opened(browser, address(server, model=LLADA, prompt=asked, strategies=[saber, saber])) as page:
        page.get_by_label("Pace").select_option("0")
        run(page)
        expect_end(page)
        page.get_by_label("Denoising step").focus()
        page.keyboard.press("Home")
        marked = 0
        for _ in range(int(page.get_by_label("Denoising step").get_attribute("max") or 0)):
            page.keyboard.press("ArrowRight")
            marked += page.locator("#A-canvas [data-mark=remasked].fresh").count()
        assert marked > 0


def test_a_selection_becomes_a_gap_and_is_filled(server: Server, browser: Browser) -> None:
    with opened(browser, address(server, model=LLADA, text=TEXT)) as page:
        page.get_by_label("Fill gaps").check()
        field = page.get_by_label("Text: select")
        for words in ("castle", "red box"):
            field.evaluate(
                "(field, words) => { const at = field.value.indexOf(words);"
                " field.focus(); field.setSelectionRange(at, at + words.length); }",
                words,
            )
            page.get_by_role("button", name="Make selection a gap").click()
        expect(page.get_by_role("list", name="Gaps").get_by_role("listitem")).to_have_count(2)
        page.get_by_label("Gap 2: tokens").fill("3")
        run(page)
        expect(page.get_by_role("status")).to_have_text("Both answers are complete.", timeout=60_000)
        before, between = "Ben was a clever owl. One day Ben went to the", " and found a"
        template = [before, {"gap": 2}, between, {"gap": 3}, "."]
        expected = answer(server, "infill", model=LLADA, template=template, diffusion={"preset": "fast"})
        assert page.locator("#B-text").text_content() == expected["text"]
        expect(page.locator("#B-canvas .cell.final")).to_have_count(5)


def test_a_block_causal_model_says_why_it_refuses_a_gap(server: Server, browser: Browser) -> None:
    gap = {"start": 4, "end": 8, "tokens": 2, "mayEndEarly": False}
    settings = {"model": SDAR, "task": "infill", "text": TEXT, "gaps": [gap]}
    with opened(browser, address(server, **settings), refused=True) as page:
        run(page)
        expect(page.locator("#lane-A").get_by_role("alert")).to_contain_text("this model is block-causal")
        expect(page.get_by_role("status")).to_have_text("A run has failed.")
