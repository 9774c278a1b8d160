"""Python and the packages: what the distribution requires, what it was tested with, and the generated gRPC code."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import engine
from deployments.doctor.finding import Finding, Subject, failure, ok, warning

DISTRIBUTION = "lacuna-serve"
SHOWN = ("torch", "ray", "grpcio", "protobuf", "transformers")
GENERATED = ("protos.generation_pb2", "protos.generation_pb2_grpc")
REINSTALL = "run `make install` (or pip install -c constraints.txt lacuna-serve)"


def check_python(subject: Subject, version: str | None = None, requires: str | None = None) -> Iterator[Finding]:
    del subject
    version = version or platform.python_version()
    requires = requires or metadata.metadata(DISTRIBUTION)["Requires-Python"]
    if version in SpecifierSet(requires):
        yield ok("python", f"{version} (wanted: {requires})")
    else:
        yield failure("python", f"{version}, wanted: {requires}", "make an environment with another Python")


def check_packages(subject: Subject, requirements: Sequence[str] | None = None) -> Iterator[Finding]:
    """Every requirement of the installed distribution, without its extras."""
    del subject
    wanted = [Requirement(text) for text in requirements or metadata.requires(DISTRIBUTION) or ()]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    versions = {one.name: _version(one.name) for one in wanted}
    wrong = [one for one in wanted if not _fits(one, versions[one.name])]
    for one in wrong:
        found = versions[one.name] or "not installed"
        yield failure(one.name, f"{found}, wanted: {one.specifier or 'any version'}", REINSTALL)
    if not wrong:
        shown = ", ".join(f"{name} {versions[name]}" for name in SHOWN if versions.get(name))
        yield ok("packages", f"{len(wanted)} as required: {shown}")


def check_pins(subject: Subject, constraints: Path | None = None) -> Iterator[Finding]:
    """The versions of the direct requirements that were tested together; only a source tree knows them."""
    del subject
    path = constraints or Path(engine.__file__).parents[1] / "constraints.txt"
    if not path.is_file():
        return
    pins = dict(line.split("==", 1) for line in path.read_text(encoding="utf-8").split() if "==" in line)
    names = {Requirement(text).name.lower() for text in metadata.requires(DISTRIBUTION) or ()}
    other = [
        f"{name} {found} (tested: {pin})"
        for name, pin in sorted(pins.items())
        if name.lower() in names and (found := _version(name)) and found.partition("+")[0] != pin
    ]
    if other:
        yield warning("tested versions", f"other versions than those tested: {', '.join(other)}", REINSTALL)
    else:
        yield ok("tested versions", f"those of {path.name}")


def check_generated_code(subject: Subject, modules: Sequence[str] = GENERATED) -> Iterator[Finding]:
    """The generated modules themselves refuse a grpcio or protobuf that is older than what made them."""
    from google.protobuf.runtime_version import VersionError

    del subject
    try:
        for name in modules:
            importlib.import_module(name)
    except (ImportError, RuntimeError, VersionError) as error:
        yield failure("gRPC code", " ".join(str(error).split()), "run `make install`, then `make protos`")
    else:
        yield ok("gRPC code", f"fits grpcio {_version('grpcio')} and protobuf {_version('protobuf')}")


def _version(name: str) -> str:
    """Empty where the package is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _fits(requirement: Requirement, version: str) -> bool:
    return bool(version) and requirement.specifier.contains(version, prereleases=True)
