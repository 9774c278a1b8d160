"""Saying in one line what is wrong with a recording."""

from __future__ import annotations

from pydantic import ValidationError


def complaint(error: Exception) -> str:
    """The first thing wrong, with its place; without the library's own help texts."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "file"
        return f"{place}: {first['msg']}"
    return f"{type(error).__name__}: {error}"
