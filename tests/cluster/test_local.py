"""cluster/local.py: its options, and a configuration that Ray's node autoscaler takes. Clusters themselves run in
tests/integration (fixed) and tests/e2e (elastic)."""

from __future__ import annotations

import warnings

import pytest

from cluster.fixed import local_cluster
from cluster.local import Options, greeting, parse
from cluster.nodes import NodeShape, parse_resources

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ray.autoscaler._private.util import prepare_config, validate_config

    from cluster.elastic import autoscaling_config, elastic_cluster


def test_a_fixed_cluster_is_the_default() -> None:
    assert parse([]) == Options(2, 2, NodeShape(), 60, None)
    options = parse(["--nodes", "3", "--cpus", "2", "--resources", '{"gpuish": 2}', "--dashboard"])
    assert not options.is_elastic
    assert options.shape == NodeShape(2, {"gpuish": 2})
    lines = greeting(options, "10.0.0.1:6379").splitlines()
    assert lines[0] == "3 nodes at 10.0.0.1:6379 (2 CPU, 2 gpuish each)"
    assert lines[1] == f"Dashboard: http://127.0.0.1:{options.dashboard_port}"
    assert lines[2] == "Try: lacuna serve --ray-address 10.0.0.1:6379"


def test_an_elastic_cluster() -> None:
    options = parse(["--max-nodes", "3", "--idle-head", "--idle", "5"])
    assert options == Options(1, 3, NodeShape(1, {}, idle_head=True), 5, None)
    assert options.is_elastic
    text = greeting(options, "10.0.0.1:6379")
    assert text.startswith("1 to 3 nodes at 10.0.0.1:6379 (1 CPU each, the head none)\n")
    assert "--ray-address 10.0.0.1:6379 --min-replicas 0 --max-replicas 2\n" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nodes", "0"], "--nodes must be at least 1"),
        (["--nodes", "3", "--max-nodes", "3"], "--max-nodes must be more than the 3 of --nodes"),
        (["--max-nodes", "2", "--idle", "0"], "--idle must be above 0"),
        (["--cpus", "-1"], "must not be below 0"),
        (["--nodes", "1", "--idle-head"], "nothing could run"),
        (["--resources", "gpuish=2"], "resources are JSON"),
        (["--resources", "[2]"], "numbers by name"),
        (["--resources", '{"CPU": 2}'], "CPU is not a resource to be invented"),
        (["--resources", '{"gpuish": "2"}'], "must be a number, got '2'"),
        (["--resources", '{"gpuish": 0}'], "must be above 0"),
    ],
)
def test_wrong_options_are_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_the_head_may_offer_nothing() -> None:
    shape = NodeShape(2, parse_resources('{"gpuish": 1.5}'), idle_head=True)
    assert shape.of_head() == NodeShape(0)
    assert NodeShape(2).of_head() == NodeShape(2)


def test_the_autoscaler_takes_the_configuration() -> None:
    shape = NodeShape(2, {"gpuish": 4}, idle_head=True)
    config = prepare_config(autoscaling_config("127.0.0.1:6379", num_nodes=2, max_nodes=4, shape=shape, idle_s=30))
    validate_config(config)
    assert config["idle_timeout_minutes"] == 0.5
    worker = config["available_node_types"]["worker"]
    assert worker["resources"] == {"CPU": 2, "gpuish": 4}
    assert (worker["min_workers"], worker["max_workers"]) == (1, 3)
    assert config["available_node_types"]["ray.head.default"]["resources"] == {"CPU": 0}


def test_a_cluster_needs_nodes() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"), local_cluster(0):
        pass
    with pytest.raises(ValueError, match="more than num_nodes"), elastic_cluster(2, 2):
        pass
