"""Questions with one right text: ``{"prompt", "answer", "kind"}``."""

from __future__ import annotations

from engine.errors import ConfigError
from engine.evaluation.formats.format import Format, Record, kind_field, text_field
from engine.evaluation.tasks.sample import Sample

FIELDS = ("prompt", "answer", "kind")
DEFAULT_KIND = "default"


class Plain(Format):
    """A text compared as a whole, or after ``####``, or as JSON (:func:`engine.evaluation.scoring.matches`)."""

    name = "plain"
    verifier = "exact"
    max_tokens = 96

    def recognises(self, record: Record) -> bool:
        return {"prompt", "answer"} <= record.keys()

    def parse(self, record: Record) -> Sample:
        unknown = sorted(record.keys() - set(FIELDS))
        if unknown:
            raise ConfigError(f"has the unknown field {unknown[0]!r}; use prompt, answer and kind", unknown[0])
        return Sample(kind_field(record, DEFAULT_KIND), text_field(record, "prompt"), text_field(record, "answer"))
