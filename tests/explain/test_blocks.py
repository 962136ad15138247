"""The parts of an input: every column has its place, and a block moves whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fl_inmetro.config.models import Models
from fl_inmetro.data.features import GROUPS, feature_names
from fl_inmetro.explain.blocks import GROUP_OF, Block, base_of, blocks_of, moved
from fl_inmetro.learning.table import learner
from tests.fleets import series, windows

WEEK = {"context_h": 168}


def of(name: str, by: str, **settings):
    models = Models.model_validate({name: settings})
    one = learner(name, models)
    seen = windows(series(days=40), [30, 31, 32])
    design = one.design(seen, targets=False)
    return one, design, {block.name: block.columns for block in blocks_of(one, seen, by)}


@pytest.mark.parametrize("by", ["group", "feature"])
@pytest.mark.parametrize(
    ("name", "settings", "clock"),
    [
        ("ridge", {}, 0),
        ("mlp", {}, 0),
        ("gru", WEEK, 0),
        ("nlinear", WEEK, 0),
        ("tide", WEEK, 0),
        ("tsmixer", {"context_h": 60}, 0),
        ("cyclenet", WEEK, 1),
    ],
)
def test_every_column_is_in_one_block(name, settings, clock, by):
    """The place in CycleNet's cycle is a clock, and in none."""
    _, design, blocks = of(name, by, **settings)
    columns = np.concatenate(list(blocks.values()))
    assert sorted(columns.tolist()) == list(range(design.x.shape[-1] - clock))


def test_rows_are_cut_by_group_or_by_feature():
    one, _, groups = of("mlp", "group")
    names = feature_names(one.settings.features)
    assert list(groups) == ["profile", *(g for g in GROUPS if g in one.settings.features)]
    assert [names[k] for k in groups["lags"]] == [f"lag_{day}d" for day in range(1, 15)]
    _, _, features = of("mlp", "feature")
    assert list(features) == ["profile", *names]
    assert {GROUP_OF[name] for name in names} == set(one.settings.features)


def test_a_context_is_cut_into_days():
    """168 steps, oldest first: the last day stands at 144 … 167, a week before it at 0 … 23."""
    _, _, parts = of("gru", "group", **WEEK)
    assert list(parts) == [
        "profile",
        "past_day_1",
        "past_day_2",
        "past_same_weekday",
        "past_older",
    ]
    assert parts["past_day_1"].tolist() == list(range(144, 168))
    assert parts["past_day_2"].tolist() == list(range(120, 144))
    assert parts["past_same_weekday"].tolist() == list(range(24))
    _, _, days = of("gru", "feature", context_h=60)
    assert [len(c) for c in days.values()] == [0, 24, 24, 12]
    # Two days and a half do not reach back to the same weekday.
    _, _, short = of("gru", "group", context_h=60)
    assert list(short) == ["profile", "past_day_1", "past_day_2", "past_older"]


def test_with_a_lead_the_same_weekday_is_that_of_the_delivery():
    """Issued at 06:00 for the day that begins 18 h later: a week before it lies 150 … 127 back."""
    one = learner("gru", Models.model_validate({"gru": WEEK}))
    seen = replace(windows(series(days=40), [30]), lead=18)
    blocks = {block.name: block.columns for block in blocks_of(one, seen, "group")}
    assert blocks["past_same_weekday"].tolist() == list(range(18, 42))


def test_the_rows_of_the_horizon_belong_together():
    one, design, blocks = of("tide", "group", **WEEK)
    names = feature_names(one.settings.features)
    place = 168 + 5 * len(names) + names.index("lead")
    assert place in blocks["calendar"]
    assert len(blocks["calendar"]) == 24 * len(GROUPS["calendar"])
    # 5 h into the day the lead is 5/23.
    assert design.x[0, place] == pytest.approx(5 / 23)


@pytest.mark.parametrize(
    ("name", "settings", "base"),
    [
        ("mlp", {}, "profile"),
        ("ridge", {}, "profile"),
        ("nlinear", {}, "last_reading"),
        ("mlp", {"loss": "hurdle", "levels": [0.5]}, None),
    ],
)
def test_the_base_has_the_name_of_what_it_is(name, settings, base):
    assert base_of(learner(name, Models.model_validate({name: settings}))) == base


def test_a_window_takes_a_whole_block_of_another():
    _, design, blocks = of("ridge", "group")
    order = np.array([2, 0, 1])
    other = moved(design, Block("lags", blocks["lags"]), order)
    for n in range(3):
        for k in range(design.x.shape[2]):
            source = order[n] if k in blocks["lags"] else n
            np.testing.assert_array_equal(other.x[n, :, k], design.x[source, :, k])
    np.testing.assert_array_equal(other.base, design.base)
    base = moved(design, Block("profile"), order)
    np.testing.assert_array_equal(base.base, design.base[order])
    np.testing.assert_array_equal(base.x, design.x)
