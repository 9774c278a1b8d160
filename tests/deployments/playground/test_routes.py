"""deployments/playground/routes.py: the page is public and strict, what it asks for is not."""

from __future__ import annotations

import re

import pytest

from deployments.api_keys import ApiKey, KeyRing, digest
from deployments.config import AppConfig
from deployments.playground.assets import load_assets
from tests.deployments.fakes import FakeEngine, http_client

CONFIG = AppConfig.parse({"models": "fake=/x"})
KEYS = KeyRing([ApiKey(name="alice", sha256=digest("secret"))])
ADDRESS = re.compile(r"(?:https?:)?//[\w.-]+\.\w+")
SVG_NAMESPACE = "http://www.w3.org"


async def test_the_page_and_its_parts_are_public() -> None:
    async with http_client(CONFIG, FakeEngine(), keys=KEYS) as client:
        page = await client.get("/playground")
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        parts = set(re.findall(r'(?:src|href)="(playground/[^"]+)"', page.text))
        assert parts == {"playground/icon.svg", "playground/style.css", "playground/main.js"}
        for part in parts:
            assert (await client.get(f"/{part}")).status_code == 200
        assert (await client.get("/v1/models")).status_code == 401


async def test_the_policy_allows_this_server_only() -> None:
    async with http_client(CONFIG, FakeEngine()) as client:
        for path in ("/playground", "/playground/main.js", "/playground/style.css"):
            headers = (await client.get(path)).headers
            policy = dict(one.split(" ", 1) for one in headers["content-security-policy"].split("; "))
            assert policy.pop("require-trusted-types-for") == "'script'"
            assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
            assert set(policy.values()) == {"'none'", "'self'"}
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path", ["/playground/none.js", "/playground/index.html", "/playground/%2e%2e/routes.py", "/playground/a/b"]
)
async def test_there_is_nothing_else(path: str) -> None:
    async with http_client(CONFIG, FakeEngine(), keys=KEYS) as client:
        assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize("path", ["/playgrounds", "/playground.js", "/v1/playground/main.js"])
async def test_only_what_lies_below_an_open_path_is_open(path: str) -> None:
    async with http_client(CONFIG, FakeEngine(), keys=KEYS) as client:
        assert (await client.get(path)).status_code == 401


async def test_a_slash_too_many_leads_to_the_page() -> None:
    async with http_client(CONFIG, FakeEngine(), keys=KEYS) as client:
        response = await client.get("/playground/", follow_redirects=True)
    assert (response.status_code, response.url.path) == (200, "/playground")


async def test_an_unchanged_part_is_not_sent_again() -> None:
    async with http_client(CONFIG, FakeEngine()) as client:
        first = await client.get("/playground/main.js")
        again = await client.get("/playground/main.js", headers={"if-none-match": first.headers["etag"]})
    assert first.headers["cache-control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")


async def test_it_can_be_switched_off_and_closed() -> None:
    off = CONFIG.model_copy(update={"playground": False})
    async with http_client(off, FakeEngine()) as client:
        assert (await client.get("/playground")).status_code == 404
        assert (await client.get("/playground/main.js")).status_code == 404
    closed = CONFIG.model_copy(update={"open_paths": ["/health"]})
    async with http_client(closed, FakeEngine(), keys=KEYS) as client:
        assert (await client.get("/playground")).status_code == 401


def test_the_files_ask_for_each_other_only_and_nothing_is_inline() -> None:
    assets = {name: asset.content.decode() for name, asset in load_assets().items()}
    for name, text in assets.items():
        assert [found for found in ADDRESS.findall(text) if found != SVG_NAMESPACE] == [], name
        for imported in re.findall(r'from "([^"]+)"', text):
            assert imported.removeprefix("./") in assets, name
    page = assets["index.html"]
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
    assert not any("innerHTML" in text or "eval(" in text for text in assets.values())
