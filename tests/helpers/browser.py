"""A headless Chromium, and pages that may neither complain nor ask another server."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

COMMANDS = ("chromium", "chromium-browser", "google-chrome")
FAILED_REQUEST = "Failed to load resource"
"""What the browser itself says of every answer above 399."""


def executable() -> str:
    """Where a Chromium is; skips the test where there is none."""
    for command in COMMANDS:
        if path := shutil.which(command):
            return path
    pytest.skip(f"no browser: none of {', '.join(COMMANDS)} is installed; try `apt-get install chromium`")


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """A browser until the block ends. Root has no sandbox to put it in."""
    path = executable()
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser: Browser, address: str, *, refused: bool = False, **context: Any) -> Iterator[Page]:
    """A page of its own context; afterwards it must have logged no error and asked no other origin. ``refused``: the
    test is about answers above 399."""
    page = browser.new_context(**context).new_page()
    origin = urlsplit(address)[:2]
    complaints: list[str] = []
    strangers: list[str] = []
    page.on("request", lambda request: None if urlsplit(request.url)[:2] == origin else strangers.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.goto(address)
    yield page
    page.context.close()
    assert strangers == []
    assert [text for text in complaints if not (refused and text.startswith(FAILED_REQUEST))] == []
