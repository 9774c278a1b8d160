"""Kubernetes' own schemas (from the package kubernetes-validate), read once; unknown fields are refused."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import kubernetes_validate
from jsonschema import Draft202012Validator
from jsonschema.protocols import Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.helm.crds import SCHEMAS

VERSION = "1.31"
FOLDER = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{VERSION}.0-local-strict"


def validate(one: dict[str, Any]) -> None:
    """ValidationError where an object is not what its API says."""
    validator(one["kind"], one["apiVersion"]).validate(one)


@functools.cache
def validator(kind: str, api_version: str) -> Validator:
    if kind in SCHEMAS:
        return Draft202012Validator(SCHEMAS[kind])
    group, _, version = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.partition(".")[0], version) if part)
    return Draft202012Validator(json.loads((FOLDER / f"{name}.json").read_text()), registry=definitions())


@functools.cache
def definitions() -> Registry[Any]:
    contents = json.loads((FOLDER / "_definitions.json").read_text())
    resource = Resource.from_contents(contents, default_specification=DRAFT202012)
    return Registry().with_resource("_definitions.json", resource)
