"""The HTTP application of the ingress: routes, their documentation, and what every request passes before them."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from fastapi.telemetry import TelemetryConfig
from pydantic import BaseModel

from deployments import http_errors
from deployments.api_keys import KeyRing
from deployments.config import AppConfig
from deployments.experiments.http import ExperimentsApi
from deployments.experiments.routes import add_experiment_routes
from deployments.http_api import HttpApi
from deployments.http_gate import HttpGate, caller_of
from deployments.metered import MeteredService
from deployments.openai_api import schemas
from deployments.openai_api.requests import ChatBody, CompletionBody, InfillBody, RequestBody
from deployments.playground.routes import add_playground_routes
from deployments.telemetry.http import HttpTracing
from deployments.telemetry.tracing import OFF as TRACING_OFF
from deployments.telemetry.tracing import Tracing

DESCRIPTION = """Diffusion language models behind OpenAI's API.

Every answer, errors included, carries `x-request-id`: the request's own (1 to 128 letters, digits and
`. _ : / + = @ -`) or a fresh one. With `stream: true` answers are server-sent events; an error in mid-stream is an
event with an `error` object and ends the stream without `[DONE]`."""

_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI's own spans would double those of ``deployments.telemetry``, and its logs repeat what clients have sent."""

STATUSES = {
    400: "The request is wrong; `param` names the field.",
    401: "No API key, or none that is known.",
    404: "No such model.",
    405: "No such method here.",
    408: "The request's time (`timeout_ms`) passed.",
    413: "The body is too large.",
    429: "The queue is full; `Retry-After` says when to come again.",
    499: "The request was cancelled.",
    500: "The server failed; its log names the request.",
    503: "The model's engine is not there at the moment.",
}


class DocumentedApi(FastAPI):
    """FastAPI, which documents 422 wherever there is something to validate; here that is 400."""

    def openapi(self) -> dict[str, Any]:
        schema = super().openapi()
        for methods in schema["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)
        return schema


def build_http_app(
    service: MeteredService, config: AppConfig, keys: KeyRing, tracing: Tracing = TRACING_OFF
) -> FastAPI:
    """The application over a service; knows neither Serve nor Ray."""
    app = DocumentedApi(title="Lacuna", description=DESCRIPTION, redoc_url=None, telemetry=_NO_TELEMETRY)
    http_errors.install(app)
    app.add_middleware(
        HttpGate,
        keys=keys,
        open_paths=config.open_paths,
        max_body_bytes=config.max_body_bytes,
        metrics=service.metrics,
        log_prompts=config.logging.log_prompts,
    )
    if tracing.is_on:
        app.add_middleware(HttpTracing, tracer=tracing.tracer())
    http = HttpApi(service, config)
    security = [] if keys.is_open else [Depends(HTTPBearer(auto_error=False, description="An API key."))]
    _add_generation(app, http, service, config, security)
    _add_information(app, http, security)
    experiments = ExperimentsApi(service, config)
    add_experiment_routes(app, lambda: experiments, security, _errors())
    if config.playground:
        add_playground_routes(app)
    return app


def _add_generation(
    app: FastAPI, http: HttpApi, service: MeteredService, config: AppConfig, security: list[Any]
) -> None:
    def note_model(body: RequestBody, request: Request) -> None:
        """For the meter: only the names of served models become labels."""
        model = body.model or config.default_model_id
        request.state.model = model if model in service.model_ids else ""

    @app.post("/v1/completions", dependencies=security, **_documented(schemas.CompletionAnswer, streamed=True))
    async def completions(body: CompletionBody, request: Request) -> Response:
        """Complete a prompt; with `suffix`, fill the text between the two."""
        note_model(body, request)
        return await http.completions(body, caller_of(request))

    @app.post("/v1/chat/completions", dependencies=security, **_documented(schemas.ChatAnswer, streamed=True))
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        """Answer a conversation, formatted with the model's own chat template."""
        note_model(body, request)
        return await http.chat(body, caller_of(request))

    @app.post("/v1/infill", dependencies=security, **_documented(schemas.InfillAnswer))
    async def infill(body: InfillBody, request: Request) -> Response:
        """Fill any number of gaps between given texts, all at once and seeing both sides."""
        note_model(body, request)
        return await http.infill(body, caller_of(request))


def _add_information(app: FastAPI, http: HttpApi, security: list[Any]) -> None:
    @app.get("/v1/models", dependencies=security, **_documented(schemas.ModelList))
    async def models(request: Request) -> Response:
        """The served models."""
        return await http.models(caller_of(request))

    @app.get("/v1/models/{model:path}", dependencies=security, **_documented(schemas.ModelAnswer))
    async def model(model: str, request: Request) -> Response:
        """One served model."""
        return await http.model(model, caller_of(request))

    @app.get("/v1/strategies", dependencies=security, **_documented(schemas.StrategyList))
    async def strategies(request: Request, model: str | None = None) -> Response:
        """Decoders and cache policies of a model, with the JSON schema of their knobs."""
        return await http.strategies(model, caller_of(request))

    @app.get("/metrics", dependencies=security, response_class=Response, responses=_metrics_answer())
    async def metrics(request: Request) -> Response:
        """Prometheus metrics of the whole application: every ingress, the router and all engines."""
        return await http.metrics(request.headers.get("accept", ""))

    @app.get("/health", responses={200: {"model": schemas.HealthAnswer}, 503: {"model": schemas.HealthAnswer}})
    @app.get("/healthz", include_in_schema=False)
    async def health() -> Response:
        """200 when every model's engine makes progress, else 503."""
        return await http.health()


def _documented(answer: type[BaseModel], *, streamed: bool = False) -> dict[str, Any]:
    """Arguments of a route: what its answers look like. FastAPI checks nothing, since routes return responses."""
    responses = _errors()
    responses[200] = {"model": answer}
    if streamed:
        responses[200] |= {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
    return {"responses": responses}


def _errors() -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schemas.ErrorAnswer, "description": text} for status, text in STATUSES.items()}


def _metrics_answer() -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, 401: {"model": schemas.ErrorAnswer}}
