"""The account of a run: planned before it begins, noted before a release leaves, kept apart."""

import math
from dataclasses import replace

import pytest

from fl_inmetro.config.privacy import Privacy
from fl_inmetro.errors import BudgetError, PrivacyError
from fl_inmetro.federation.spending import Account
from fl_inmetro.privacy.accountant import account, epsilon_rdp
from fl_inmetro.privacy.ledger import Owner, ledger_path, read_ledger
from fl_inmetro.privacy.mechanism import Gaussian
from fl_inmetro.privacy.release import digest_of, spending

KEY = "mlp-federated-g0000"


class Kept:
    """What would stand in the run directory."""

    def __init__(self):
        self.record = None

    def __call__(self, record):
        self.record = {**record, "models": dict(record["models"])}


def opened(folder, kept=None, run="r1", **settings):
    kept = kept or Kept()
    given = {"protect": "client", "epsilon": 4.0, "ledger": str(folder), **settings}
    notes = []
    one = Account(Privacy(**given), run, "north", kept, kept.record, notes.append)
    return one, kept, notes


def begun(group, rounds=10, fraction=0.5, windows=(100, 100), most_steps=0, here=()):
    if group.protect == "client":
        kinds = group.of_clients(rounds, fraction)
    else:
        named = {f"c{place}": count for place, count in enumerate(windows)}
        kinds = group.of_windows(rounds, named, 10, 1, most_steps)
    return group.begin(kinds, rounds, None, here)


def bits(number: int) -> str:
    return digest_of([bytes([number])])


def test_clients_are_drawn_in_rounds_and_the_run_ends_at_its_epsilon(tmp_path):
    one, kept, notes = opened(tmp_path)
    group = one.group(KEY)
    plan = begun(group)
    assert (plan.update.sampling_rate, plan.update.times) == (0.5, 10)
    assert plan.update.sampling == "poisson"
    event = Gaussian(plan.update.noise_multiplier, 0.5)
    spent = [0.0]
    for number in range(1, 11):
        group.note(number, "update", event, 1.0, bits(number))
        spent.append(group.spent())
    assert spent == sorted(spent)
    assert spent[-1] <= 4.0
    assert spent[-1] == pytest.approx(account(plan.events, 1e-5).epsilon)
    with pytest.raises(BudgetError, match="FL422"):
        group.note(11, "update", event, 1.0, bits(11))
    entries = read_ledger(tmp_path / "north" / "federation.ledger").entries
    assert [e.release.round for e in entries] == list(range(1, 11))
    assert entries[-1].account[0]["epsilon"] <= 4.0
    assert kept.record["models"][KEY]["epsilon"] == pytest.approx(spent[-1])
    assert "each client is protected" in notes[0].text


def test_everybody_in_each_round_is_no_draw(tmp_path):
    plan = begun(opened(tmp_path)[0].group(KEY), fraction=1.0)
    assert plan.update.sampling == "all"


def test_who_has_few_windows_decides_the_noise(tmp_path):
    # Batches of 10: of 100 windows a tenth in each of 10 steps, of 20 windows a half in 2 steps.
    one, _, _ = opened(tmp_path, protect="window")
    short = begun(one.group(KEY), windows=(100, 20, 0))
    long = begun(one.group(KEY), windows=(100,))
    assert (short.update.sampling_rate, short.update.times) == (0.5, 20)
    assert (long.update.sampling_rate, long.update.times) == (0.1, 100)
    z = short.update.noise_multiplier
    assert account((Gaussian(z, 0.1, 100),), 1e-5).epsilon <= 4.0
    assert z > long.update.noise_multiplier


def test_steps_that_are_cut_cost_less(tmp_path):
    one, _, _ = opened(tmp_path, protect="window")
    assert begun(one.group(KEY), most_steps=3).update.times == 30


def test_a_day_counts_as_its_windows(tmp_path):
    one, _, _ = opened(tmp_path, protect="client-day")
    day = begun(one.group(KEY, group=5))
    assert day.update.group == 5
    other, _, _ = opened(tmp_path, protect="window", run="r2")
    window = begun(other.group(KEY))
    assert window.update.group == 1
    assert day.update.noise_multiplier > 2 * window.update.noise_multiplier


def test_the_budget_of_all_runs_is_held_before_one_begins(tmp_path):
    one, _, _ = opened(tmp_path, budget=5.0)
    group = one.group(KEY)
    plan = begun(group, rounds=2, fraction=1.0)
    for number in (1, 2):
        event = Gaussian(plan.update.noise_multiplier, 1.0, 1, "all")
        group.note(number, "update", event, 1.0, bits(number))
    second, _, _ = opened(tmp_path, run="r2", budget=5.0)
    with pytest.raises(BudgetError, match="FL422") as caught:
        begun(second.group(KEY), rounds=2, fraction=1.0)
    # Two runs of two rounds each are four rounds.
    z = plan.update.noise_multiplier
    together = account((Gaussian(z, 1.0, 4, "all"),), 1e-5).epsilon
    assert f"to {together:.4g}" in str(caught.value)
    # The very run that has spent it goes on: what it spends again is the same.
    again, _, _ = opened(tmp_path, budget=5.0)
    assert begun(again.group(KEY), rounds=2, fraction=1.0) == plan


def test_a_resumed_run_pays_nothing_twice_and_draws_the_same(tmp_path):
    one, kept, _ = opened(tmp_path)
    group = one.group(KEY)
    plan = begun(group)
    event = Gaussian(plan.update.noise_multiplier, 0.5)
    group.note(1, "update", event, 1.0, bits(1))
    again, _, _ = opened(tmp_path, kept)
    resumed = again.group(KEY)
    begun(resumed)
    assert resumed.secret == group.secret
    before = resumed.spent()
    resumed.note(1, "update", event, 1.0, bits(1))
    assert resumed.spent() == before
    resumed.note(1, "update", event, 1.0, bits(7))  # other bits of the same round pay
    assert resumed.spent() > before


def test_a_run_without_its_ledger_does_not_go_on(tmp_path):
    one, kept, _ = opened(tmp_path)
    group = one.group(KEY)
    plan = begun(group)
    group.note(1, "update", Gaussian(plan.update.noise_multiplier, 0.5), 1.0, bits(1))
    for file in (tmp_path / "north").glob("federation.ledger*"):
        file.unlink()
    with pytest.raises(PrivacyError, match="FL416"):
        opened(tmp_path, kept)


def test_the_secret_goes_when_the_run_is_done(tmp_path):
    one, _, _ = opened(tmp_path)
    (path,) = (tmp_path / "north" / "secrets").iterdir()
    assert one.secret.key == path.read_bytes()
    one.close()
    assert not path.exists()


def test_without_an_epsilon_the_noise_stands_and_is_counted(tmp_path):
    one, kept, _ = opened(tmp_path, epsilon=None, noise_multiplier=2.0, scaler_share=0.05)
    group = one.group(KEY)
    plan = begun(group, fraction=1.0)
    assert plan.update.noise_multiplier == 2.0
    assert group.scaler() == Gaussian(2.0, 1.0, 1, "all")
    # Ten Gaussians of z = 2 are one of z = 2/sqrt(10).
    single = account((Gaussian(2 / math.sqrt(10), 1.0, 1, "all"),), 1e-5).epsilon
    assert kept.record["models"][KEY]["epsilon"] == pytest.approx(single)
    for number in range(1, 13):  # no limit was given: all is written down
        group.note(number, "update", Gaussian(2.0, 1.0, 1, "all"), 1.0, bits(number))
    assert group.spent() > single


def test_each_client_has_an_account_of_its_own(tmp_path):
    # Batches of 10: 100 windows are drawn by a tenth, 20 by a half, and of none nothing leaves.
    one, kept, _ = opened(tmp_path, protect="window")
    plan = begun(one.group(KEY), windows=(100, 20, 0))
    told = kept.record["models"][KEY]["clients"]
    z = plan.update.noise_multiplier
    assert told["c0"] == epsilon_rdp((Gaussian(z, 0.1, 100),), 1e-5)
    assert told["c1"] == min(
        kept.record["models"][KEY]["epsilon"], epsilon_rdp((Gaussian(z, 0.5, 20),), 1e-5)
    )
    assert set(told) == {"c0", "c1"}
    assert told["c0"] < told["c1"] <= 4.0
    # Where all spend the same nobody is listed.
    again, kept, _ = opened(tmp_path, protect="window", run="r2")
    begun(again.group(KEY), windows=(100, 100))
    assert kept.record["models"][KEY]["clients"] == {}


@pytest.mark.parametrize("protect", ["client", "window"])
def test_simulated_clients_keep_ledgers_when_they_are_asked_to(protect, tmp_path):
    one, kept, _ = opened(tmp_path, protect=protect, client_ledgers=True)
    group = one.group(KEY)
    plan = begun(group, rounds=2, windows=(100, 20), here=("c0", "c1"))
    event = replace(plan.update, times=plan.update.times // 2)
    for number in (1, 2, 2):  # the second is repeated with the same bits: it is paid
        group.note(number, "update", event, 1.0, bits(number))
    for name, count in (("c0", 100), ("c1", 20)):
        path = ledger_path(tmp_path / "north", Owner("north", name))
        releases = [entry.release for entry in read_ledger(path).entries]
        assert [one.round for one in releases] == [1, 2]
        own = event if protect == "client" else Gaussian(event.noise_multiplier, 10 / count)
        (spent,) = spending(releases)
        steps = 1 if protect == "client" else count // 10
        assert spent == replace(own, times=2 * steps)
    # A run that goes on finds what its clients have paid.
    again, _, _ = opened(tmp_path, kept, protect=protect, client_ledgers=True)
    group = again.group(KEY)
    begun(group, rounds=2, windows=(100, 20), here=("c0", "c1"))
    group.note(2, "update", event, 1.0, bits(2))
    assert len(read_ledger(path).entries) == 2


def test_without_being_asked_nobody_keeps_one_here(tmp_path):
    one, _, _ = opened(tmp_path)
    group = one.group(KEY)
    event = replace(begun(group, here=("c0",)).update, times=1)
    group.note(1, "update", event, 1.0, bits(1))
    assert not (tmp_path / "north" / "clients").exists()


@pytest.mark.parametrize(
    "given", [{"epsilon": 8.0}, {"epsilon": None, "noise_multiplier": 60.0}], ids=str
)
def test_with_groups_the_client_that_spends_most_is_found(given, tmp_path):
    """By RDP, whose draws of a group are a plain bound, long histories would seem to spend more."""
    one, kept, _ = opened(tmp_path, protect="client-day", **given)
    group = one.group(KEY, group=30)
    named = {"short": 50, "long": 400}
    kinds = group.of_windows(20, named, 32, 1, 0)
    plan = group.begin(kinds, 20, None)
    z = plan.update.noise_multiplier
    # Batches of 32: of 50 windows .64 in 2 steps a round, of 400 windows .08 in 13.
    short, long = (
        account((Gaussian(z, rate, 20 * steps, "poisson", 30, "replace"),), 1e-5).epsilon
        for rate, steps in ((0.64, 2), (0.08, 13))
    )
    assert short > 2 * long
    assert kept.record["models"][KEY]["epsilon"] == short
    assert plan.update.sampling_rate == 0.64
    if given["epsilon"]:
        assert 7.9 < short <= 8.0


def test_a_day_is_replaced_and_says_so_in_the_ledger(tmp_path):
    one, _, _ = opened(tmp_path, protect="client-day")
    group = one.group(KEY, group=5)
    plan = begun(group, rounds=2, windows=(10, 10))
    assert (plan.update.relation, plan.update.sampling) == ("replace", "all")
    event = replace(plan.update, times=1)
    for number in (1, 2):
        group.note(number, "update", event, 1.0, bits(number))
    (first, _) = read_ledger(tmp_path / "north" / "federation.ledger").entries
    assert (first.release.relation, first.release.group) == ("replace", 5)
    # Five windows move each of two sums by 2 C: as one record under a tenth of the noise.
    z = plan.update.noise_multiplier
    assert group.spent() == pytest.approx(account((Gaussian(z / 10, 1, 2, "all"),), 1e-5).epsilon)
