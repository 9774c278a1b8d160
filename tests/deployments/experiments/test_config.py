"""deployments/experiments/config.py: what is refused, and what a revision depends on."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.config import AppConfig
from deployments.experiments.config import check_arms
from engine.errors import ConfigError, UnknownStrategyError
from tests.deployments.experiments.records import experiment

ARMS = [{"name": "a"}, {"name": "b", "strategy": "fast"}]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arms": [{"name": "a"}]}, "at least 2"),
        ({"arms": [{"name": "a"}, {"name": "a"}]}, "every name may occur once"),
        ({"arms": [{"name": "a"}, {"name": "b", "weight": 0}]}, "weight of 'b' must be above 0"),
        ({"arms": [{"name": "a"}, {"name": "b", "weight": -1}]}, "greater than or equal to 0"),
        ({"arms": [{"name": "a"}, {"name": "b", "weight": float("inf")}]}, "finite"),
        ({"arms": [{"name": "a"}, {"name": "b c"}]}, "arms.1.name"),
        ({"arms": [{"name": "a"}, {"name": "b", "strateggy": {}}]}, "unknown 'strateggy'"),
        ({"control": "c"}, "there is no arm 'c'"),
        ({"shadow": "c"}, "there is no arm 'c'"),
        ({"shadow": "a"}, "control arm cannot be the shadow"),
        ({"share": 0}, "share"),
        ({"metric": "speed"}, "unknown measure 'speed'"),
        ({"alpha": 0.5}, "alpha"),
        ({"name": "../x"}, "name"),
        ({"model": "gpt"}, "'gpt', which is not served"),
        ({"traffic": 1}, "unknown 'traffic'"),
    ],
)
def test_wrong_settings_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AppConfig.parse({"experiments": [{"name": "x", "arms": ARMS} | fields]})
    assert message in str(caught.value)


def test_a_wrong_ledger_is_named_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"ledger: The ledger must be sqlite.*mysql://ann:\*\*\*@x/y"):
        AppConfig.parse({"experiments": [{"name": "x", "arms": ARMS}], "ledger": "mysql://ann:secret@x/y"})


def test_a_ledger_in_the_environment_need_not_be_there_where_the_application_is_deployed_from() -> None:
    config = AppConfig.parse({"experiments": [{"name": "x", "arms": ARMS}], "ledger": "env:LACUNA_ABSENT"})
    assert config.ledger == "env:LACUNA_ABSENT"


def test_names_of_experiments_differ() -> None:
    with pytest.raises(ConfigError, match="every name may occur once, got x, x"):
        AppConfig.parse({"experiments": [{"name": "x", "arms": ARMS}] * 2})


def test_a_text_is_a_presets_name_unless_it_is_json() -> None:
    arms = experiment(arms=[{"name": "a", "strategy": "fast"}, {"name": "b", "strategy": '{"decoder": "x"}'}]).arms
    assert [arm.strategy for arm in arms] == [{"preset": "fast"}, {"decoder": "x"}]


def test_the_command_line_may_give_json() -> None:
    config = AppConfig.parse({"experiments": '[{"name": "x", "arms": [{"name": "a"}, {"name": "b"}]}]'})
    assert config.experiments_of(config.default_model_id) == config.experiments
    assert config.experiments_of("lacuna-tiny-llada") == []


def test_only_the_shadow_may_have_no_users() -> None:
    config = experiment(arms=[{"name": "a"}, {"name": "b", "weight": 0}], shadow="b")
    assert config.control_arm.name == "a"


def test_a_revision_is_what_outcomes_may_be_pooled_under() -> None:
    base = experiment()
    assert base.revision == experiment(alpha=0.01, metric="tpf", min_samples=50, exclude_users=["x"]).revision
    others = [
        experiment(share=0.5),
        experiment(salt="s"),
        experiment(arms=[{"name": "a", "weight": 2}, base.arms[1]]),
        experiment(arms=[{"name": "a", "strategy": "fast"}, base.arms[1]]),
    ]
    assert len({base.revision, *(other.revision for other in others)}) == 5


def test_an_arm_that_the_engine_refuses_is_named() -> None:
    def parse(options: Any) -> None:
        if options:
            raise UnknownStrategyError("unknown option 'threshold'", "threshold")

    with pytest.raises(ConfigError, match="Experiment 'speed', arm 'b': unknown option 'threshold'"):
        check_arms([experiment()], parse)
