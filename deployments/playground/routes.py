"""Routes of the playground, for the HTTP application of the ingress.

The page is public, as its settings say (``open_paths``); what it asks of the API needs a key like any other request.
"""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse, Response
from starlette.exceptions import HTTPException

from deployments.playground.assets import HEADERS, PAGE, Asset, load_assets


def add_playground_routes(app: FastAPI) -> None:
    """``/playground`` is the page, ``/playground/NAME`` its parts. They find each other by relative addresses, so the
    application may live under any prefix."""
    assets = load_assets()

    @app.get("/playground", include_in_schema=False)
    async def page(request: Request) -> Response:
        return _answer(assets[PAGE], request)

    @app.get("/playground/", include_in_schema=False)
    async def page_with_slash() -> Response:
        return RedirectResponse("../playground")

    @app.get("/playground/{name}", include_in_schema=False)
    async def part(name: str, request: Request) -> Response:
        if name not in assets or name == PAGE:
            raise HTTPException(404, "the playground has no such file")
        return _answer(assets[name], request)


def _answer(asset: Asset, request: Request) -> Response:
    headers = {**HEADERS, "ETag": asset.etag}
    if request.headers.get("if-none-match") == asset.etag:
        return Response(status_code=304, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)
