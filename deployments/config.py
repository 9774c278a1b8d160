"""AppConfig: every setting of the application, one schema for ``serve run key=value``, YAML, ``lacuna serve`` and helm.

The engine's own settings are checked where the application is built; the ingress never imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

import engine
from cluster.placement import GroupPlacement, PlacementStrategy
from deployments.api_keys import ApiKeySource
from deployments.autoscaling import AutoscalingSettings
from deployments.experiments.config import ExperimentConfig
from deployments.logs.config import LogConfig
from deployments.settings import ENVIRONMENT, JsonDict, Settings, from_text
from deployments.telemetry.settings import TelemetryConfig
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.config import EngineConfig

DEFAULT_LEDGER = "sqlite:///~/.lacuna/ledger.sqlite3"
EMBEDDED_MODELS = ("lacuna-tiny-sdar", "lacuna-tiny-llada")
"""What is served where nothing else is said."""
SHIPPED_MODELS = (*EMBEDDED_MODELS, "lacuna-tiny-sdar-b8", "lacuna-tiny-llada-moe", "lacuna-tiny-llada-moe-td")
"""Every model of the installation that can be served by its id."""
SHIPPED_BASES = ("lacuna-tiny-ar",)
"""Autoregressive checkpoints of the installation, to adapt."""


def resolve_checkpoint(path: str) -> Path:
    """The folder of a checkpoint: one of the installation's by its id, else a path as it is."""
    if path in SHIPPED_MODELS + SHIPPED_BASES:
        return Path(engine.__file__).parent / "checkpoints" / path
    return Path(path).expanduser()


def deployment_name(model: str) -> str:
    """Serve's name of a model's engine deployment."""
    return f"EngineReplica-{model.replace('/', '--')}"


def _model_list(value: object) -> object:
    """``a,b`` is a list; a text in a list is a path (or the id of an embedded model) or ``id=path``."""
    value = from_text(value)
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple):
        return [_model_entry(entry) if isinstance(entry, str) else entry for entry in value]
    return value


def _model_entry(text: str) -> dict[str, object]:
    name, separator, path = text.partition("=")
    if separator:
        return {"id": name, "path": path}
    return {"id": Path(text).name, "path": text}


def _engine_config(options: dict[str, Any]) -> EngineConfig:
    from engine.config import parse_engine_config

    try:
        return parse_engine_config(options)
    except ConfigError as error:
        raise ValueError(str(error)) from None


def _check_ledger(url: str) -> None:
    if url.startswith(ENVIRONMENT):  # only the ingress has it
        return
    from deployments.experiments.ledger.database import parse_url

    try:
        parse_url(url)
    except ConfigError as error:
        raise ValueError(f"ledger: {error}") from None


class AutoscalingConfig(Settings):
    """How the number of a model's replicas follows its queue. The delays suit models that take a while to load."""

    min_replicas: int = Field(default=1, ge=0, description="0: no replica while nobody asks; a request wakes one.")
    max_replicas: int = Field(default=1, ge=1, description="Never more replicas than this.")
    initial_replicas: int | None = Field(
        default=None, ge=0, description="Replicas at the start; empty: min_replicas, but at least 1."
    )
    target_work_s: float = Field(
        default=10, gt=0, description="Seconds of predicted denoising work per replica, waiting and running."
    )
    target_requests: int = Field(
        default=0, ge=0, description="Waiting and running requests per replica; 0: as many as it has places."
    )
    upscale_delay_s: float = Field(default=10, ge=0, description="More replicas once they were needed for so long.")
    downscale_delay_s: float = Field(default=300, ge=0, description="Fewer once they were not needed for so long.")
    downscale_to_zero_delay_s: float = Field(
        default=900, ge=0, description="How long nobody may have asked before the last replica goes."
    )
    look_back_s: float = Field(default=20, gt=0, description="The load is averaged over this time.")

    @model_validator(mode="after")
    def _check_bounds(self) -> AutoscalingConfig:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} exceeds max_replicas {self.max_replicas}")
        if not self.min_replicas <= self.first_replicas <= self.max_replicas:
            raise ValueError(
                f"initial_replicas must lie between min_replicas {self.min_replicas} and max_replicas "
                f"{self.max_replicas}, got {self.first_replicas}"
            )
        return self

    @property
    def first_replicas(self) -> int:
        """Replicas at the start."""
        return max(self.min_replicas, 1) if self.initial_replicas is None else self.initial_replicas

    def targets(self) -> AutoscalingSettings:
        """What decides the number of replicas."""
        return AutoscalingSettings(
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            target_work_s=self.target_work_s,
            target_requests=self.target_requests,
        )

    def serve_options(self) -> dict[str, object]:
        """Serve's own settings of the engine deployment: bounds and delays."""
        return {
            "min_replicas": self.min_replicas,
            "max_replicas": self.max_replicas,
            "initial_replicas": self.first_replicas,
            "upscale_delay_s": self.upscale_delay_s,
            "downscale_delay_s": self.downscale_delay_s,
            "downscale_to_zero_delay_s": self.downscale_to_zero_delay_s,
        }


class ModelConfig(Settings):
    """One served model."""

    id: str = Field(min_length=1, pattern=r"^[\w.:-]+(/[\w.:-]+)*$", description="What clients call the model.")
    path: str = Field(
        default="", description="Folder of the checkpoint, on every node; empty: the embedded model `id`."
    )
    description: str = Field(default="", description="Shown in the list of models.")
    engine: JsonDict = Field(default={}, description="Settings of the engine (EngineConfig), e.g. {max_num_seqs: 32}.")
    default_strategy: JsonDict = Field(
        default={},
        description="Strategy of requests that name none, e.g. {decoder: threshold}; empty: the model's own.",
    )
    num_replicas: int = Field(default=1, ge=1, description="Engine replicas of the model, without autoscaling.")
    autoscaling: Annotated[AutoscalingConfig | None, BeforeValidator(from_text)] = Field(
        default=None,
        description="Let the number of replicas follow the queue, e.g. {min_replicas: 0, max_replicas: 4}.",
    )
    num_cpus: float = Field(
        default=0.5,
        ge=0,
        description="CPU cores reserved per rank; also its compute threads (at least 1) unless engine.num_threads. A "
        "replica is one rank unless engine.tensor_parallel_size or engine.expert_parallel_size make it more.",
    )
    num_gpus: float = Field(default=0, ge=0, description="GPUs reserved per rank.")
    placement_strategy: PlacementStrategy = Field(
        default="STRICT_PACK",
        description="Where the ranks of a replica go: STRICT_PACK one node, PACK as few as possible, SPREAD as many as "
        "possible, STRICT_SPREAD a node each.",
    )
    rank_timeout_s: float = Field(
        default=10,
        ge=3,
        description="A rank for which another has waited so long, within a forward or for a heartbeat, is lost, and "
        "the replica is replaced.",
    )
    rank_start_timeout_s: float = Field(
        default=120, gt=0, description="How long a rank may take to start, and to answer while it loads."
    )

    @model_validator(mode="after")
    def _check_path(self) -> ModelConfig:
        if not self.path and self.id not in SHIPPED_MODELS:
            raise ValueError(f"model {self.id!r} needs a path; embedded models are: {', '.join(SHIPPED_MODELS)}")
        if self.autoscaling is not None and self.num_replicas != 1:
            raise ValueError("num_replicas and autoscaling exclude each other; use autoscaling.initial_replicas")
        return self

    @field_validator("engine")
    @classmethod
    def _check_engine(cls, value: dict[str, Any]) -> dict[str, Any]:
        _engine_config(value)
        return value

    @model_validator(mode="after")
    def _check_placement(self) -> ModelConfig:
        try:
            if self.engine:  # without settings an engine is one rank
                self.placement()
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return self

    def engine_config(self) -> EngineConfig:
        """The validated settings of the engine."""
        return _engine_config(self.engine)

    @property
    def first_replicas(self) -> int:
        """Replicas at the start."""
        return self.num_replicas if self.autoscaling is None else self.autoscaling.first_replicas

    def placement(self) -> GroupPlacement:
        """What a replica reserves, over all its ranks."""
        return GroupPlacement(
            world_size=self.engine_config().layout.world_size,
            num_cpus=self.num_cpus,
            num_gpus=self.num_gpus,
            strategy=self.placement_strategy,
        )

    def checkpoint(self) -> Path:
        """The folder on this node."""
        return resolve_checkpoint(self.path or self.id)


class AppConfig(Settings):
    """The application. Texts are parsed as JSON where a setting is nested, so ``serve run`` can give everything."""

    models: Annotated[list[ModelConfig], BeforeValidator(_model_list)] = Field(
        default=[ModelConfig(id=name) for name in EMBEDDED_MODELS],
        min_length=1,
        description="Served models; `id=path,id=path` for short.",
    )
    default_model: str = Field(default="", description="Model of requests that name none; empty: the first one.")
    max_queue_depth: int = Field(
        default=256, ge=1, description="Waiting requests per model; more get 429 / RESOURCE_EXHAUSTED."
    )
    max_key_share: float = Field(
        default=0.5, gt=0, le=1, description="Share of the waiting places of a model that one API key may hold."
    )
    max_overtaken_s: float = Field(
        default=60, gt=0, description="A request that has waited so long goes before all later ones, whatever they are."
    )
    queue_timeout_s: float = Field(
        default=120, gt=0, description="A request that has waited so long is given up with DEADLINE_EXCEEDED / 408."
    )
    lookahead: int = Field(
        default=4,
        ge=0,
        description="Sequences an engine is given beyond its slots, so that none idles between requests.",
    )
    default_timeout_s: float = Field(default=300, gt=0, description="Time of a request that sets none.")
    max_timeout_s: float = Field(default=3600, gt=0, description="A request may not ask for more time.")
    max_sequences: int = Field(default=64, ge=1, description="Most sequences (prompts x n) of one request.")
    keepalive_s: float = Field(default=10, gt=0, description="A silent HTTP stream gets a comment this often.")
    max_body_bytes: int = Field(default=4 * 2**20, ge=1024, description="Largest body of an HTTP request; more is 413.")
    grpc_max_message_bytes: int = Field(
        default=4 * 2**20, ge=1024, description="Largest message of a gRPC request; more is RESOURCE_EXHAUSTED."
    )
    api_keys: ApiKeySource = Field(
        default=[],
        description="Who may use the server: a list of {name, sha256} (see `lacuna keys new`), `env:NAME` or the path "
        "of a YAML or JSON file with such a list; empty: everyone.",
    )
    open_paths: Annotated[list[str], BeforeValidator(from_text)] = Field(
        default=["/health", "/healthz", "/docs", "/openapi.json", "/playground", "/playground/*"],
        description="HTTP paths that need no API key; `/*` at the end stands for all paths below. `/health` stands for "
        "the gRPC health service too.",
    )
    playground: bool = Field(
        default=True, description="Serve the browser playground at /playground; what it asks for needs a key as ever."
    )
    ingress_replicas: int = Field(default=1, ge=1, description="Processes that speak HTTP and gRPC with clients.")
    graceful_shutdown_timeout_s: float = Field(
        default=60, ge=0, description="How long running requests may go on when a replica is stopped."
    )
    graceful_shutdown_wait_loop_s: float = Field(default=1, gt=0, description="How often a stopping replica looks.")
    logging: Annotated[LogConfig, BeforeValidator(from_text)] = Field(
        default=LogConfig(), description="Logs, e.g. {log_format: json}."
    )
    health_check_period_s: float = Field(default=2, gt=0, description="How often replicas are asked for their health.")
    telemetry: Annotated[TelemetryConfig, BeforeValidator(from_text)] = Field(
        default_factory=TelemetryConfig, description="Traces, e.g. {otlp_endpoint: http://collector:4317}."
    )
    experiments: Annotated[list[ExperimentConfig], BeforeValidator(from_text)] = Field(
        default=[], description="Strategies compared on live traffic; a user is in the first that takes them."
    )
    ledger: str = Field(
        default=DEFAULT_LEDGER,
        description="Database of the experiments' outcomes: sqlite:///FILE, postgresql://USER:PASSWORD@HOST/NAME, or "
        "`env:NAME` of a variable with such a URL.",
    )

    @model_validator(mode="after")
    def _check_names(self) -> AppConfig:
        names = [model.id for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError(f"models: every id may occur once, got {', '.join(names)}")
        if self.default_model and self.default_model not in names:
            raise ValueError(f"default_model: {self.default_model!r} is not served; models are: {', '.join(names)}")
        if self.default_timeout_s > self.max_timeout_s:
            raise ValueError("default_timeout_s: must not exceed max_timeout_s")
        return self

    @model_validator(mode="after")
    def _check_experiments(self) -> AppConfig:
        names = [experiment.name for experiment in self.experiments]
        if len(set(names)) != len(names):
            raise ValueError(f"experiments: every name may occur once, got {', '.join(names)}")
        if self.experiments:
            _check_ledger(self.ledger)
        models = [model.id for model in self.models]
        for experiment in self.experiments:
            if experiment.model and experiment.model not in models:
                raise ValueError(
                    f"experiments: {experiment.name!r} is about the model {experiment.model!r}, which is not served; "
                    f"models are: {', '.join(models)}"
                )
        return self

    @property
    def default_model_id(self) -> str:
        return self.default_model or self.models[0].id

    @property
    def autoscales(self) -> bool:
        """Whether any model's number of replicas follows its queue."""
        return any(model.autoscaling is not None for model in self.models)

    def experiments_of(self, model: str) -> list[ExperimentConfig]:
        """The experiments about a model, in their order."""
        return [one for one in self.experiments if (one.model or self.default_model_id) == model]

    @classmethod
    def parse(cls, args: AppConfig | Mapping[str, object]) -> AppConfig:
        """Validate; a ConfigError lists every wrong setting in one line each."""
        if isinstance(args, AppConfig):
            return args
        try:
            return cls.model_validate(dict(args))
        except ValidationError as error:
            raise ConfigError(f"The application's settings are wrong. {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """Pydantic's findings as ``field: what is wrong``, joined by semicolons."""
    findings = []
    for item in error.errors(include_url=False):
        where = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        findings.append(f"{where}: {message}" if where else message)
    return "; ".join(findings)
