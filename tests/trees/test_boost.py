"""Federated trees are the trees of the pooled rows, and those of the libraries on the same bins."""

import numpy as np
import pytest

from fl_inmetro.trees.boost import Settings, agree, bagged, boosted, leaf_quantiles, random_forest
from fl_inmetro.trees.edges import agreed_edges, binned, counts, edges_of, first_edges, missing_bin
from fl_inmetro.trees.forest import importance
from fl_inmetro.trees.grow import Growth, best_split
from fl_inmetro.trees.rows import STEP, Loss, Rows


def made(n: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Six features, one of hours, one with values missing; a curved target with noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6))
    x[:, 5] = rng.integers(0, 24, n)
    x[rng.random(n) < 0.15, 2] = np.nan
    y = np.sin(2 * x[:, 0]) + 0.5 * np.nan_to_num(x[:, 2], nan=1.5) ** 2 + 0.1 * x[:, 5]
    return x, y + 0.1 * rng.normal(size=n) + 3


def dealt(x: np.ndarray, y: np.ndarray, clients: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Rows dealt unevenly and sorted, so that no client is like another; one has none."""
    order = np.argsort(x[:, 0])
    cuts = np.sort(np.random.default_rng(clients).choice(len(y), clients - 1, replace=False))
    parts = [*np.split(order, cuts), order[:0]]
    return [(f"c{i}", x[part], y[part]) for i, part in enumerate(parts)]


def same(a, b) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for one, other in zip(a.trees, b.trees, strict=True)
        for name in ("feature", "bin", "missing_left", "left", "count", "value")
    )


@pytest.mark.parametrize("clients", [2, 8, 64])
@pytest.mark.parametrize("loss", [Loss(), Loss(0.5), Loss(0.9)])
def test_federated_trees_are_those_of_the_pool_to_the_last_bit(clients, loss):
    x, y = made(1500)
    settings = Settings(trees=8, bins=32, growth=Growth(depth=5, least_rows=5), loss=loss)
    pool = boosted([("all", x, y)], settings).ensemble
    federated = boosted(dealt(x, y, clients), settings).ensemble
    assert all(np.array_equal(a, b) for a, b in zip(pool.edges, federated.edges, strict=True))
    assert same(pool, federated)
    assert pool.base == federated.base
    assert np.array_equal(pool.predict(x), federated.predict(x))


def test_boosting_is_xgboost_s_on_the_same_bins():
    """XGBoost is given the bins as numbers, so that its cuts are ours; missing values are NaN."""
    xgboost = pytest.importorskip("xgboost")
    x, y = made(4000)
    growth = Growth(depth=4, l2=1.5, gamma=0.02, least_rows=10)
    ours = boosted([("all", x, y)], Settings(trees=20, rate=0.3, bins=64, growth=growth)).ensemble
    bins = binned(x, ours.edges).astype(np.float32)
    bins[bins == missing_bin(ours.edges)] = np.nan
    theirs = xgboost.train(
        {
            "tree_method": "hist", "max_bin": 256, "eta": 0.3, "max_depth": 4, "lambda": 1.5,
            # Half of XGBoost's loss change is the formula's gain.
            "gamma": 0.04, "min_child_weight": 10, "base_score": ours.base, "nthread": 1,
        },
        xgboost.DMatrix(bins, y),
        20,
    )  # fmt: skip
    assert np.allclose(theirs.predict(xgboost.DMatrix(bins)), ours.predict(x), atol=2e-5)


def test_a_split_by_hand():
    """Four rows, residuals −1, −1, 1, 1, edge between: G = ∓2, H = 2; λ = 0: ½(2 + 2) = 2."""
    x = np.array([[0.0], [0.0], [1.0], [1.0]])
    rows = Rows.of(x, np.array([-1.0, -1.0, 1.0, 1.0]), [np.array([0.5])], Loss())
    rows.begin(1.0, 1.0, 0, 0, bootstrap=False)
    (sums,) = rows.histogram([0])
    assert (sums[0, :, 0] * STEP).tolist() == [2.0, -2.0, 0.0]
    assert sums[0, :, 1].tolist() == [2, 2, 0]
    split = best_split(sums, np.array([1]), 1.0, Growth(l2=0.0), np.array([True]))
    assert (split.gain, split.feature, split.bin) == (2.0, 0, 1)
    # With λ = 1 each side gives 4/3, the node nothing: ½·8/3. γ is taken off.
    split = best_split(sums, np.array([1]), 1.0, Growth(l2=1.0, gamma=0.5), np.array([True]))
    assert split.gain == pytest.approx(4 / 3 - 0.5)
    assert best_split(sums, np.array([1]), 1.0, Growth(least_rows=3), np.array([True])) is None


def test_missing_values_go_where_they_do_best():
    x = np.array([[0.0], [0.0], [1.0], [1.0], [np.nan], [np.nan]])
    for value, left in ((-1.0, True), (1.0, False)):
        y = np.array([-1.0, -1.0, 1.0, 1.0, value, value])
        settings = Settings(trees=1, rate=1.0, growth=Growth(depth=1, l2=0.0))
        ensemble = boosted([("a", x, y)], settings).ensemble
        assert bool(ensemble.trees[0].missing_left[0]) is left
        assert np.allclose(ensemble.predict(x), y)


def test_best_leaves_first():
    x, y = made()
    for leaves in (2, 5, 9):
        settings = Settings(trees=2, growth=Growth(depth=6, leaves=leaves))
        ensemble = boosted([("all", x, y)], settings).ensemble
        assert [tree.leaves for tree in ensemble.trees] == [leaves, leaves]


def test_quantiles_hold_their_share():
    x, y = made(6000)
    new_x, new_y = made(3000, seed=1)
    for level in (0.1, 0.5, 0.9):
        settings = Settings(trees=60, loss=Loss(level), growth=Growth(depth=4, least_rows=20))
        predicted = boosted(dealt(x, y, 4), settings).ensemble.predict(new_x)
        assert np.mean(new_y <= predicted) == pytest.approx(level, abs=0.06)


def test_leaf_quantiles_by_hand():
    """Cells of width 1, counts 1, 2, 1: the median is at rank 2, half way through the second."""
    x = np.zeros((1, 1))
    tree = boosted([("a", x, np.zeros(1))], Settings(trees=1)).ensemble.trees[0]
    borders = np.array([0.0, 1.0, 2.0, 3.0])
    assert leaf_quantiles(tree, np.array([[1, 2, 1]]), borders, 0.5)[0] == pytest.approx(1.5)
    assert leaf_quantiles(tree, np.array([[1, 2, 1]]), borders, 0.25)[0] == pytest.approx(1.0)


def test_edges_are_quantiles_whoever_holds_the_rows():
    rng = np.random.default_rng(2)
    x = np.column_stack([np.exp(3 * rng.normal(size=4000)), rng.integers(0, 5, 4000)])
    edges, _ = edges_of([x[:1000], x[1000:1001], x[1001:]], 16)
    exact = np.quantile(x[:, 0], np.arange(1, 16) / 16)
    below = np.array([np.mean(x[:, 0] < edge) for edge in edges[0]])
    assert len(edges[0]) == 15
    assert np.allclose(below, np.arange(1, 16) / 16, atol=0.005)
    assert np.allclose(edges[0], exact, rtol=0.02)
    # Few values have a bin each.
    assert np.array_equal(np.digitize([0, 1, 2, 3, 4], edges[1]), [0, 1, 2, 3, 4])


def test_counts_and_bins_by_hand():
    borders = np.array([0.0, 1.0, 2.0, 3.0])
    found = counts(np.array([[0.5], [1.0], [2.5], [9.0], [-4.0], [np.nan]]), borders)
    assert found.tolist() == [[2, 1, 2]]
    edges = agreed_edges([np.array([2, 0, 3])], [borders], 8)
    assert edges[0].tolist() == [1.5]
    bins = binned(np.array([[1.4], [1.5], [np.nan]]), edges)
    assert bins[:, 0].tolist() == [0, 1, 2]
    assert len(first_edges()) == 2049


def test_a_constant_or_empty_feature_is_never_split_on():
    x, y = made(500)
    x = np.column_stack([x, np.full(500, 7.0), np.full(500, np.nan)])
    ensemble = boosted([("all", x, y)], Settings(trees=5)).ensemble
    assert len(ensemble.edges[6]) == len(ensemble.edges[7]) == 0
    assert {6, 7}.isdisjoint({int(f) for tree in ensemble.trees for f in tree.feature})
    shares = importance(ensemble, [*"abcdefgh"])
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["a"] > shares["b"]


def test_draws_of_rows_and_columns_are_the_clients_own():
    x, y = made(2000)
    settings = Settings(trees=6, rows=0.5, growth=Growth(depth=4, columns=0.5))
    clients = dealt(x, y, 3)
    first, again = (boosted(clients, settings).ensemble for _ in range(2))
    assert same(first, again)
    assert not same(first, boosted(clients, Settings(**{**vars(settings), "seed": 1})).ensemble)
    # About half of the rows grow a tree; a tree splits on three of the six features.
    assert all(0.42 < tree.count[0] / 2000 < 0.58 for tree in first.trees)
    assert all(len(set(tree.feature[tree.feature >= 0])) <= 3 for tree in first.trees)


def test_the_histogram_is_a_plain_loop():
    x, y = made(200)
    edges, _ = agree([("a", x, y)], 8)
    rows = Rows.of(x, y, edges, Loss())
    rows.begin(4.0, 1.0, 0, 0, bootstrap=True)
    (found,) = rows.histogram([0])
    expected = np.zeros_like(found)
    for i in range(200):
        drawn = rows._count[i]
        gradient = round(-y[i] / (4.0 * STEP)) * drawn
        for feature in range(6):
            expected[feature, rows.bins[i, feature]] += (gradient, drawn)
    assert np.array_equal(found, expected)


def test_a_forest_of_sums_is_near_scikit_learn_s():
    ensemble = pytest.importorskip("sklearn.ensemble")
    x, y = made(4000)
    new_x, new_y = made(2000, seed=1)
    growth = Growth(depth=10, columns=0.7, by_node=True)
    settings = Settings(trees=12, bins=128, growth=growth)
    theirs = ensemble.RandomForestRegressor(12, max_depth=10, max_features=0.7, random_state=0)
    error = np.sqrt(np.mean((theirs.fit(x, y).predict(new_x) - new_y) ** 2))
    for of_sums in (True, False):
        # Clients that are alike: each knows enough for trees of its own.
        parts = np.array_split(np.random.default_rng(0).permutation(4000), 4)
        clients = [(f"c{i}", x[part], y[part]) for i, part in enumerate(parts)]
        ours = random_forest(clients, settings, of_sums=of_sums).ensemble
        found = np.sqrt(np.mean((ours.predict(new_x) - new_y) ** 2))
        assert found < (1.15 if of_sums else 1.6) * error
        assert sum(ours.weights) == pytest.approx(1)


@pytest.mark.parametrize("clients", [2, 8, 64])
def test_bagging_converges_however_many_clients(clients):
    x, y = made(2000)
    parts = np.array_split(np.random.default_rng(0).permutation(2000), clients)
    mine = [(f"c{i}", x[part], y[part]) for i, part in enumerate(parts)]
    errors = []
    # A round of 64 clients is 64 trees, each added to the rows of all.
    for trees in (1, 3, 6) if clients < 64 else (1, 2, 3):
        ensemble = bagged(mine, Settings(trees=trees, rate=0.3)).ensemble
        errors.append(float(np.sqrt(np.mean((ensemble.predict(x) - y) ** 2))))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.8 * np.std(y)


def test_one_client_s_bagging_is_boosting():
    x, y = made(800)
    settings = Settings(trees=5, bins=32)
    clients = [("only", x, y)]
    assert same(bagged(clients, settings).ensemble, boosted(clients, settings).ensemble)
