"""The formats by name, and which one a row is written in."""

from __future__ import annotations

from engine.errors import ConfigError
from engine.evaluation.formats.format import Format, Record
from engine.evaluation.formats.gsm8k import Gsm8k
from engine.evaluation.formats.humaneval import HumanEval
from engine.evaluation.formats.mbpp import Mbpp
from engine.evaluation.formats.plain import Plain

PLAIN = Plain()
FORMATS: dict[str, Format] = {one.name: one for one in (PLAIN, Gsm8k(), HumanEval(), Mbpp())}
AUTO = "auto"


def format_named(name: str) -> Format:
    """ConfigError lists the names."""
    if name not in FORMATS:
        raise ConfigError(f"There is no format {name!r}; choose one of: {AUTO}, {', '.join(FORMATS)}.", "format")
    return FORMATS[name]


def recognise(record: Record) -> Format | None:
    """The format whose fields a row has; no two want the same ones."""
    return next((one for one in FORMATS.values() if one.recognises(record)), None)
