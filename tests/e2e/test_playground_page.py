"""The playground in a real browser over stand-ins: keys, refusals, broken streams, links, and its pure modules."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from deployments.api_keys import ApiKey, KeyRing, digest
from deployments.config import AppConfig
from deployments.events import EventDiffer
from deployments.http_app import build_http_app
from deployments.openai_api.responses import event_object
from engine.errors import OverloadedError
from engine.outputs import CanvasStep, RequestOutput, Usage
from tests.deployments.fakes import FakeEngine, FakeRouter, metered
from tests.helpers.browser import launched, opened
from tests.helpers.http_server import listening

CONFIG = AppConfig.parse({"models": "fake=/x"})
KEYS = KeyRing([ApiKey(name="alice", sha256=digest("secret"))])
MASK = 99


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as one:
        yield one


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server that answers at once."""
    with listening(app(FakeEngine())) as base_url:
        yield f"{base_url}/playground"


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with opened(browser, address) as one:
        yield one


@pytest.fixture(scope="module")
def modules(browser: Browser, address: str) -> Iterator[Page]:
    """A page for what is asked of its modules only."""
    with opened(browser, address) as one:
        yield one


def app(engine: FakeEngine, router: FakeRouter | None = None, keys: KeyRing | None = None) -> Any:
    return build_http_app(metered(engine, router), CONFIG, keys or KeyRing([]))


def run(page: Page) -> None:
    page.get_by_role("button", name="Run", exact=True).click()


def alert(page: Page) -> Any:
    return page.locator("#lane-A").get_by_role("alert")


def test_a_server_with_keys_asks_for_one_and_only_the_tab_keeps_it(browser: Browser) -> None:
    server = listening(app(FakeEngine(), keys=KEYS))
    with server as base_url, opened(browser, f"{base_url}/playground", refused=True) as page:
        dialog, key = page.get_by_role("dialog", name="API key"), page.get_by_label("Key", exact=True)
        expect(dialog).to_contain_text("An API key is needed")
        expect(key).to_be_focused()
        key.fill("wrong")
        key.press("Enter")
        expect(dialog).to_contain_text("not known to this server")
        key.fill("secret")
        key.press("Enter")
        expect(dialog).to_be_hidden()
        run(page)
        expect(page.locator("#A-text")).to_have_text("Hello world")
        page.get_by_role("button", name="Copy link").click()
        assert "secret" not in page.url
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        page.reload()
        expect(page.get_by_label("Model", exact=True)).to_have_value("fake")
        page.get_by_role("button", name="API key: set").click()
        page.get_by_role("button", name="Forget key").click()
        expect(dialog).to_contain_text("An API key is needed")


def test_a_full_queue_says_when_to_come_again(browser: Browser) -> None:
    full = OverloadedError("The queue is full.", retry_after_s=7)
    server = listening(app(FakeEngine(), FakeRouter(full)))
    with server as base_url, opened(browser, f"{base_url}/playground", refused=True) as page:
        run(page)
        expect(alert(page)).to_contain_text("The queue is full. Try again in 7 s.")
        expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled()


def test_stop_frees_the_place_on_the_server(browser: Browser) -> None:
    engine = FakeEngine(["a"] * 200, delay_s=0.05)
    with listening(app(engine)) as base_url, opened(browser, f"{base_url}/playground") as page:
        run(page)
        expect(page.locator("#A-canvas .final").nth(2)).to_be_visible()
        assert len(engine.running) == 2
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("#lane-A").get_by_text("stopped")).to_be_visible()
        deadline = time.monotonic() + 5
        while engine.running and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not engine.running
        expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled()
        page.get_by_label("Denoising step").press("Home")
        expect(page.locator("#A-canvas .mask")).to_have_count(200)


def test_an_error_in_the_middle_is_shown_and_the_steps_stay(browser: Browser) -> None:
    engine = FakeEngine(["a", "b", "c"], fail_after=2, error=KeyError("bug"))
    with listening(app(engine)) as base_url, opened(browser, f"{base_url}/playground") as page:
        run(page)
        expect(alert(page)).to_contain_text("request ")
        expect(page.locator("#A-text")).to_have_text("ab")


def test_a_stream_that_breaks_off_is_an_error(page: Page) -> None:
    def broken(route: Route) -> None:
        route.fulfill(content_type="text/event-stream", body=': wait\n\ndata: {"choices": []}\n\n')

    page.route("**/v1/chat/completions", broken)
    run(page)
    expect(alert(page)).to_contain_text("The stream ended before the answer was complete.")


def test_a_server_that_is_gone_is_an_error(browser: Browser, address: str) -> None:
    with opened(browser, address, refused=True) as page:
        page.route("**/v1/chat/completions", lambda route: route.abort("connectionrefused"))
        run(page)
        expect(alert(page)).to_contain_text("The server cannot be reached.")


def test_a_wrong_number_never_reaches_the_server(page: Page) -> None:
    page.get_by_label("Max tokens").fill("0")
    run(page)
    expect(page.get_by_role("status")).to_be_empty()
    expect(page.get_by_label("Max tokens")).to_be_focused()


def test_the_keyboard_is_enough(page: Page) -> None:
    page.get_by_label("Prompt").focus()
    page.keyboard.press("Control+Enter")
    expect(page.locator("#B-text")).to_have_text("Hello world")
    page.locator("#B-canvas").focus()
    page.keyboard.press("End")
    expect(page.locator("#lane-B .details")).to_contain_text('Position 1: "1" · final · probability 36.8 %')
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#lane-B .details")).to_contain_text("Position 0")


def test_a_link_brings_everything_back(page: Page, address: str) -> None:
    page.get_by_label("Completion").check()
    page.get_by_label("Prompt").fill("2 & 3 = # ü")
    page.get_by_label("Seed").fill("7")
    page.get_by_role("combobox", name="Strategy B").select_option("decoder:threshold")
    page.get_by_role("button", name="Copy link").click()
    link = page.url
    assert link.startswith(f"{address}#")
    page.goto("about:blank")
    page.goto(link)
    expect(page.get_by_role("combobox", name="Strategy B")).to_have_value("decoder:threshold")
    expect(page.get_by_label("Prompt")).to_have_value("2 & 3 = # ü")
    expect(page.get_by_label("Seed")).to_have_value("7")
    expect(page.get_by_label("Completion")).to_be_checked()


def test_every_control_has_a_name(page: Page) -> None:
    expect(page.get_by_role("combobox", name="Strategy A")).to_be_visible()
    nameless = page.evaluate(
        "[...document.querySelectorAll('input, select, textarea, button')].filter((one) =>"
        " !one.labels?.length && !one.ariaLabel && !one.textContent.trim()).map((one) => one.outerHTML)"
    )
    assert nameless == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))


def test_it_fits_a_narrow_screen(browser: Browser, address: str) -> None:
    with opened(browser, address, viewport={"width": 360, "height": 740}) as page:
        run(page)
        expect(page.locator("#B-text")).to_have_text("Hello world")
        first, second = (page.locator(f"#lane-{name}").bounding_box() for name in "AB")
        assert first is not None
        assert second is not None
        assert second["y"] >= first["y"] + first["height"]
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


CONTRAST = """() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const luminance = (colour) => {
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [red, green, blue] = [...context.getImageData(0, 0, 1, 1).data].map((byte) =>
      byte <= 10 ? byte / 255 / 12.92 : ((byte / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  return [...document.querySelectorAll("#legend [data-level], h1, .tagline, label, .primary")].map((one) => {
    let under = one;
    while (getComputedStyle(under).backgroundColor === "rgba(0, 0, 0, 0)") under = under.parentElement;
    const [low, high] = [getComputedStyle(one).color, getComputedStyle(under).backgroundColor]
      .map(luminance).sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_in_both_themes(browser: Browser, address: str, scheme: str) -> None:
    with opened(browser, address, color_scheme=scheme, reduced_motion="reduce") as page:
        expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled()
        contrasts = page.evaluate(CONTRAST)
    assert len(contrasts) > 15
    assert min(contrasts) >= 4.5


def canvases(rng: random.Random) -> list[list[int]]:
    """Canvases that fill, change, are masked again and grow."""
    length = 4
    found = []
    for _ in range(8):
        length += rng.choice((0, 0, 3))
        found.append([rng.choice((MASK, 1, 2, 3)) for _ in range(length)])
    return found


def step_of(step: int, cells: list[int]) -> RequestOutput:
    probabilities = tuple(math.nan if cell == MASK else cell / 4 for cell in cells)
    canvas = CanvasStep(token_ids=tuple(cells), revealed_at=(step,) * len(cells), probabilities=probabilities)
    return RequestOutput(request_id="r", usage=Usage(denoising_steps=step), canvas=canvas)


def test_the_reducer_holds_the_canvas_that_the_server_has(modules: Page) -> None:
    held = """async (steps) => {
      const { EMPTY, applyEvents } = await import("./playground/canvas.js");
      let canvas = EMPTY;
      return steps.map((events) => {
        const before = JSON.stringify(canvas);
        const after = applyEvents(canvas, events);
        if (JSON.stringify(canvas) !== before) throw new Error("it changed its argument");
        canvas = after;
        return canvas.cells.map((cell) => [cell.tokenId, cell.probability, cell.state]);
      });
    }"""
    rng = random.Random(5)
    for _ in range(20):
        shown = canvases(rng)
        differ = EventDiffer(str, MASK, limit=10)
        steps = [
            [event_object(event) for event in differ.events(step_of(step, cells))]
            for step, cells in enumerate(shown, 1)
        ]
        for cells, canvas in zip(shown, modules.evaluate(held, steps), strict=True):
            for cell, (token, probability, state) in zip(cells[:10], canvas, strict=True):
                assert (token, state) == ((None, "mask") if cell == MASK else (cell, "provisional"))
                assert probability is None if cell == MASK else probability is not None


GAPS = [
    {"start": 2, "end": 4, "tokens": 1, "mayEndEarly": False},
    {"start": 6, "end": 6, "tokens": 3, "mayEndEarly": True},
]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("abcdefghij", [(2, 4), (6, 6)]),
        ("XXabcdefghij", [(4, 6), (8, 8)]),
        ("abcXdefghij", [(2, 5), (7, 7)]),
        ("abcdXefghij", [(2, 4), (7, 7)]),
        ("adefghij", [(1, 2), (4, 4)]),
        ("abefghij", [(4, 4)]),
        ("abcdefghijXX", [(2, 4), (6, 6)]),
        ("", [(0, 0)]),
    ],
)
def test_gaps_keep_their_text_while_it_is_edited(modules: Page, after: str, expected: list[tuple[int, int]]) -> None:
    moved = modules.evaluate(
        "async ([gaps, before, after]) => (await import('./playground/gaps.js')).movedGaps(gaps, before, after)",
        [GAPS, "abcdefghij", after],
    )
    assert [(gap["start"], gap["end"]) for gap in moved] == expected


def test_templates_gaps_and_words(modules: Page) -> None:
    found = modules.evaluate(
        """async (gaps) => {
          const { addGap, template, wordRange } = await import("./playground/gaps.js");
          return [
            template("abcdefghij", gaps),
            template("ab", [{ start: 0, end: 2, tokens: 2, mayEndEarly: false }]),
            addGap(gaps, 3, 6).map(({ start, end, tokens, mayEndEarly }) => [start, end, tokens, mayEndEarly]),
            wordRange("a red box", 2, 6),
            wordRange("a red box", 1, 1),
          ];
        }""",
        GAPS,
    )
    assert found == [
        ["ab", {"gap": 1}, "ef", {"gap": {"max_tokens": 3}}, "ghij"],
        ["", {"gap": 2}],
        [[2, 6, 4, True]],
        [1, 5],
        [1, 1],
    ]


def test_links_that_make_no_sense_are_defaults(modules: Page) -> None:
    found = modules.evaluate(
        """async () => {
          const { DEFAULTS, decode, encode } = await import("./playground/link.js");
          const odd = decode("#task=x&maxTokens=-1&seed=1.5&gaps=[{}]&strategies=[1,{\\"choice\\":2}]&temperature=hot");
          const good = { ...DEFAULTS, model: "m", seed: 3, gaps: [{ start: 1, end: 2, tokens: 1, mayEndEarly: true }],
            strategies: [{ choice: "decoder:threshold", options: { threshold: 0.5 } }, null] };
          return [JSON.stringify(odd) === JSON.stringify(DEFAULTS), encode(DEFAULTS),
            JSON.stringify(decode(encode(good))) === JSON.stringify(good)];
        }"""
    )
    assert found == [True, "", True]


def test_events_are_read_wherever_the_network_cuts_them(modules: Page) -> None:
    text = ': keep-alive\n\ndata: {"a": "ü"}\n\ndata: two\r\n\r\ndata: cut off'
    read = """async ([bytes, size]) => {
      const { eventData } = await import("./playground/sse.js");
      const pieces = [];
      for (let at = 0; at < bytes.length; at += size) pieces.push(new Uint8Array(bytes.slice(at, at + size)));
      const body = new ReadableStream({ start(all) { pieces.forEach((one) => all.enqueue(one)); all.close(); } });
      const found = [];
      for await (const data of eventData(body)) found.push(data);
      return found;
    }"""
    for size in (1, 7, 1000):
        assert modules.evaluate(read, [list(text.encode()), size]) == ['{"a": "ü"}', "two"]


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ({"type": "number", "least": 0, "most": 1}, "0.25", 0.25),
        ({"type": "number", "least": 0, "most": 1}, "2", "a number from 0 to 1 is allowed"),
        ({"type": "number", "least": 0, "isAboveLeast": True}, "0", "a number above 0 is allowed"),
        ({"type": "integer", "least": 1}, "1.5", "only whole numbers are allowed"),
        ({"type": "integer", "least": 1}, "0", "a whole number from 1 up is allowed"),
        ({"type": "list"}, "3, 4 5", [3, 4, 5]),
        ({"type": "boolean"}, "false", False),
        ({"type": "number"}, " ", None),
    ],
)
def test_knobs_take_what_their_schema_allows(modules: Page, field: dict[str, Any], text: str, expected: object) -> None:
    parse = """async ([field, text]) => {
      const { parse } = await import("./playground/strategy.js");
      try { return parse({ least: null, most: null, isAboveLeast: false, ...field }, text) ?? null; }
      catch (error) { return error.message; }
    }"""
    assert modules.evaluate(parse, [field, text]) == expected
