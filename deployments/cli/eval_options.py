"""Options of ``lacuna eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Strategies = Annotated[
    list[str] | None,
    typer.Option(
        "--strategy",
        "-s",
        help="Strategy to compare; may be repeated. A decoder, a preset, `threshold,threshold=0.8,cache=dual` or "
        "JSON. The first is the one that the others are compared with.",
        show_default="the model's own",
    ),
]
Kinds = Annotated[list[str] | None, typer.Option(help="Kind of question; may be repeated.", show_default="all")]
Count = Annotated[int, typer.Option("--count", "-n", help="Held-out prompts per kind.", min=1)]
Data = Annotated[
    Path | None,
    typer.Option(
        help='File instead of the built-in tasks: JSON lines {"prompt", "answer", "kind"}, or GSM8K, HumanEval or MBPP '
        "as published, also packed (.gz).",
        show_default="none",
    ),
]
FormatName = Annotated[
    str, typer.Option("--format", help="plain, gsm8k, humaneval or mbpp; auto goes by the fields of the rows.")
]
ModeName = Annotated[
    str, typer.Option(help="chat, or completion for base models; auto: chat where the model has a template.")
]
Shots = Annotated[
    int | None,
    typer.Option(
        help="Solved examples before each question.",
        show_default="chat: 0; completion: gsm8k 5, mbpp 3, else 0",
        min=0,
    ),
]
ShotsData = Annotated[
    Path | None,
    typer.Option(
        help="File with the examples, in the same format.", show_default="the first rows, which are not asked then"
    ),
]
NumSamples = Annotated[
    int, typer.Option("--samples", help="Answers drawn per prompt, for pass@k; needs --temperature.", min=1)
]
MaxTokens = Annotated[
    int | None,
    typer.Option(help="Most tokens per answer.", show_default="plain 96, gsm8k 256, humaneval and mbpp 512", min=1),
]
Temperature = Annotated[float, typer.Option(help="0 takes the most probable token.")]
Seed = Annotated[int, typer.Option(help="Seed of the held-out prompts and of drawing.")]
AllowCode = Annotated[
    bool,
    typer.Option("--allow-code", help="Run the code that the model writes, in a sandbox. HumanEval and MBPP need it."),
]
CodeSeconds = Annotated[
    int, typer.Option(help="CPU time of one program; three times that on the clock.", min=1, max=600)
]
Slots = Annotated[int, typer.Option(help="Prompts that run at the same time.", min=1)]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder for the results (JSON, CSV, Markdown), every answer (JSON lines) and the plot (SVG, PNG).",
        show_default="none",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
