"""API keys: who may use the server.

Only SHA-256 digests are kept. Keys are made here with 256 random bits, so nothing is gained by a slow hash: it would
only make every request dear. A name stands for its key in logs, in the router's fairness and in experiments.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, field_validator

from deployments.settings import ENVIRONMENT, Settings, from_environment, from_text
from engine.errors import AuthenticationError, ConfigError

KEY_PREFIX = "lacuna-"
MAX_KEY_LEN = 512


class ApiKey(Settings):
    """A key as it lies in the configuration."""

    name: str = Field(min_length=1, max_length=64, pattern=r"^[\w.:@-]+$", description="Who holds the key.")
    sha256: str = Field(pattern=r"^[0-9a-fA-F]{64}$", description="SHA-256 of the key, in hexadecimal digits.")

    @field_validator("sha256")
    @classmethod
    def _lower(cls, value: str) -> str:
        return value.lower()


ApiKeySource = Annotated[list[ApiKey] | Annotated[str, Field(min_length=1)], BeforeValidator(from_text)]
_KEYS = TypeAdapter(list[ApiKey])


def new_key() -> str:
    """A fresh key: the prefix tells secret scanners what it is."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """What the configuration holds of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def load_keys(source: Sequence[ApiKey] | str) -> list[ApiKey]:
    """The keys of the setting ``api_keys``; ConfigError when a named source cannot be read or holds none.

    Read where the ingress runs, because a secret is mounted there and not where the application is deployed from.
    """
    keys = _read(source) if isinstance(source, str) else list(source)
    names = [key.name for key in keys]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"api_keys: every name may occur once, got {doubled[0]!r} twice", "api_keys")
    return keys


class KeyRing:
    """The keys that open the server; without any it is open to everyone."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._keys = tuple((key.name, key.sha256.encode()) for key in keys)

    @property
    def is_open(self) -> bool:
        return not self._keys

    def authenticate(self, authorization: str | None) -> str:
        """The name of the key in an ``Authorization: Bearer`` value, "" where the server is open.

        Raises AuthenticationError. The time taken does not depend on which key it is or how much of it is right.
        """
        if self.is_open:
            return ""
        scheme, _, key = (authorization or "").strip().partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key:
            raise AuthenticationError("An API key is needed; send it as `Authorization: Bearer KEY`.")
        presented = hashlib.sha256(key[:MAX_KEY_LEN].encode("utf-8", "surrogateescape")).hexdigest().encode()
        names = [name for name, known in self._keys if hmac.compare_digest(presented, known)]
        if not names:
            raise AuthenticationError("The API key is not known to this server.")
        return names[0]


def _read(source: str) -> list[ApiKey]:
    text, where = _text_of(source)
    try:
        keys = _KEYS.validate_python(yaml.safe_load(text))
    except yaml.YAMLError:
        raise ConfigError(f"api_keys: {where} is neither YAML nor JSON", "api_keys") from None
    except ValidationError as error:
        finding = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, finding["loc"])) or "it"
        raise ConfigError(f"api_keys: {where}: {place}: {finding['msg']}", "api_keys") from None
    if not keys:
        raise ConfigError(f"api_keys: {where} holds no key; for an open server leave api_keys empty", "api_keys")
    return keys


def _text_of(source: str) -> tuple[str, str]:
    """The text behind ``env:NAME`` or a path, and what to call it in messages (never the text: it is a secret)."""
    if (text := from_environment(source, "api_keys")) is not None:
        return text, f"the environment variable {source.removeprefix(ENVIRONMENT)}"
    path = Path(source).expanduser()
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"api_keys: {path} cannot be read: {error}", "api_keys") from None
