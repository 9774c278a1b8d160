"""The picture in README.md: `python -m tests.playground_screenshot` beside a running server."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import Page, expect

from tests.helpers.browser import launched, opened

PICTURE = Path(__file__).parents[1] / "deployments" / "playground" / "screenshot.png"
SIZE = {"width": 1240, "height": 860}
STEP = 13
SETTINGS = {
    "model": "lacuna-tiny-llada",
    "prompt": "Frank has 58 flowers, buys 7 more and loses 9. How many flowers does Frank have now?",
    "maxTokens": "32",
    "strategies": json.dumps(
        [
            {"choice": "preset:quality@1", "options": {"block_length": 32}},
            {"choice": "preset:fast@1", "options": {"block_length": 32, "threshold": 0.5}},
        ]
    ),
}


def main() -> None:
    """Run two strategies to their end and go back to a step on the way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="a server with the embedded models")
    parser.add_argument("--out", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    address = f"{arguments.url}/playground#{urlencode(SETTINGS)}"
    with launched() as browser, opened(browser, address, viewport=SIZE, reduced_motion="reduce") as page:
        _show_step(page)
        page.screenshot(path=arguments.out)


def _show_step(page: Page) -> None:
    page.get_by_label("Pace").select_option("0")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Both answers are complete.", timeout=60_000)
    page.get_by_label("Denoising step").press("Home")
    for _ in range(STEP):
        page.get_by_label("Denoising step").press("ArrowRight")
    page.get_by_role("slider").blur()


if __name__ == "__main__":
    main()
