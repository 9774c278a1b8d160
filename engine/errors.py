"""Every error that Lacuna raises on purpose, as one tree.

    LacunaError
    |- InvalidRequestError         the caller must change the request
    |  |- UnknownStrategyError     decoder, cache policy or knob that does not exist
    |  |- ContextLengthError       prompt + max_tokens do not fit the model or the server
    |  '- RequestTooLargeError     more bytes than the server takes in one request
    |- AuthenticationError         no API key, or none that is known
    |- ModelNotFoundError          the server does not serve that model
    |- OverloadedError             the waiting queue is full; try again later
    |- DeadlineExceededError       the request's own deadline passed
    |- RequestAbortedError         the request was cancelled
    |- ConfigError                 the engine or the application is configured wrongly
    |- CheckpointError             a checkpoint cannot be served as it lies on disk
    |  '- UnsupportedModelError    a well-formed checkpoint of a kind that is not supported
    '- EngineDeadError             the engine stopped; the request may be sent elsewhere
       '- RanksDisagreeError       the ranks of a sharded replica hold different canvases

A transport maps a class to its own codes in one table (``deployments/errors.py``); nothing else depends on the
concrete class. All arguments go to ``Exception.__init__``, so every error survives pickling between processes.
"""

from __future__ import annotations


class LacunaError(Exception):
    """Base of the tree.

    ``message`` is a whole sentence for the user; ``param`` names the request field or setting that caused it.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, param)
        self.message = message
        self.param = param

    def __str__(self) -> str:
        return self.message


class InvalidRequestError(LacunaError):
    """The request cannot be served as it is; ``param`` names the field."""


class UnknownStrategyError(InvalidRequestError):
    """A decoder, cache policy or knob that does not exist, or not for this model."""


class ContextLengthError(InvalidRequestError):
    """Prompt and requested tokens together exceed what the model or the server allows."""


class RequestTooLargeError(InvalidRequestError):
    """The request has more bytes than the server takes."""


class AuthenticationError(LacunaError):
    """The caller gave no API key, or none that is known."""


class ModelNotFoundError(LacunaError):
    """The server does not serve the named model."""


class OverloadedError(LacunaError):
    """The waiting queue is full. ``retry_after_s`` is a hint in seconds."""

    def __init__(self, message: str, param: str | None = None, retry_after_s: float = 1.0) -> None:
        super().__init__(message, param)
        self.args = (message, param, retry_after_s)
        self.retry_after_s = retry_after_s


class DeadlineExceededError(LacunaError):
    """The request's own deadline passed before it finished."""


class RequestAbortedError(LacunaError):
    """The request was cancelled by its owner."""


class ConfigError(LacunaError):
    """A setting of the engine or of the application is wrong; ``param`` names it."""


class CheckpointError(LacunaError):
    """A checkpoint cannot be served as it lies on disk; ``param`` names the file or the tensor."""


class UnsupportedModelError(CheckpointError):
    """A well-formed checkpoint whose architecture or option is not supported; ``param`` names the config field."""


class EngineDeadError(LacunaError):
    """The engine stopped and will not answer; another replica may."""


class RanksDisagreeError(EngineDeadError):
    """The ranks of a sharded replica decided differently: none of them can be trusted."""
