"""Options that come in groups: the fields of a dataclass, as options of every command that takes one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import get_type_hints


def with_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Put, for typer, the fields of a dataclass in the place of each parameter of ``command`` that is one.

    Fields are annotated as parameters are. TypeError where two options of a command have the same name.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}

    @wraps(command)
    def call(**values: object) -> None:
        made = {name: group(**{f.name: values.pop(f.name) for f in fields(group)}) for name, group in groups.items()}
        command(**values, **made)

    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        parameters += _of_group(groups[name]) if name in groups else [_option(parameter, hints[name])]
    names = [parameter.name for parameter in parameters]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TypeError(f"{command.__name__} has several options of the name {', '.join(twice)}")
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": None}
    return call


def _of_group(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [_option(parameter, hints[name]) for name, parameter in inspect.signature(group).parameters.items()]


def _option(parameter: inspect.Parameter, annotation: object) -> inspect.Parameter:
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
