"""What attacks found, in words: verdicts by hand, missing figures, names that are hostile."""

import pytest

from fl_inmetro.leakage.results import Detection, Leakage, Reconstruction
from fl_inmetro.report.leakage import columns, notes, sentences, subject, verdict
from fl_inmetro.report.leakage_page import render


def rebuilt(nrmse, population=0.2, flat=0.4, attack="gradient", client="m1", windows=9):
    return Reconstruction(attack, client, windows, nrmse, 0.1, population, 0.3, flat)


def found(reconstructions=(), detections=(), **more):
    given = {
        "run": "r1", "model": "mlp", "training": "federated", "protect": "client",
        "epsilon": 7.9912, "seen": "update_in_sum", "recovered": "profile", "clients": 12,
        "attacked": 2, "seed": 1, "simulated": True, "notes": ("errors", "few-negatives"),
        "left_out": {"inversion": "not-asked"},
    }  # fmt: skip
    return Leakage(
        **(given | more), reconstructions=tuple(reconstructions), detections=tuple(detections)
    ).to_json()


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ([0.10], "works"),  # half of the better guess, 0.2
        ([0.11], "little"),
        ([0.19], "fails"),  # 0.95 of it
        ([0.01, 0.15, 0.9], "little"),  # the median is 0.75
        ([0.01, 0.02, 0.9], "works"),
        ([float("nan")], "fails"),
    ],
)
def test_verdicts_by_hand(errors, said):
    rows = found([rebuilt(error) for error in errors])["reconstructions"]
    assert verdict(rows) == said


def test_a_flat_guess_counts_where_it_is_better():
    # 0.3 is below 0.5, the mean of the others, and above the flat guess.
    [row] = found([rebuilt(0.3, population=0.5, flat=0.25)])["reconstructions"]
    assert not row["works"]
    assert verdict([row]) == "fails"


def test_one_sentence_for_each_attack_and_number_of_windows():
    one = found(
        [
            rebuilt(0.02, client="m1"),
            rebuilt(0.04, client="m2", windows=70),
            *(rebuilt(0.3, attack="inversion", windows=n) for n in (1, 2)),
        ],
        [
            Detection("property", "vehicle", 0.9, 0.5, 0.01, 0.8, 1.0, 6, 9, 0.6, 0.8, 0.002),
            Detection("client-membership", "never", 0.5, 0.0, 0.01, 0.3, 0.7, 6, 6, 0.5),
        ],
    )
    ratio, single, pair, vehicle, never, missing = sentences(one, "en")
    assert "error of 3.0\xa0% (median; meters: 2)" in ratio
    assert ratio.endswith("who guesses a flat load by 40.0\xa0%: the update gives it away.")
    assert "over windows (1 of them)" in single
    assert "over windows (2 of them)" in pair
    assert "no more than that" in pair
    assert "“has an electric vehicle” is told with an AUC of 0.90" in vehicle
    assert "chance 0.002): more than chance. Right for 80.0\xa0%" in vehicle
    assert "0.50 (0.30 to 0.70; one half is chance): not told from chance" in never
    assert missing == "Left out: inversion: not asked for."
    assert "epsilon 8.00" in subject(one, "en")  # 7.9912, rounded up
    heads, rows = columns(one, "en")["detections"]
    assert {len(row) for row in rows} == {len(heads)}
    assert rows[1][-1] == "–"  # no decision, so no commoner case


def test_what_a_bootstrap_says_and_what_permutations_say():
    told = Detection("property", "pv", 0.9, 0.5, 0.01, 0.8, 1.0, 6, 9, 0.6, 0.8, 0.05)
    assert not told.works  # the interval is above one half, but permuted labels do as well
    assert not Detection("x", "y", 0.6, 0.0, 0.01, 0.5, 0.7, 6, 9, 0.6).works


def test_the_page_escapes_what_comes_from_data():
    page = render(found([rebuilt(0.1, client="<script>x</script>")]), "pt-BR")
    assert "<script>x" not in page
    assert "&lt;script&gt;x" in page
    assert "Leituras reconstruídas" in page
    assert 'id="detections"' not in page  # nothing was told, so there is no such section


def test_every_note_has_words():
    keys = ("errors", "scale", "fresh-noise", "sampled", "season", "rounds", "few-negatives")
    for lang in ("en", "pt-BR"):
        said = notes(found(notes=(*keys, "properties")), lang)
        assert len(set(said)) == len(keys) + 2  # and that failures prove nothing
