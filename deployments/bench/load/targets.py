"""Services to be loaded: started here for the purpose, or running already."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from deployments.bench.load.server_side import Target
from deployments.bench.service import started_service
from deployments.config import EMBEDDED_MODELS, resolve_checkpoint
from engine.bench.synthetic import with_positions

QUEUE_SETTINGS = ("max_queue_depth=1024", "max_key_share=1", "queue_timeout_s=3600")
"""So that a queue is as long as the number of clients says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """What is started. ``models`` are embedded ids, folders or ``id=folder``; without any, ``config`` names them.
    ``engine`` are settings of the engines of all ``models``."""

    models: Sequence[str] = ()
    engine: Mapping[str, object] = field(default_factory=dict)
    config: Path | None = None
    settings: Sequence[str] = ()

    @property
    def asked_model(self) -> str:
        """The id that requests name; "" is the service's default."""
        return str(_entry(self.models[0])["id"]) if self.models else ""

    def words(self) -> list[str]:
        """Arguments of ``lacuna serve``."""
        settings = list(self.settings)
        if self.models:
            entries = [_entry(model) | ({"engine": dict(self.engine)} if self.engine else {}) for model in self.models]
            settings.append(f"models={json.dumps(entries)}")
        words = [] if self.config is None else ["--config", str(self.config.resolve())]
        return [*words, *(word for setting in settings for word in ("--set", setting))]


def _entry(text: str) -> dict[str, object]:
    """A model as settings have it. Folders are absolute: the service may run elsewhere; embedded ids stay, because
    every tree has its own."""
    name, separator, path = text.partition("=")
    if not separator:
        name, path = Path(text).name, text
    return {"id": name, "path": path if path in EMBEDDED_MODELS else str(Path(path).expanduser().resolve())}


@contextmanager
def started(options: ServiceOptions, tree: Path | None = None) -> Iterator[Target]:
    """The service of this tree or another."""
    with started_service(options.words(), tree) as service:
        yield Target(service.base_url, service.grpc_address, service.pid)


@contextmanager
def started_with_queue(options: ServiceOptions, slots: int) -> Iterator[Target]:
    """A service that runs ``slots`` requests of a model at once and lets all others wait."""
    engine = {**options.engine, "max_num_seqs": slots}
    with started(replace(options, engine=engine, settings=[*options.settings, *QUEUE_SETTINGS])) as target:
        yield target


@contextmanager
def started_with_positions(options: ServiceOptions, positions: int) -> Iterator[Target]:
    """A service whose first model has room for a long prompt."""
    entry = _entry(options.models[0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long"
        with_positions(resolve_checkpoint(str(entry["path"])), path, positions)
        with started(replace(options, models=[f"{entry['id']}={path}", *options.models[1:]])) as target:
            yield target
