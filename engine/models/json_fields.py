"""Reading a checkpoint's JSON files: each complaint names the file, the field and what was found."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from engine.errors import CheckpointError, UnsupportedModelError


class JsonFields:
    """The object in one JSON file, read by field. A field that is null counts as absent."""

    def __init__(self, file: str, data: Mapping[str, object]) -> None:
        self.file = file
        self._data = data

    @classmethod
    def read(cls, path: Path) -> JsonFields:
        """Read a file that must exist and hold one JSON object."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise CheckpointError(f"{path} is missing; a checkpoint needs it", path.name) from error
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}", path.name) from error
        except (ValueError, RecursionError) as error:  # bad JSON or bad UTF-8
            raise CheckpointError(f"{path} is not valid JSON: {error}", path.name) from error
        if not isinstance(data, dict):
            raise CheckpointError(f"{path} must hold a JSON object, found {type(data).__name__}", path.name)
        return cls(path.name, data)

    @classmethod
    def read_optional(cls, path: Path) -> JsonFields:
        """As :meth:`read`; a file that does not exist reads as an empty object."""
        return cls.read(path) if path.exists() else cls(path.name, {})

    def get(self, name: str) -> object:
        return self._data.get(name)

    def items(self) -> Iterator[tuple[str, object]]:
        return iter(self._data.items())

    def where(self, name: str) -> str:
        """How a value's source is shown."""
        return f"{self.file}: {name}"

    def optional_integer(self, name: str, minimum: int = 0) -> int | None:
        value = self.get(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise self._wrong(name, f"an integer of at least {minimum}")
        return value

    def integer(self, name: str, minimum: int = 1) -> int:
        value = self.optional_integer(name, minimum)
        if value is None:
            raise CheckpointError(f"{self.file} has no {name}; add it as published", name)
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        """One id or a list of ids; empty when absent."""
        value = self.get(name)
        items = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in items):
            raise self._wrong(name, "a token id or a list of token ids")
        return tuple(items)

    def positive(self, name: str, default: float) -> float:
        value = self.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise self._wrong(name, "a positive number")
        return float(value)

    def optional_flag(self, name: str) -> bool | None:
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def text(self, name: str) -> str | None:
        """A string, or the ``content`` of a token written as an object."""
        value = self.get(name)
        if isinstance(value, dict):
            value = value.get("content")
        return value if isinstance(value, str) else None

    def mapping(self, name: str) -> Mapping[str, object]:
        value = self.get(name)
        return value if isinstance(value, dict) else {}

    def require(self, name: str, *allowed: object) -> None:
        """Refuse the checkpoint unless the field is absent or one of ``allowed``."""
        value = self.get(name)
        if value is not None and not any(type(value) is type(item) and value == item for item in allowed):
            wanted = " or ".join(json.dumps(item) for item in allowed) or "null"
            raise UnsupportedModelError(
                f"{self.file}: {name} = {json.dumps(value)} is not supported (supported: {wanted})", name
            )

    def _wrong(self, name: str, wanted: str) -> CheckpointError:
        return CheckpointError(f"{self.file}: {name} must be {wanted}, found {json.dumps(self.get(name))}", name)
