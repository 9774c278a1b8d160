"""What all settings of the application have in common: unknown keys are refused, nested values may be JSON text."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from engine.errors import ConfigError

ENVIRONMENT = "env:"
"""Begins a setting that stands in an environment variable: secrets do not belong into a configuration."""


def from_text(value: object) -> object:
    """Settings of ``serve run`` are texts: JSON where it looks like JSON."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"not valid JSON: {error}") from None
    return value


def from_environment(source: str, setting: str) -> str | None:
    """The text behind ``env:NAME``; None where the setting is no such name. ConfigError: the variable is not there.

    Read where it is needed, because a secret is given to that process and not to the one that deploys.
    """
    if not source.startswith(ENVIRONMENT):
        return None
    name = source.removeprefix(ENVIRONMENT)
    if name not in os.environ:
        raise ConfigError(f"{setting}: the environment variable {name} is not set where it is read", setting)
    return os.environ[name]


JsonDict = Annotated[dict[str, Any], BeforeValidator(from_text)]


class Settings(BaseModel):
    """Refuses unknown keys with the list of those that exist."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: object) -> object:
        if isinstance(data, Mapping) and (unknown := sorted(set(data) - set(cls.model_fields))):
            allowed = ", ".join(cls.model_fields)
            raise ValueError(f"unknown {', '.join(map(repr, unknown))}; allowed are: {allowed}")
        return data
