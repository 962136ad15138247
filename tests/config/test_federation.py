"""`[federation]`: what closes a round by the clock, and where no clock runs."""

from pathlib import Path
from typing import Any

import pytest

from fl_inmetro.config import load, to_toml
from fl_inmetro.config.federation import Federation
from fl_inmetro.errors import ConfigError
from fl_inmetro.experiment import settings_of
from fl_inmetro.plan import Job
from tests.fleets import tiny_config


def refused(**tables: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        tiny_config(**tables)
    (fault,) = caught.value.faults
    assert fault.code == "FL102"
    return fault.what


@pytest.mark.parametrize("engine", ["loop", "cohort"])
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"over_selection": 1.3}, "`over-selection`"),
        ({"deadline_s": 60.0}, "`deadline-s`"),
        ({"over_selection": 2, "deadline_s": 60.0}, "`over-selection` and `deadline-s`"),
    ],
)
def test_in_one_process_nobody_is_slow(engine, settings, named):
    said = refused(engine=engine, federation=settings)
    assert f"{named}: rounds close by the clock" in said
    assert 'engine = "flower"' in said
    assert tiny_config(engine="flower", federation=settings).federation.by_the_clock


def test_virtual_time_has_its_own():
    said = refused(federation={"deadline_s": 60.0}, virtual_time={"enabled": True})
    assert "`deadline-s`: virtual time has its own, in `[virtual_time]`" in said


def test_a_strategy_of_ones_own_waits_as_it_likes():
    said = refused(
        engine="flower",
        federation={"over_selection": 1.5},
        strategy={"name": "some.module:Strategy"},
    )
    assert "decides itself whom it asks" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quorum": 2.5}, "neither a share"),
        ({"quorum": 0}, "greater than 0"),
        ({"over_selection": 0.9}, "greater than or equal to 1"),
        ({"deadline_s": 61.0, "timeout_s": 60.0}, "after `timeout-s` 60"),
        ({"deadline_s": float("inf")}, "finite"),
    ],
)
def test_what_cannot_be(settings, said):
    assert said in refused(engine="flower", federation=settings)


def test_a_quorum_is_for_every_engine():
    assert tiny_config(federation={"quorum": 0.9}).federation.quorum == 0.9
    assert Federation(quorum=1).quorum == 1
    assert not Federation(quorum=3).by_the_clock


def test_it_comes_back_from_a_file(tmp_path: Path):
    config = tiny_config(
        engine="flower", federation={"over_selection": 1.3, "deadline_s": 60.0, "quorum": 5}
    )
    file = tmp_path / "run.toml"
    file.write_text(to_toml(config), encoding="utf-8")
    assert load(file, []) == config


def test_a_federation_of_one_waits_for_nobody():
    config = tiny_config(
        engine="flower", federation={"over_selection": 1.3, "deadline_s": 60.0, "quorum": 5}
    )
    alone = settings_of(Job("mlp", "local"), config).federation
    assert (alone.quorum, alone.over_selection, alone.deadline_s) == (None, 1.0, None)
    assert settings_of(Job("mlp", "federated"), config).federation == config.federation


def test_a_strategy_says_how_its_clients_step_and_not_those_that_train_alone():
    own = {"eta_l": 0.25, "optimizer": "adam", "batch_size": 32}
    of_strategy = {"eta_l": 0.5, "optimizer_l": "sgd", "batch_size_l": 4}
    config = tiny_config(models={"mlp": own}, strategy=of_strategy)
    for training, wanted in (("federated", (0.5, "sgd", 4)), ("local", (0.25, "adam", 32))):
        mlp = settings_of(Job("mlp", training), config).models.mlp
        assert (mlp.eta_l, mlp.optimizer, mlp.batch_size) == wanted
    plain = settings_of(Job("mlp", "federated"), tiny_config(models={"mlp": own})).models.mlp
    assert plain.batch_size == 32


def test_patience_and_keeping_the_last_do_not_go_together():
    with pytest.raises(ValueError, match="patience"):
        Federation(patience=3, keep="last")
