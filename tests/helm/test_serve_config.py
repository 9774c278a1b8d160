"""What Serve is told: deployments/serve.yaml and the chart are one configuration, without keys that nobody reads."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

from deployments.app import GRPC_SERVICER_FUNCTIONS
from deployments.config import AppConfig
from tests.helm.charts import EXAMPLES, ROOT, example, load_yaml, render, serve_config


def local_config() -> Any:
    return load_yaml((ROOT / "deployments" / "serve.yaml").read_text())


def unknown_keys(model: type[BaseModel], data: Any, where: str = "") -> list[str]:
    """Serve's schema ignores keys that it does not know, so typos would pass."""
    found = []
    for key, value in data.items():
        field = model.model_fields.get(key)
        if field is None:
            found.append(f"{where}{key}")
            continue
        for item in value if isinstance(value, list) else [value]:
            inner = field.annotation
            inner = getattr(inner, "__args__", (inner,))[0] if isinstance(item, dict) else None
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found += unknown_keys(inner, item, f"{where}{key}.")
    return found


def check(config: Any) -> AppConfig:
    ServeDeploySchema.model_validate(config)
    assert unknown_keys(ServeDeploySchema, config) == []
    assert config["grpc_options"]["grpc_servicer_functions"] == list(GRPC_SERVICER_FUNCTIONS)
    (application,) = config["applications"]
    assert application["import_path"] == "deployments.app:build_app"
    return AppConfig.parse(application["args"])


def test_the_configuration_outside_kubernetes_is_serves_and_ours() -> None:
    check(local_config())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_configuration_of_every_example_is_serves_and_ours(path: Any) -> None:
    values = example(path)
    config = check(serve_config(render(values)))
    assert [model.id for model in config.models] == [model["id"] for model in values["app"]["models"]]


def test_chart_and_yaml_differ_in_the_address_only() -> None:
    local, chart = local_config(), serve_config(render({}))
    assert chart["http_options"].pop("host") == "0.0.0.0"
    assert local["http_options"].pop("host") == "127.0.0.1"
    assert local == chart


def test_unknown_keys_are_found_where_serve_lets_them_pass() -> None:
    config = {"applications": [{"import_path": "a:b", "agrs": {}}], "http_option": {}, "grpc_options": {"prot": 1}}
    assert unknown_keys(ServeDeploySchema, config) == ["applications.agrs", "http_option", "grpc_options.prot"]


def test_ports_and_time_limits_of_serve() -> None:
    objects = render({"serve": {"http": {"port": 8001, "requestTimeoutS": 30}, "grpc": {"port": 9001}}})
    config = serve_config(objects)
    assert config["http_options"] == {"host": "0.0.0.0", "port": 8001, "request_timeout_s": 30}
    assert config["grpc_options"]["port"] == 9001


def test_secrets_are_named_in_the_settings_and_never_written_into_them() -> None:
    values = {"apiKeys": {"existingSecret": "keys"}, "ledger": {"existingSecret": "ledger", "key": "dsn"}}
    objects = render(values)
    args = serve_config(objects)["applications"][0]["args"]
    assert (args["api_keys"], args["ledger"]) == ("env:LACUNA_API_KEYS", "env:LACUNA_LEDGER_URL")
    check(serve_config(objects))


def test_api_keys_may_be_a_mounted_file() -> None:
    config = check(serve_config(render({"apiKeys": {"existingSecret": "keys", "mount": True}})))
    assert config.api_keys == "/etc/lacuna/api-keys/api-keys"
