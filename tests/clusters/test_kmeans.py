"""k-means, silhouettes and profiles: by hand, and beside scikit-learn."""

import tracemalloc

import numpy as np
import pytest
from sklearn.cluster import KMeans as PeerKMeans
from sklearn.metrics import adjusted_rand_score, silhouette_score

from fl_inmetro.federation.kmeans import best_kmeans, kmeans, nearest, silhouette, silhouettes
from fl_inmetro.learning.profile import WIDTH, mean_day, profile_release, released
from fl_inmetro.seeds import derive

SPAN = (1_700_000_000, 1_710_000_000)


def blobs(sizes=(12, 7, 5), spread=0.4, width=6):
    rng = derive(4, "blobs")
    centres = rng.normal(0, 3, (len(sizes), width))
    truth = np.repeat(np.arange(len(sizes)), sizes)
    return centres[truth] + rng.normal(0, spread, (len(truth), width)), truth


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_no_worse_than_the_peer(number):
    vectors, _ = blobs(spread=2.0)
    ours = kmeans(vectors, number, seed=3, restarts=50)
    peer = PeerKMeans(number, n_init=50, random_state=0).fit(vectors)
    assert ours.inertia == pytest.approx(peer.inertia_, rel=1e-9)
    assert adjusted_rand_score(peer.labels_, ours.labels) == 1.0


def test_the_silhouette_is_the_peers():
    vectors, _ = blobs(spread=2.0)
    labels = kmeans(vectors, 4, seed=1).labels
    assert silhouette(vectors, labels) == pytest.approx(silhouette_score(vectors, labels))


def test_thousands_of_vectors_need_little_memory():
    # All differences of 3,000 vectors of 72 numbers would be 5.2 GB, all distances 72 MB.
    vectors = derive(0, "many").normal(size=(3000, WIDTH))
    vectors[:1200, 5] += 3.0
    partitions = [np.arange(3000) % k for k in (2, 5)] + [(np.arange(3000) >= 1200).astype(int)]
    tracemalloc.start()
    try:
        found = silhouettes(vectors, partitions)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 16e6
    for labels, own in zip(partitions, found, strict=True):
        assert own == pytest.approx(silhouette_score(vectors, labels), rel=1e-9, abs=1e-12)


def test_a_silhouette_by_hand():
    # 0 and 1 in one cluster, 4 alone. Of 0: a = 1, b = 4, (4 - 1)/4. Of 1: a = 1, b = 3, 2/3.
    # Of 4: 0, for it is alone.
    vectors = np.array([[0.0], [1.0], [4.0]])
    assert silhouette(vectors, np.array([0, 0, 1])) == pytest.approx((3 / 4 + 2 / 3 + 0) / 3)


def test_clusters_by_hand():
    # {0, 1} and {9, 10, 11}: centres 0.5 and 10, inertia 2 · 0.25 + 1 + 0 + 1. The largest first.
    found = kmeans(np.array([[0.0], [1.0], [9.0], [10.0], [11.0]]), 2, seed=0)
    assert found.centres.ravel().tolist() == [10.0, 0.5]
    assert found.labels.tolist() == [1, 1, 0, 0, 0]
    assert found.inertia == pytest.approx(2.5)


def test_the_number_is_found():
    vectors, truth = blobs()
    found, tried = best_kmeans(vectors, 6, seed=0)
    assert sorted(tried) == [2, 3, 4, 5, 6]
    assert max(tried, key=tried.get) == 3
    assert adjusted_rand_score(truth, found.labels) == 1.0


def test_doubles_still_make_clusters_that_nobody_is_missing_from():
    found = kmeans(np.ones((4, 2)), 3, seed=0)
    assert sorted(np.bincount(found.labels, minlength=3)) == [1, 1, 2]
    assert best_kmeans(np.ones((2, 2)), 5, seed=0)[0].labels.tolist() == [0, 0]


def test_more_clusters_than_vectors_are_refused():
    with pytest.raises(ValueError, match="2 vectors cannot make 3 clusters"):
        kmeans(np.ones((2, 2)), 3, seed=0)


def test_the_same_seed_gives_the_same_bits():
    vectors, _ = blobs(spread=3.0)
    one, other = (kmeans(vectors, 3, seed=9, restarts=2) for _ in range(2))
    assert one.centres.tobytes() == other.centres.tobytes()
    assert nearest(vectors, one.centres).tolist() == one.labels.tolist()


# ------------------------------------------------------------------------------- profiles
def test_a_mean_day_by_hand():
    # Two working days at 08:00 use 2 and 4, at 09:00 1; Saturday 08:00 uses 6; nothing on Sunday,
    # nothing at other hours. Working day: 3 and 1. Saturday 6, and at 09:00 the hour's mean, 1.
    # Sunday takes the hours' means: (2 + 4 + 6)/3 = 4, and 1. All else is the mean of all readings,
    # (2 + 4 + 1 + 6)/4 = 3.25. The sum is 3 + 1 + 6 + 1 + 4 + 1 + 66 · 3.25 = 230.5.
    energy = np.array([2.0, 4.0, 1.0, 6.0, np.nan])
    day_type = np.array([0, 0, 0, 1, 2])
    second = np.array([8, 8, 9, 8, 8]) * 3600
    days = mean_day(energy, day_type, second).reshape(3, 24) * (230.5 / 72)
    assert days[:, 8] == pytest.approx([3.0, 6.0, 4.0])
    assert days[:, 9] == pytest.approx([1.0, 1.0, 1.0])
    assert days[:, 10] == pytest.approx([3.25, 3.25, 3.25])


def test_without_use_there_is_no_profile():
    where = np.zeros(3, np.int64)
    assert mean_day(np.full(3, np.nan), where, where) is None
    assert mean_day(np.zeros(3), where, where) is None


def test_what_leaves_is_clipped_and_noised_once():
    profile = np.full(WIDTH, 1.0)  # its norm is √72 = 8.49
    assert np.array_equal(released(profile, 9.0, 0.0, 0, "a", SPAN), profile)
    assert np.linalg.norm(released(profile, 2.0, 0.0, 0, "a", SPAN)) == pytest.approx(2.0)
    noised = released(profile, 2.0, 0.5, 0, "a", SPAN)
    assert np.array_equal(noised, released(profile, 2.0, 0.5, 0, "a", SPAN))
    assert not np.array_equal(noised, released(profile, 2.0, 0.5, 0, "b", SPAN))
    # Two spans of days, as two folds of a backtest: the difference of both is noised, too.
    later = released(profile, 2.0, 0.5, 0, "a", (SPAN[0], SPAN[1] + 86400))
    assert np.std(later - noised) == pytest.approx(0.5 * np.sqrt(2), rel=0.3)
    many = [released(profile, 2.0, 0.5, 0, f"m{k}", SPAN) for k in range(200)]
    # 14,400 draws: the standard error of a deviation of 0.5 is 0.5/√28,800 = 0.003.
    assert np.std(np.array(many) - 2.0 / np.sqrt(WIDTH)) == pytest.approx(0.5, abs=0.015)


def test_a_release_says_what_an_accountant_needs():
    # Two vectors of norm at most 2 are at most 4 apart; 6 of noise is 1.5 times that.
    release = profile_release(clip=2.0, noise=6.0)
    assert (release.sensitivity, release.noise_multiplier, release.times) == (4.0, 1.5, 1)
    assert release.to_json()["simulated"] is True
