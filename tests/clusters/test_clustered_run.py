"""`training = "clustered"`: shops and homes are told apart, and their models serve them."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from fl_inmetro import events, session
from fl_inmetro.clustered import Clustering, check_clusters, check_sizes, part_clients
from fl_inmetro.config import check
from fl_inmetro.config.clusters import Clusters
from fl_inmetro.config.schema import Window
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.windows import Windows
from fl_inmetro.errors import ConfigError, FlInmetroError
from fl_inmetro.federation.grids import Interrupted
from fl_inmetro.learning.client import ClientData
from fl_inmetro.learning.profile import profile_release
from fl_inmetro.plan import prepare
from fl_inmetro.report.clusters import Parted, mean_days, parted, told
from fl_inmetro.report.html import render
from fl_inmetro.runs import weights
from fl_inmetro.runs.record import RunRecord
from fl_inmetro.seeds import derive
from fl_inmetro.trained import ClusteredModel, trained_model
from tests.fleets import MONDAY, clients_of, federated

IFCA = {"kind": "ifca", "number": 2}


def ignore(event: events.Event) -> None:
    del event


def never() -> bool:
    return False


def fleet(clients=8, days=60, **tables):
    simulator = {"clients": clients, "days": days, "commercial_share": 0.5, "pv_share": 0.0}
    return check(
        {
            "data": {"source": "simulator", "simulator": simulator},
            "window": {"test_days": 7, "validation_days": 7},
            "federation": {"num_server_rounds": 2},
            "models": {"mlp": {"hidden": [8]}},
            "training": "clustered",
            "clusters": {"number": 2},
            **tables,
        }
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    found = {}
    for kind in ("profile", "ifca"):
        config = fleet(clusters={"kind": kind, "number": 2})
        root = tmp_path_factory.mktemp(kind)
        found[kind] = RunRecord.open(session.start(config, "run", root, ignore, never))
    return found


def clustering(record):
    arrays, meta = weights.load(record.path, "mlp-clustered-clusters")
    return Clustering.unpacked(arrays, meta)


def planted(shops=5, homes=7):
    """Clients that open from 8 to 18 on working days, and clients that come home at 18."""
    made, truth = [], []
    for k in range(shops + homes):
        is_shop = k % 2 == 0 and k < 2 * shops
        rng = derive(3, "planted", k)
        steps = np.arange(40 * 24)
        hour, weekday = steps % 24, steps // 24 % 7
        open_ = (hour >= 8) & (hour < 18) & (weekday < 5)
        shape = np.where(open_, 3.0, 0.3) if is_shop else np.where(hour >= 18, 2.0, 0.5)
        level_kwh = 10.0 ** rng.uniform(-1, 2)  # the size of a client says nothing of its kind
        energy_kwh = level_kwh * shape * rng.uniform(0.6, 1.4, len(steps))
        made.append(ClientSeries(f"c{k:02d}", MONDAY, 3600, energy_kwh))
        truth.append(int(is_shop))
    return made, truth


@pytest.mark.parametrize("number", [2, "auto"])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_planted_clusters_are_found(number, noise):
    made, truth = planted()
    how = Window(test_days=5, validation_days=5)
    held = {one.client_id: one for one in clients_of(federated(made), how)[0]}
    settings = Clusters(number=number, noise=noise)
    found = part_clients(settings, held, 0, ignore)
    assert found.number == 2
    assert adjusted_rand_score(truth, found.labels) == 1.0
    assert found.bytes_up == 12 * 72 * 8
    assert sorted(found.silhouettes) == ([2] if number == 2 else [2, 3, 4, 5, 6])


def test_the_simulators_shops_and_homes():
    """Nineteen of twenty are told apart; sim-shop-013 uses its energy at the hours of a home."""
    prepared = prepare(fleet(20, 90))
    found = part_clients(Clusters(number=2), prepared.clients, 0, ignore)
    with_shops = {name for name, k in found.of.items() if k == 1}
    shops = {name for name in found.clients if name.startswith("sim-shop")}
    assert len(shops) == 10
    assert shops - with_shops == {"sim-shop-013"}
    assert with_shops <= shops


def test_a_client_without_readings_joins_the_most():
    made, _ = planted()
    made[0] = replace(made[0], energy_kwh=np.full_like(made[0].energy_kwh, np.nan))
    held = {
        name: ClientData(name, (train,), (), ())
        for name, train in (
            (one.client_id, Windows(one, np.arange(24 * 10, 24 * 20, 24), 24)) for one in made
        )
    }
    said = []
    found = part_clients(Clusters(number=2), held, 0, said.append)
    assert "c00 has no profile" in said[0].text
    assert found.of["c00"] == int(found.sizes.argmax()) == 0
    assert found.bytes_up == 11 * 72 * 8


def test_what_is_kept_of_clusters_comes_back(ran):
    for kind, record in ran.items():
        found = clustering(record)
        again = Clustering.unpacked(*found.packed())
        assert again.of == found.of, kind
        assert again.release == found.release
        assert found.release.sensitivity == 2 * 16.0
        assert len(found.of) == 8


@pytest.mark.parametrize("kind", ["profile", "ifca"])
def test_a_trained_model_is_that_of_the_cluster(ran, kind):
    """Its forecasts are those that the run kept, for every client."""
    record = ran[kind]
    model = trained_model(record)
    assert isinstance(model, ClusteredModel)
    assert len(model.models) == 2
    prepared = prepare(record.config)
    kept = record.forecasts(model="mlp", training="clustered").to_pandas()
    for name, client in prepared.clients.items():
        made = model.forecast(name, client.test[0])
        own = kept[kept.client_id == name].sort_values(["issue_time_utc", "target_time_utc"])
        assert np.allclose(made.mean_kwh.ravel(), own["mean"], rtol=1e-5, atol=1e-7), name


@pytest.mark.parametrize("kind", ["profile", "ifca"])
def test_a_new_client_joins_by_its_profile(ran, kind):
    record = ran[kind]
    model, prepared = trained_model(record), prepare(record.config)
    joined = {}
    for name, client in prepared.clients.items():
        windows = client.test[0]
        series = replace(windows.series, client_id="new")
        made = model.forecast("new", replace(windows, series=series))
        by_cluster = [
            model.learner.forecast(state, model.learner.design(windows, targets=False)).mean_kwh
            for state in model.models
        ]
        joined[name] = [k for k, own in enumerate(by_cluster) if np.allclose(made.mean_kwh, own)]
    # The weeks before the test look like those of the training: nearly all find their own again.
    expected = clustering(record).of
    if kind == "profile":
        assert joined == {name: [k] for name, k in expected.items()}
    assert all(len(found) == 1 for found in joined.values())


def test_a_new_client_of_a_few_days_joins_the_largest(ran):
    record = ran["profile"]
    found = clustering(record)
    prepared = prepare(record.config)
    small = int(found.sizes.argmin())
    name = found.members()[small][0]
    whole = prepared.clients[name].test[0]
    first = int(whole.issue_utc_s[0])
    zone = whole.timezone
    assert found.nearest(whole.series, first, zone) == small
    assert found.nearest(whole.series.cut(first - 7 * 86400), first, zone) == small
    largest = int(found.sizes.argmax())
    assert found.nearest(whole.series.cut(first - 6 * 86400), first, zone) == largest
    # Nothing after the issue is looked at.
    ahead = whole.series.energy_kwh.copy()
    ahead[whole.issue_index[0] :] = 1e9
    assert found.nearest(replace(whole.series, energy_kwh=ahead), first, zone) == small


@pytest.mark.parametrize("clusters", [{"number": 2}, IFCA], ids=["profile", "ifca"])
def test_a_stopped_run_ends_in_the_same_clusters_and_scores(tmp_path, clusters):
    config = fleet(6, 50, clusters=clusters, federation={"num_server_rounds": 4})
    whole = RunRecord.open(session.start(config, "run", tmp_path / "a", ignore, never))
    rounds = []

    def seen(event):
        if isinstance(event, events.RoundFinished):
            rounds.append(event.round)

    with pytest.raises(Interrupted):
        session.start(config, "run", tmp_path / "b", seen, lambda: len(rounds) >= 3)
    path = session.find_unfinished(config, "run", tmp_path / "b")
    resumed = RunRecord.open(session.resume(path, ignore, never))
    files = sorted(p.stem for p in (whole.path / "weights").glob("mlp-clustered-g*"))
    assert files
    for key in (*files, "mlp-clustered-clusters"):
        (one, _), (other, _) = (weights.load(r.path, key) for r in (whole, resumed))
        assert one.keys() == other.keys()
        assert all(one[name].tobytes() == other[name].tobytes() for name in one), key


@pytest.mark.parametrize(
    ("tables", "named"),
    [
        ({"strategy": {"name": "scaffold"}}, "`scaffold`"),
        ({"strategy": {"name": "feddyn"}}, "`feddyn`"),
        ({"model": "ridge"}, "closed form"),
        ({"models": {"mlp": {"private": ["layers.2.*"]}}}, "private"),
        ({"diagnostics": {"heterogeneity": True}}, "heterogeneity"),
        ({"virtual_time": {"enabled": True}}, "virtual_time"),
    ],
)
def test_what_clients_cannot_choose_among_is_fl118(tables, named):
    config = fleet(clusters=IFCA, **tables)
    with pytest.raises(ConfigError, match="FL118") as raised:
        check_clusters(config, config.model)
    assert named in str(raised.value)
    check_clusters(fleet(**tables), config.model)  # clusters of profiles


@pytest.mark.parametrize(
    ("tables", "code"),
    [
        ({"clusters": IFCA, "strategy": {"name": "scaffold"}}, "FL118"),
        ({"clusters": {"number": 6}, "federation": {"min_clients": 3}}, "FL365"),
        ({"clusters": {"number": 4}, "strategy": {"rule": "krum", "byzantine": 1}}, "FL365"),
    ],
)
def test_clusters_that_cannot_be_trained_are_refused_before_anything_is(tmp_path, tables, code):
    said = []
    config = fleet(8, compare={"models": ["sn24", "mlp"], "training": ["clustered"]}, **tables)
    with pytest.raises(FlInmetroError, match=code):
        session.start(config, "compare", tmp_path, said.append, never)
    assert not [one for one in said if isinstance(one, events.RunStarted | events.ModelScored)]


def test_clusters_that_are_large_enough_pass():
    # Four and four: rounds of two replies and a median go; eight clients in one cluster bear krum.
    for tables in (
        {"clusters": {"number": 2}, "federation": {"min_clients": 2}},
        {"clusters": {"number": 1}, "strategy": {"rule": "krum", "byzantine": 1}},
    ):
        config = fleet(8, **tables)
        check_sizes(config, ["mlp"], prepare(config).clients)


def test_fewer_clients_than_clusters_is_fl119(tmp_path):
    with pytest.raises(ConfigError, match="FL119"):
        session.start(fleet(3, clusters={"number": 4}), "run", tmp_path, ignore, never)


def test_flowers_engine_refuses(tmp_path):
    with pytest.raises(ConfigError, match="FL306"):
        session.start_on_flower(fleet(engine="flower"), "run", tmp_path, ignore)


def test_auto_counts_profiles_only():
    with pytest.raises(ValueError, match="perturbed models are as many"):
        Clusters(kind="ifca", start="perturbed")


def test_personalised_on_top_of_clusters(tmp_path):
    config = fleet(
        training="personalised",
        personalisation={"components": ["federated", "clustered"]},
    )
    record = RunRecord.open(session.start(config, "run", tmp_path, ignore, never))
    scores = {row["training"]: row for row in record.scores() if row["model"] == "mlp"}
    assert list(scores) == ["federated", "clustered", "personalised"]
    assert scores["personalised"]["bytes"] == sum(
        scores[name]["bytes"] for name in ("federated", "clustered")
    )
    both = [record.forecasts(model="mlp", training=name).to_pandas() for name in scores]
    mean = (both[0]["mean"] + both[1]["mean"]) / 2
    assert np.allclose(both[2]["mean"], mean, rtol=1e-9)
    windows = prepare(config).clients["sim-home-002"].test[0]
    made = trained_model(record, training="personalised").forecast("sim-home-002", windows)
    own = both[2][both[2].client_id == "sim-home-002"]["mean"]
    assert np.allclose(made.mean_kwh.ravel(), own, rtol=1e-5)


@pytest.mark.parametrize("lang", ["en", "pt-BR"])
def test_the_report_says_who_is_where(ran, lang):
    for kind, record in ran.items():
        page = render(record, lang)
        found = clustering(record)
        for members in found.members():
            assert ", ".join(members) in page, kind
        assert page.count("fig-clusters-0") >= 1
        (one,) = parted(record)
        drawn = mean_days(one, lang)
        inside = [k for k in range(2) if (found.labels == k).any()]
        assert len(drawn.data) == len(inside)
        for line, k in zip(drawn.data, inside, strict=True):
            assert np.allclose(line.y, found.centres[k])
        assert one.changed.size == (2 if kind == "ifca" else 0)


def test_settled_is_the_last_round_that_moved_anybody():
    made = [np.array(changed) for changed in ([0, 3, 1, 0, 0], [0, 0], [])]
    ones = [Parted("mlp", (), np.zeros(0, int), 2, np.zeros((0, 72)), {}, None, m) for m in made]
    assert [one.settled for one in ones] == [3, 0, 0]
    assert all(one.has_settled for one in ones)


@pytest.mark.parametrize(
    ("lang", "settled", "unsettled", "simulated"),
    [
        ("en", "Nobody took another model after round 2", "had not settled", "is simulated"),
        ("pt-BR", "outro modelo depois da rodada 2", "não se acomodaram", "é simulado"),
    ],
)
def test_a_move_in_the_last_round_of_all_is_not_settled(lang, settled, unsettled, simulated):
    release = profile_release(16.0, 0.5).to_json()
    made = [np.array(changed) for changed in ([3, 1, 0], [3, 0, 1])]
    ones = [Parted("mlp", (), np.zeros(0, int), 2, np.zeros((0, 72)), {}, release, m) for m in made]
    calm, moving = (told(one, lang) for one in ones)
    assert [one.has_settled for one in ones] == [True, False]
    assert settled in calm
    assert unsettled not in calm
    assert unsettled in moving
    assert settled not in moving
    assert simulated in calm  # the noise protects nobody who knows the seed
    plain = replace(ones[0], release=profile_release(16.0, 0.0).to_json())
    assert simulated not in told(plain, lang)


@pytest.mark.parametrize("clusters", [{"number": 2}, IFCA], ids=["profile", "ifca"])
def test_clusters_begin_anew_where_others_begin_from_earlier_models(tmp_path, ran, clusters):
    said = []
    config = ran["ifca" if "kind" in clusters else "profile"].config

    def starts(job, name):
        raise AssertionError(f"{job} asked for a model of {name}")

    session.start(config, "run", tmp_path, said.append, never, starts=starts)
    assert any("begins anew" in one.text for one in said if isinstance(one, events.Note))
