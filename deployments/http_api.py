"""The HTTP answers of the ingress, without Serve."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import asdict
from importlib.metadata import version

from fastapi.responses import JSONResponse, Response

from deployments.callers import Caller
from deployments.config import AppConfig, ModelConfig
from deployments.http_errors import error_response
from deployments.messages import Job
from deployments.metered import MeteredService
from deployments.openai_api.convert import chat_job, completion_job, infill_job
from deployments.openai_api.requests import ChatBody, CompletionBody, GenerationBody, InfillBody
from deployments.openai_api.responses import AnswerFormat, ChatFormat, CompletionFormat, InfillFormat, model_object
from deployments.openai_api.sse import ClosingStreamingResponse, events
from deployments.service import JobIncrement
from deployments.streams import with_pauses
from engine.errors import LacunaError

T = JobIncrement | None


class HttpApi:
    """Turns the service's results and errors into responses."""

    def __init__(self, service: MeteredService, config: AppConfig) -> None:
        self._service = service
        self._config = config
        self._created = int(time.time())
        self._fingerprints = fingerprints(config.models)

    async def completions(self, body: CompletionBody, caller: Caller) -> Response:
        """POST /v1/completions."""
        try:
            job = completion_job(body, self._config, caller)
        except LacunaError as error:
            return error_response(error, caller.request_id)
        answer = CompletionFormat(job=job, fingerprint=self._fingerprint(job), num_top=body.logprobs)
        return await self._answer(body, job, answer, caller)

    async def chat(self, body: ChatBody, caller: Caller) -> Response:
        """POST /v1/chat/completions."""
        try:
            job = chat_job(body, self._config, caller)
        except LacunaError as error:
            return error_response(error, caller.request_id)
        num_top = (body.top_logprobs or 0) if body.logprobs else None
        answer = ChatFormat(job=job, fingerprint=self._fingerprint(job), num_top=num_top)
        return await self._answer(body, job, answer, caller)

    async def infill(self, body: InfillBody, caller: Caller) -> Response:
        """POST /v1/infill."""
        try:
            job = infill_job(body, self._config, caller)
            experiment = self._service.assignment(job)
            (completion,) = await self._service.complete(job)
        except Exception as error:  # noqa: BLE001 - becomes an error object; unknown ones are logged there
            return error_response(error, caller.request_id)
        answer = InfillFormat(
            job=job,
            template=[part if isinstance(part, str) else None for part in body.template],
            fingerprint=self._fingerprint(job),
            with_logprobs=bool(body.logprobs),
            experiment=experiment,
        )
        return JSONResponse(answer.whole(completion))

    async def metrics(self, accept: str) -> Response:
        """GET /metrics."""
        page, content_type = await self._service.collector.page(accept)
        return Response(page, headers={"content-type": content_type})

    async def models(self, caller: Caller) -> Response:
        """GET /v1/models."""
        try:
            cards = await asyncio.gather(*(self._service.card(model) for model in self._service.model_ids))
        except Exception as error:  # noqa: BLE001
            return error_response(error, caller.request_id)
        default = self._config.default_model_id
        objects = [model_object(card, self._created, is_default=card.id == default) for card in cards]
        return JSONResponse({"object": "list", "data": objects})

    async def model(self, model: str, caller: Caller) -> Response:
        """GET /v1/models/{model}."""
        try:
            card = await self._service.card(model)
        except Exception as error:  # noqa: BLE001
            return error_response(error, caller.request_id)
        return JSONResponse(model_object(card, self._created, is_default=model == self._config.default_model_id))

    async def strategies(self, model: str | None, caller: Caller) -> Response:
        """GET /v1/strategies?model=..."""
        name = model or self._config.default_model_id
        try:
            parts = await self._service.strategies(name)
        except Exception as error:  # noqa: BLE001
            return error_response(error, caller.request_id)
        return JSONResponse({"object": "list", "model": name, "data": [asdict(part) for part in parts]})

    async def health(self) -> Response:
        """GET /health: 200 when every model's engine makes progress, else 503 with the model's state."""
        models = self._service.model_ids
        ailments = await asyncio.gather(*(self._service.ailment(model) for model in models))
        reasons = {model: ailment for model, ailment in zip(models, ailments, strict=True) if ailment}
        states = {model: "unavailable" if model in reasons else "ok" for model in models}
        if not reasons:
            return JSONResponse({"status": "ok", "models": states})
        return JSONResponse({"status": "unavailable", "models": states, "reasons": reasons}, 503)

    async def _answer(self, body: GenerationBody, job: Job, answer: AnswerFormat, caller: Caller) -> Response:
        """A whole or a streamed answer."""
        try:
            answer.experiment = self._service.assignment(job)
            if body.stream:
                include_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
                return await self._streamed(job, answer, include_usage=include_usage)
            return JSONResponse(answer.whole(await self._service.complete(job)), headers=_headers(answer))
        except Exception as error:  # noqa: BLE001 - becomes an error object; unknown ones are logged there
            return error_response(error, caller.request_id)

    async def _streamed(self, job: Job, answer: AnswerFormat, *, include_usage: bool) -> Response:
        """Waits a moment for the first increment, so that an error still gets its own status code."""
        stream = with_pauses(self._service.stream(job), self._config.keepalive_s)
        try:
            first = await anext(stream, None)
        except BaseException:
            await stream.aclose()
            raise
        body = events(_chain(first, stream), answer, include_usage=include_usage)
        return ClosingStreamingResponse(body, _headers(answer))

    def _fingerprint(self, job: Job) -> str:
        return self._fingerprints.get(job.model, "")


def _headers(answer: AnswerFormat) -> dict[str, str]:
    """The request's arm: a stream says it nowhere else unless it includes the usage."""
    if answer.experiment is None:
        return {}
    return {"x-experiment-arm": f"{answer.experiment.experiment}/{answer.experiment.arm}"}


def fingerprints(models: list[ModelConfig]) -> Mapping[str, str]:
    """``system_fingerprint`` of each model: it changes with the version of this server and the model's settings."""
    release = version("lacuna-serve")
    return {
        model.id: "fp_" + hashlib.sha256(f"{release} {model.model_dump_json()}".encode()).hexdigest()[:12]
        for model in models
    }


async def _chain(first: T, rest: AsyncGenerator[T]) -> AsyncGenerator[T]:
    try:
        yield first
        async for item in rest:
            yield item
    finally:
        await rest.aclose()
