"""The router's and the engines' samples, and the rules that the catalogue keeps."""

from __future__ import annotations

import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from deployments.autoscaling import ModelLoad
from deployments.metrics.catalogue import ENGINE, METRICS, ROUTER
from deployments.metrics.engine_samples import engine_samples
from deployments.metrics.exposition import expose
from deployments.metrics.router_samples import RouterReport, router_samples
from deployments.metrics.spec import MetricSpec, Sample, histogram
from tests.helpers.engines import make_request, scripted

BASE_UNITS = ("seconds", "bytes", "ratio")
METERS = [pytest.param(spec, id=spec.name) for spec in METRICS.values()]


@pytest.mark.parametrize("spec", METERS)
def test_names_and_help_follow_prometheus_rules(spec: MetricSpec) -> None:
    assert re.fullmatch(r"lacuna_[a-z]+(_[a-z]+)*", spec.family)
    assert not spec.name.endswith(("_total", "_count", "_sum", "_bucket", "_info", "_created"))
    assert not re.search(r"_(s|ms|secs|milliseconds|minutes|gib|mb)(_|$)", spec.name), "base units only"
    if spec.unit in BASE_UNITS:
        assert spec.name.endswith(f"_{spec.unit}")
    assert len(spec.help) > 15
    assert spec.help.endswith(".")
    assert spec.kind not in spec.name
    assert not {"le", "quantile", "job", "instance"} & set(spec.labels)
    assert (spec.kind == "histogram") == bool(spec.buckets)
    assert list(spec.buckets) == sorted(set(spec.buckets))


def names(samples: list[Sample]) -> set[str]:
    return {sample.name for sample in samples}


def test_a_histogram_counts_upwards() -> None:
    samples = histogram("engine_forward_rows", (1.0, 2.0), (3, 0, 2), 14.0, model="m")
    page, _ = expose(samples, "application/openmetrics-text; version=1.0.0")
    lines = [line for line in page.decode().splitlines() if line.startswith("lacuna_engine_forward_rows")]
    assert lines == [
        'lacuna_engine_forward_rows_bucket{le="1.0",model="m"} 3.0',
        'lacuna_engine_forward_rows_bucket{le="2.0",model="m"} 3.0',
        'lacuna_engine_forward_rows_bucket{le="+Inf",model="m"} 5.0',
        'lacuna_engine_forward_rows_count{model="m"} 5.0',
        'lacuna_engine_forward_rows_sum{model="m"} 14.0',
    ]
    assert list(text_string_to_metric_families(page.decode()))


def test_a_sample_of_no_known_metric_is_refused() -> None:
    with pytest.raises(AssertionError, match="no known metric"):
        expose([Sample("invented", 1.0)])


def test_the_router_tells_all_its_metrics() -> None:
    load = ModelLoad(queued=2, in_flight=3, work=800.0, replicas=2, positions_per_s=400.0, places_per_replica=4)
    report = RouterReport(
        load=load, wanted_replicas=3, admitted=9, refused={"deadline": 1}, lost_replicas=1, expired_leases=0
    )
    samples = router_samples(report)
    assert names(samples) == {spec.name for spec in ROUTER}
    values = {sample.name: sample.value for sample in samples}
    assert (values["router_predicted_work_seconds"], values["router_places"]) == (4.0, 8)
    assert (values["router_wanted_replicas"], values["router_refused"]) == (3, 1)


def test_a_model_that_does_not_scale_has_no_target() -> None:
    report = RouterReport(
        load=ModelLoad(), wanted_replicas=None, admitted=0, refused={}, lost_replicas=0, expired_leases=0
    )
    assert "router_wanted_replicas" not in names(router_samples(report))


def test_an_engine_tells_all_its_metrics() -> None:
    engine = scripted("bidirectional").engine
    engine.add_request(make_request("a", [65] * 4, max_tokens=4))
    engine.step()
    samples = engine_samples(engine.stats(), engine.readings())
    assert names(samples) == {spec.name for spec in ENGINE}
    values = {(sample.name, *sample.labels.values(), sample.suffix): sample.value for sample in samples}
    assert values["engine_slots", "used", ""] == values["engine_pages", "used", ""] == 1
    assert values["engine_slots", "free", ""] == 2
    assert values["engine_kv_positions", "used", ""] == 8
    assert values["engine_kv_positions", "capacity", ""] == 24 * 8
    assert values["engine_forwards", "_total"] == values["engine_step_seconds", "forward", "_count"] == 1
    page, _ = expose([sample.labelled(model="m", replica="r") for sample in samples])
    assert b'lacuna_engine_forward_positions_sum{model="m",replica="r"} 8.0' in page
