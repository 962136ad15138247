"""Reconcilers against numbers derived by hand and against the dense formula of the paper."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_inmetro.hierarchy import METHODS, Calibration, Hierarchy, hierarchy_of, reconciled
from fl_inmetro.hierarchy.mint import (
    by_mint,
    client_adjustment,
    moments,
    node_inverse,
    shrinkage,
)
from fl_inmetro.hierarchy.passes import by_passes, node_adjustments
from fl_inmetro.seeds import derive

#: A total over two clients.
PAIR = hierarchy_of({"a": (), "b": ()}, ())


def summing_matrix(tree: Hierarchy) -> np.ndarray:
    """S with the nodes first: from the clients' ancestors, one by one."""
    a, m = len(tree.nodes), len(tree.leaves)
    matrix = np.zeros((a + m, m))
    for i in range(m):
        matrix[a + i, i] = 1
        for v in tree.ancestors(int(tree.leaf_parent[i])):
            matrix[v, i] = 1
    return matrix


def dense_gain(matrix: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """G = (Sᵀ W⁻¹ S)⁻¹ Sᵀ W⁻¹, Wickramasuriya et al. (2019), eq. 8."""
    inverse = np.linalg.inv(covariance)
    return np.linalg.solve(matrix.T @ inverse @ matrix, matrix.T @ inverse)


def plain_shrunk(errors: np.ndarray) -> tuple[np.ndarray, float]:
    """Schäfer and Strimmer's estimate, pair by pair."""
    steps, n = errors.shape
    covariance = errors.T @ errors / steps
    x = errors / np.sqrt(np.diag(covariance))
    variances = squares = 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                product = x[:, i] * x[:, j]
                r = product.mean()
                variances += ((product - r) ** 2).sum() / (steps * (steps - 1))
                squares += r**2
    weight = min(1.0, max(0.0, variances / squares))
    return weight * np.diag(np.diag(covariance)) + (1 - weight) * covariance, weight


@st.composite
def trees(draw: st.DrawFn) -> Hierarchy:
    """Up to 12 clients, in none, one or two levels of groups; some hang higher than others."""
    m = draw(st.integers(1, 12))
    regions = [draw(st.sampled_from([None, "n", "s"])) for _ in range(3)]
    groups = {}
    for i in range(m):
        feeder = draw(st.sampled_from([None, 0, 1, 2]))
        region = draw(st.sampled_from([None, "n", "s"])) if feeder is None else regions[feeder]
        groups[f"c{i:02d}"] = (None if feeder is None else f"f{feeder}", region)
    return hierarchy_of(groups, ("feeder", "region"))


def case(tree: Hierarchy, seed: int, steps: int = 40, n: int = 5) -> tuple:
    rng = derive(seed, "hierarchy")
    a, m = len(tree.nodes), len(tree.leaves)
    leaf, node = rng.uniform(1, 5, (n, m)), rng.uniform(2, 20, (n, a))
    common = rng.normal(0, 0.3, (steps, 1))
    leaf_errors = rng.normal(0, 0.5, (steps, m)) + common
    node_errors = rng.normal(0, 0.8, (steps, a)) + common
    past = Calibration(leaf_errors, node_errors, rng.uniform(1, 5, m))
    return leaf, node, past


# ------------------------------------------------------------------------------ by hand
def test_two_clients_by_hand():
    leaf, node = np.array([[40.0, 50.0]]), np.array([[99.0]])
    # The total is 9 above the sum. Ordinary least squares gives a third of it to each series:
    # the clients go up by 3, the total comes down by 3.
    ones = np.ones(2), np.ones(1)
    np.testing.assert_allclose(by_passes(PAIR, leaf, node, *ones), [[43, 53]])
    # Structural: the total's variance is 2, the sum's 2; they meet in the middle, 4.5 for two.
    past = Calibration(np.ones((2, 2)), np.ones((2, 1)), np.ones(2))
    made, _ = reconciled("wls-struct", PAIR, leaf, node, past)
    np.testing.assert_allclose(made, [[42.25, 52.25]])
    # Variances 1 and 3 of the clients, 5 of the total: 9/(1 + 3 + 5) = 1 per unit of variance.
    made = by_passes(PAIR, leaf, node, np.array([1.0, 3.0]), np.array([5.0]))
    np.testing.assert_allclose(made, [[41, 53]])
    # A total that is certain is met, one that knows nothing changes nothing.
    certain = by_passes(PAIR, leaf, node, np.array([1.0, 2.0]), np.array([0.0]))
    np.testing.assert_allclose(certain, [[43, 56]])
    made = by_passes(PAIR, leaf, node, np.zeros(2), np.array([1.0]))
    np.testing.assert_allclose(made, leaf)


def test_top_down_by_hand():
    tree = hierarchy_of({"a": ("f",), "b": ("f",), "c": (None,)}, ("feeder",))
    leaf, node = np.array([[1.0, 3.0, 5.0]]), np.array([[30.0, 10.0]])  # total, feeder f
    past = Calibration(np.ones((2, 3)), np.ones((2, 2)), np.array([1.0, 1.0, 2.0]))
    made, _ = reconciled("top-down", tree, leaf, node, past)
    np.testing.assert_allclose(made, [[7.5, 7.5, 15]])
    # 30 for f and c as 10 to 5: 20 and 10; the 20 for a and b as 1 to 3: 5 and 15.
    made, _ = reconciled("top-down-forecasts", tree, leaf, node, past)
    np.testing.assert_allclose(made, [[5, 15, 10]])
    # Where the children's forecasts are all zero they get equal parts.
    made, _ = reconciled("top-down-forecasts", tree, 0 * leaf, node * [1, 0], past)
    np.testing.assert_allclose(made, [[7.5, 7.5, 15]])


def test_mint_of_two_clients_by_hand():
    # Errors of variance 1, 1 and covariance 0.5 of the clients, 2 of the total, uncorrelated.
    a = np.array([1, 1, 1, 1, 1, 1, 1, 1.0])
    b = np.array([1, 1, 1, 1, 1, 1, -1, -1.0])
    t = np.sqrt(2) * np.array([1, -1, 1, -1, 1, -1, 0, 0]) * np.sqrt(8 / 6)
    assert [a @ b, a @ t, b @ t] == pytest.approx([4, 0, 0])
    gap = (t - a - b)[:, None]
    # With λ = ½ the covariance of a and b is 0.25, the variance of their sum 2.5, that of the
    # incoherence 2 + 2.5 = 4.5; a's covariance with the sum is 1.25. Of a gap of 9 it gets 2.5.
    inverse = node_inverse(PAIR, np.array([2.0]), np.array([2.0]), gap, 0.5)
    assert inverse == pytest.approx(1 / 4.5)
    numbers = np.array([[9.0]]) @ inverse
    assert client_adjustment([0], a, gap, numbers, 0.5) == pytest.approx(2.5)
    assert client_adjustment([0], b, gap, numbers, 0.5) == pytest.approx(2.5)


def test_shrinkage_by_hand():
    # r = 4/8; Var(r) = (8 − 16/8)/(8·7) = 6/56; λ = (6/56)/(1/4) = 3/7.
    x = np.ones(8)
    y = np.array([1, 1, 1, 1, 1, 1, -1, -1.0])
    assert shrinkage(moments(np.stack([x, 5 * y], axis=1))) == pytest.approx(3 / 7)
    # Sums of two sets of clients are those of all.
    assert shrinkage(moments(x[:, None]) + moments(y[:, None])) == pytest.approx(3 / 7)
    # Orthogonal errors, a single series, a series without errors.
    z = np.array([1, -1, 1, -1, 1, -1, 1, -1.0])
    assert shrinkage(moments(np.stack([x, z], axis=1))) == 1
    assert shrinkage(moments(x[:, None])) == 1
    assert shrinkage(moments(np.stack([x, 0 * x, y], axis=1))) == pytest.approx(3 / 7)


# ------------------------------------------------------------------- against the formulas
@settings(max_examples=60, deadline=None)
@given(trees(), st.integers(0, 10_000))
def test_passes_are_the_dense_formula(tree, seed):
    rng = derive(seed, "variances")
    leaf, node, _ = case(tree, seed)
    leaf_var, node_var = rng.uniform(0.1, 3, len(tree.leaves)), rng.uniform(0.1, 9, len(tree.nodes))
    matrix = summing_matrix(tree)
    gain = dense_gain(matrix, np.diag(np.concatenate([node_var, leaf_var])))
    expected = np.concatenate([node, leaf], axis=1) @ gain.T
    made = by_passes(tree, leaf, node, leaf_var, node_var)
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(trees(), st.integers(0, 10_000))
def test_sums_over_clients_give_mint(tree, seed):
    leaf, node, past = case(tree, seed)
    covariance, weight = plain_shrunk(
        np.concatenate([past.node_errors_kwh, past.leaf_errors_kwh], axis=1)
    )
    expected = np.concatenate([node, leaf], axis=1) @ dense_gain(summing_matrix(tree), covariance).T
    made, found = by_mint(tree, leaf, node, past.leaf_errors_kwh, past.node_errors_kwh)
    assert found == pytest.approx(weight, abs=1e-9)
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-8)


@settings(max_examples=40, deadline=None)
@given(trees(), st.integers(0, 10_000))
def test_what_adds_up_stays_and_all_adds_up_after(tree, seed):
    leaf, node, past = case(tree, seed)
    matrix = summing_matrix(tree)
    a = len(tree.nodes)
    np.testing.assert_allclose(tree.sums(leaf), leaf @ matrix[:a].T)
    np.testing.assert_allclose(tree.spread(node), node @ matrix[:a])
    for method in METHODS:
        made, _ = reconciled(method, tree, leaf, node, past)
        # Each node is the sum of all its children, be they nodes or clients.
        whole = tree.sums(made)
        children = tree.direct_sums(made)
        for v in range(1, a):
            children[:, tree.parent[v]] += whole[:, v]
        np.testing.assert_allclose(children, whole)
        if method != "top-down":  # the one that is not unbiased: its shares are not the forecasts'
            # S G S = S: forecasts that add up are left as they are.
            again, _ = reconciled(method, tree, made, whole, past)
            np.testing.assert_allclose(again, made, atol=1e-9)


def test_a_node_needs_only_sums_of_its_clients():
    # Clients of one feeder that exchange forecast and variance tell the server the same.
    tree = hierarchy_of({"a": ("f",), "b": ("f",), "c": ("g",)}, ("feeder",))
    leaf, node, _ = case(tree, 3)
    var = np.array([1.0, 2.0, 3.0])
    other = leaf[:, [1, 0, 2]] + np.array([0.5, -0.5, 0])
    own = np.array([4.0, 2.0, 1.0])
    units = [
        node_adjustments(tree, tree.direct_sums(x), tree.direct_sums(v), node, own)
        for x, v in ((leaf, var), (other, var[[1, 0, 2]]))
    ]
    np.testing.assert_allclose(*units)
    # And a client's adjustment is its variance times its feeder's number.
    made = by_passes(tree, leaf, node, var, own)
    np.testing.assert_allclose(made - leaf, var * units[0][:, tree.leaf_parent])


def test_ten_thousand_clients_need_no_dense_matrix():
    """S alone would take 10,101 × 10,000 × 8 bytes = 808 MB."""
    import tracemalloc

    m = 10_000
    groups = {f"c{i:05d}": (f"f{i // 100:03d}",) for i in range(m)}
    tree = hierarchy_of(groups, ("feeder",))
    leaf, node, past = case(tree, 1, steps=30, n=3)
    tracemalloc.start()
    for method in METHODS:
        made, _ = reconciled(method, tree, leaf, node, past)
        assert np.isfinite(made).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def test_a_method_that_does_not_exist():
    leaf, node, past = case(PAIR, 1)
    with pytest.raises(ValueError, match="no method `magic`"):
        reconciled("magic", PAIR, leaf, node, past)
