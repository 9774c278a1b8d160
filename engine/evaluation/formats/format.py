"""What a format of questions defines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

from engine.errors import ConfigError
from engine.evaluation.tasks.sample import Sample

VerifierName = Literal["exact", "number", "code"]

Record = Mapping[str, object]


class Format(ABC):
    """Stateless. A chat model is asked a :meth:`question`; a base model continues an :meth:`opening`.

    ``max_tokens`` and, for base models, ``stop`` and ``shots`` (solved examples before the question) are what is usual.
    """

    name: ClassVar[str]
    verifier: ClassVar[VerifierName]
    max_tokens: ClassVar[int]
    stop: ClassVar[tuple[str, ...]] = ()
    shots: ClassVar[int] = 0

    @abstractmethod
    def recognises(self, record: Record) -> bool:
        """Whether a row has this format's fields, whatever is in them."""

    @abstractmethod
    def parse(self, record: Record) -> Sample:
        """The sample of a row; ConfigError names the field that is wrong."""

    def question(self, sample: Sample) -> str:
        """What the user says in a chat."""
        return sample.prompt

    def reply(self, sample: Sample) -> str:
        """What the assistant says after the question of a solved example."""
        return sample.answer

    def opening(self, sample: Sample) -> str:
        """The text up to where a base model goes on."""
        return sample.prompt

    def closing(self, sample: Sample) -> str:
        """The rest of a solved example, up to where the next begins."""
        return f"{sample.answer}\n\n"


def text_field(record: Record, *names: str) -> str:
    """The text in the first of the fields that is there; ConfigError when it is no text or blank."""
    name = next((name for name in names if name in record), names[0])
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"needs a text in {name!r}", name)
    return value


def texts_field(record: Record, name: str) -> list[str]:
    """A list of texts; empty where the field is missing."""
    value = record.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"needs a list of texts in {name!r}", name)
    return value


def kind_field(record: Record, default: str) -> str:
    """The row's own ``kind``, by which results are told apart."""
    return text_field(record, "kind") if "kind" in record else default


def name_field(record: Record, default: str = "") -> str:
    """``task_id``: a text, or a number."""
    value = record.get("task_id", default)
    if not isinstance(value, str | int):
        raise ConfigError("needs a text or a number in 'task_id'", "task_id")
    return str(value)
