"""``lacuna generate``: one completion in this process, streamed to the terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.cli import options
from engine.errors import InvalidRequestError

if TYPE_CHECKING:
    from engine.llm_engine import LLMEngine
    from engine.outputs import RequestOutput
    from engine.sequence import GenerationRequest


def generate(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="The prompt; - reads it from the standard input.")],
    model: options.Model = options.DEFAULT_MODEL,
    max_tokens: Annotated[int, typer.Option(help="Most tokens to generate.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 takes the most probable token.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="Keep the k most probable tokens; 0 keeps all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Keep the smallest set of tokens with this mass.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Same seed, same tokens.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text; may be repeated.")] = None,
    decoder: options.Decoder = "",
    cache: options.Cache = "",
    block_length: options.BlockLength = 0,
    raw: Annotated[bool, typer.Option("--raw", help="Complete the text as it is, without the chat template.")] = False,
    system: Annotated[str, typer.Option(help="System message of the chat template.", show_default="none")] = "",
    stream: Annotated[bool, typer.Option(help="Print blocks as they are decided.")] = True,
    show_canvas: Annotated[bool, typer.Option("--show-canvas", help="Draw every denoising step.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the text.")] = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    quantization: options.Quantization = "none",
    threads: options.Threads = 0,
) -> None:
    """Complete a prompt without a server.

    Every knob of the decoder and the cache policy is an option too, e.g. --threshold 0.9 (see `lacuna strategies`).
    """
    from engine.sampling_params import SamplingParams
    from engine.sequence import GenerationRequest

    strategy_options = options.strategy_options(decoder, cache, block_length, context.args)
    text = sys.stdin.read() if prompt == "-" else prompt
    if not text:
        raise InvalidRequestError("the prompt is empty; give at least one token", "prompt")
    sampling = options.checked(
        SamplingParams,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        stop=tuple(stop or ()),
    )
    engine = options.load_engine(model, options.engine_config(device, dtype, quantization, threads, slots=2))
    request = GenerationRequest(
        request_id="cli",
        prompt=_prompt(engine, text, system, raw=raw),
        sampling=sampling,
        strategy=engine.strategy(strategy_options),
        stream="step" if show_canvas else "block" if stream and not as_json else "final",
    )
    started = time.monotonic()
    outputs = _outputs(engine, request)
    if show_canvas:
        from deployments.cli.canvas import draw

        outputs = draw(engine.tokenizer, outputs)
    _print(outputs, started, as_json=as_json, echo=not show_canvas)


def _prompt(engine: LLMEngine, text: str, system: str, *, raw: bool) -> str | list[int]:
    if raw or not engine.tokenizer.has_chat_template:
        if system:
            raise InvalidRequestError("--system needs a chat template, and is not for --raw", "system")
        return text
    messages = [{"role": "system", "content": system}] if system else []
    return engine.tokenizer.apply_chat_template([*messages, {"role": "user", "content": text}])


def _outputs(engine: LLMEngine, request: GenerationRequest) -> Iterator[RequestOutput]:
    engine.add_request(request)
    while engine.has_unfinished_requests():
        yield from engine.step()


def _print(outputs: Iterator[RequestOutput], started: float, *, as_json: bool, echo: bool) -> None:
    texts: list[str] = []
    last: RequestOutput | None = None
    for last in outputs:
        texts.append(last.text)
        if echo and not as_json:
            print(last.text, end="", flush=True)
    assert last is not None
    seconds = time.monotonic() - started
    usage = last.usage
    if as_json:
        facts = {"finish_reason": last.finish_reason, "seconds": seconds, **asdict(usage)}
        print(json.dumps({"text": "".join(texts), **facts}))
        return
    print("" if echo else "".join(texts))
    print(
        f"[{usage.completion_tokens} tokens, {usage.denoising_steps} denoising steps, {usage.forwards} forwards, "
        f"{usage.tokens_per_forward:.2f} tokens per forward, {usage.completion_tokens / seconds:.0f} tokens/s, "
        f"ended by {last.finish_reason}]",
        file=sys.stderr,
    )
