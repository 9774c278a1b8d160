"""Drawing of a canvas at each denoising step: gaps, fresh tokens, tokens that stay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

if TYPE_CHECKING:
    from engine.outputs import CanvasStep, RequestOutput
    from engine.tokenizer import Tokenizer

GAP = "░"


def draw(tokenizer: Tokenizer, outputs: Iterator[RequestOutput]) -> Iterator[RequestOutput]:
    """Pass the outputs on and draw each one's canvas on stderr: in place on a terminal, else a line per step."""
    console = Console(stderr=True, highlight=False)
    live = Live(console=console, refresh_per_second=20) if console.is_terminal else None
    with live or nullcontext():
        for output in outputs:
            if output.canvas is not None:
                step = max(output.canvas.revealed_at, default=0)
                text = render(tokenizer, output.canvas, step)
                if live is None:
                    console.print(Text(f"{step:4d} ") + text, soft_wrap=True)
                else:
                    live.update(Panel(text, title=f"denoising step {step}", title_align="left"))
            yield output


def render(tokenizer: Tokenizer, canvas: CanvasStep, step: int) -> Text:
    """One line or paragraph; line breaks become visible signs, so that the canvas keeps its shape."""
    text = Text()
    for token_id, revealed in zip(canvas.token_ids, canvas.revealed_at, strict=True):
        if revealed == 0:
            text.append(GAP, style="dim")
        else:
            piece = tokenizer.token_text(token_id).replace("\n", "⏎")
            text.append(piece, style="bold green" if revealed == step else "")
    return text
