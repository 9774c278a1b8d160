"""cluster/*.yaml: what `ray up` takes, by Ray's own validator; they fit together with deployments/serve.yaml."""

from __future__ import annotations

import copy
import re
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ray.autoscaler._private.util import prepare_config, validate_config

from deployments.config import AppConfig
from deployments.room import shortages

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "cluster").glob("*.yaml"))
CLOUDS = [path for path in FILES if path.stem != "onprem"]
FLAGS = ("RAY_SERVE_ENABLE_HA_PROXY=1", "RAY_SERVE_THROUGHPUT_OPTIMIZED=1", "RAY_worker_niceness=0")


def load(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    return config


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` reads it, before it asks a cloud."""
    found: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(found)
    return found


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def test_there_are_bare_machines_and_two_clouds() -> None:
    assert {path.stem: load(path)["provider"]["type"] for path in FILES} == {
        "onprem": "local",
        "aws": "aws",
        "gcp": "gcp",
    }


def test_rays_validator_takes_it(path: Path) -> None:
    assert prepared(load(path))["max_workers"] >= 2


@pytest.mark.parametrize("misspelt", ["setup_command", "max_worker", "file_mount", "dockers"])
def test_rays_validator_refuses_a_misspelt_key(path: Path, misspelt: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=misspelt):
        prepared(load(path) | {misspelt: []})


@pytest.mark.parametrize("cloud", CLOUDS, ids=lambda path: path.stem)
def test_rays_validator_refuses_a_misspelt_key_of_a_node_type(cloud: Path) -> None:
    config = load(cloud)
    config["available_node_types"]["cpu"]["max_wokers"] = 1
    with pytest.raises(jsonschema.ValidationError, match="max_wokers"):
        prepared(config)


def test_the_head_takes_no_work(path: Path) -> None:
    config = load(path)
    if path in CLOUDS:
        assert config["available_node_types"]["head"]["resources"] == {"CPU": 0, "GPU": 0}
    else:
        assert "--num-cpus=0 --num-gpus=0" in config["head_start_ray_commands"][-1]


@pytest.mark.parametrize("cloud", CLOUDS, ids=lambda path: path.stem)
def test_workers_have_bounds(cloud: Path) -> None:
    config = load(cloud)
    types = config["available_node_types"]
    assert types["cpu"]["min_workers"] == 1
    assert types["gpu"]["resources"]["GPU"] == 1
    assert types["gpu"]["min_workers"] == 0, "GPUs are started when a model asks for them"
    assert config["max_workers"] == types["cpu"]["max_workers"] + types["gpu"]["max_workers"]


@pytest.mark.parametrize("cloud", CLOUDS, ids=lambda path: path.stem)
def test_the_served_models_fit_the_workers_that_start(cloud: Path) -> None:
    (application,) = load(ROOT / "deployments" / "serve.yaml")["applications"]
    cpu = load(cloud)["available_node_types"]["cpu"]
    nodes = [cpu["resources"]] * cpu["min_workers"]
    assert shortages(AppConfig.parse(application["args"]), nodes) == {}


def test_every_node_installs_this_source_with_its_pins(path: Path) -> None:
    config = load(path)
    assert config["file_mounts"] == {"~/lacuna": "."}
    assert {".git", ".venv"} <= set(config["rsync_exclude"])
    (install,) = (command for command in config["setup_commands"] if "pip install" in command)
    assert install.endswith("pip install --quiet -c ~/lacuna/constraints.txt ~/lacuna")
    assert (ROOT / "constraints.txt").is_file()


def test_images_have_the_pinned_ray(path: Path) -> None:
    images = re.findall(r"rayproject/ray:[\w.-]+", path.read_text())
    assert all(image.startswith(f"rayproject/ray:{metadata.version('ray')}-py311") for image in images)
    assert bool(images) == (path in CLOUDS)


def test_head_and_workers_have_serves_flags(path: Path) -> None:
    config = load(path)
    for part in ("head", "worker"):
        start = config[f"{part}_start_ray_commands"][-1]
        assert all(flag in start for flag in FLAGS)
        assert "ray start" in start


def test_the_commands_of_the_comments_name_this_file(path: Path) -> None:
    text = path.read_text()
    for command in ("ray up", "ray attach", "ray exec", "ray down"):
        assert f"{command} cluster/{path.name}" in text
    assert "serve deploy deployments/serve.yaml" in text
    assert "ray get-auth-token --generate" in text
