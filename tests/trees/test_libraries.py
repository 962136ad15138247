"""Ensembles in other libraries' formats, and Flower's bagging on regression."""

import json
import warnings

import numpy as np
import pytest

from fl_inmetro.errors import DataError
from fl_inmetro.trees.boost import Settings, bagged, boosted, random_forest
from fl_inmetro.trees.forest import Ensemble
from fl_inmetro.trees.grow import Growth
from fl_inmetro.trees.libraries import load, save, to_lightgbm, to_xgboost
from tests.trees.test_boost import made, same


def ensembles() -> dict[str, Ensemble]:
    x, y = made(1500)
    parts = np.array_split(np.arange(1500), 3)
    clients = [(f"c{i}", x[part], y[part]) for i, part in enumerate(parts)]
    growth = Growth(depth=5)
    constant = boosted([("a", x[:3] * 0, y[:3])], Settings(trees=2)).ensemble
    return {
        "boosted": boosted(clients, Settings(trees=15, growth=growth)).ensemble,
        "bagged": bagged(clients, Settings(trees=4, growth=growth)).ensemble,
        "forest": random_forest(clients, Settings(trees=6, growth=growth)).ensemble,
        "constant": constant,
    }


ENSEMBLES = ensembles()


@pytest.mark.parametrize("name", ENSEMBLES)
def test_xgboost_predicts_the_same(name, tmp_path):
    xgboost = pytest.importorskip("xgboost")
    x, _ = made(800, seed=5)
    path = tmp_path / "model.json"
    path.write_text(to_xgboost(ENSEMBLES[name]))
    booster = xgboost.Booster(model_file=str(path))
    assert np.allclose(booster.predict(xgboost.DMatrix(x)), ENSEMBLES[name].predict(x), atol=1e-5)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_lightgbm_predicts_the_same(name):
    lightgbm = pytest.importorskip("lightgbm")
    x, _ = made(800, seed=5)
    booster = lightgbm.Booster(model_str=to_lightgbm(ENSEMBLES[name]))
    # LightGBM compares doubles; ours are rounded to single precision first.
    x = x.astype(np.float32).astype(np.float64)
    assert np.allclose(booster.predict(x), ENSEMBLES[name].predict(x), atol=1e-9)


def test_values_on_an_edge_go_the_same_way(tmp_path):
    xgboost = pytest.importorskip("xgboost")
    lightgbm = pytest.importorskip("lightgbm")
    ensemble = ENSEMBLES["boosted"]
    x = np.tile(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 6.0]), (40, 1))
    x[:, 0] = ensemble.edges[0][:40]
    ours = ensemble.predict(x)
    assert len(np.unique(ours)) > 5
    (tmp_path / "m.json").write_text(to_xgboost(ensemble))
    booster = xgboost.Booster(model_file=str(tmp_path / "m.json"))
    assert np.allclose(booster.predict(xgboost.DMatrix(x)), ours, atol=1e-5)
    assert np.allclose(lightgbm.Booster(model_str=to_lightgbm(ensemble)).predict(x), ours)


def test_our_own_file_is_read_back_to_the_last_bit(tmp_path):
    save(ENSEMBLES["boosted"], tmp_path / "trees.json")
    again = load(tmp_path / "trees.json")
    assert same(again, ENSEMBLES["boosted"])
    x, _ = made(100, seed=9)
    assert np.array_equal(again.predict(x), ENSEMBLES["boosted"].predict(x))
    content = json.loads((tmp_path / "trees.json").read_text())
    (tmp_path / "trees.json").write_text(json.dumps(content | {"format": 99}))
    for broken in (tmp_path / "trees.json", tmp_path / "nothing.json"):
        with pytest.raises(DataError, match="FL230"):
            load(broken)


def rounds_of_flower(x: np.ndarray, y: np.ndarray, clients: int, rounds: int) -> list[float]:
    """Errors after each round of Flower's own bagging: each client boosts the global model by one
    tree on its rows, and `aggregate_bagging` adds all of these as they are."""
    import xgboost
    from flwr.serverapp.strategy.strategy_utils import aggregate_bagging

    settings = {"tree_method": "hist", "eta": 0.3, "max_depth": 4, "nthread": 1}
    parts = np.array_split(np.random.default_rng(0).permutation(len(y)), clients)
    model: bytes = b""
    errors = []
    for _ in range(rounds):
        sent = model
        for part in parts:
            data = xgboost.DMatrix(x[part], y[part])
            booster = xgboost.Booster(settings, [data])
            if sent:
                booster.load_model(bytearray(sent))
                booster.set_param(settings)
                booster.update(data, booster.num_boosted_rounds())
                trees = booster.num_boosted_rounds()
                own = booster[trees - 1 : trees]
            else:
                own = xgboost.train(settings, data, 1)
            raw = bytes(own.save_raw("json"))
            model = aggregate_bagging(model, raw)
        whole = xgboost.Booster()
        whole.load_model(bytearray(model))
        predicted = whole.predict(xgboost.DMatrix(x))
        errors.append(float(np.sqrt(np.mean((predicted - y) ** 2))))
    return errors


@pytest.mark.parametrize("clients", [2, 4, 8, 16, 64])
def test_flower_s_bagging_diverges_on_regression_and_ours_does_not(clients):
    pytest.importorskip("xgboost")
    x, y = made(1920)
    y = 100 + 30 * y
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = rounds_of_flower(x, y, clients, 4 if clients > 16 else 8)
    parts = np.array_split(np.random.default_rng(0).permutation(len(y)), clients)
    mine = [(f"c{i}", x[part], y[part]) for i, part in enumerate(parts)]
    growth = Growth(depth=4)
    settings = Settings(trees=8, rate=0.3, growth=growth)
    ours, sums = (train(mine, settings).ensemble.predict(x) for train in (bagged, boosted))
    ours, sums = (float(np.sqrt(np.mean((told - y) ** 2))) for told in (ours, sums))
    spread = float(np.std(y))
    assert ours < 0.6 * spread
    assert sums < 0.6 * spread
    # Each tree enters at the full rate: the residual is multiplied by about 1 − rate·clients, and
    # grows from eight clients on (0.3·8 > 2).
    if clients >= 8:
        assert theirs[-1] > 2 * theirs[2]
        assert theirs[-1] > 3 * spread
    else:
        assert theirs[-1] < spread
