"""A comparison as files."""

from __future__ import annotations

import json
from pathlib import Path

from engine.errors import ConfigError
from engine.evaluation.comparison import Comparison


def write_files(comparison: Comparison, folder: Path) -> list[Path]:
    """Write results.json, .csv and .md, answers.jsonl (every answer with its text) and the plot (SVG and PNG) into
    ``folder``, which is made where it is missing.

    Existing files are replaced. ConfigError when the folder cannot be written.
    """
    from engine.evaluation.plot import write_plot

    try:
        folder.mkdir(parents=True, exist_ok=True)
        texts = {
            "results.json": json.dumps(comparison.to_dict(), indent=1) + "\n",
            "results.csv": comparison.to_csv(),
            "results.md": comparison.to_markdown() + "\n",
            "answers.jsonl": "".join(f"{json.dumps(answer)}\n" for answer in comparison.answers()),
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
        return [*(folder / name for name in texts), *write_plot(comparison, folder)]
    except OSError as error:
        raise ConfigError(f"The folder {folder} cannot be written: {error}.", "out") from error
