"""Holidays by hand: dates that stand in law, every Brazilian state, and what the profile makes."""

from datetime import date, timedelta

import numpy as np
import pytest
from pydantic import ValidationError

from fl_inmetro.config.calendar import Calendar
from fl_inmetro.data.features import GROUPS, row_features
from fl_inmetro.data.holidays import Holidays, holidays_of
from fl_inmetro.data.series import ClientSeries
from fl_inmetro.data.simulator.holidays import easter
from fl_inmetro.data.site import Site
from fl_inmetro.data.windows import Windows
from fl_inmetro.errors import ConfigError
from fl_inmetro.units import DAY_S
from tests.fleets import MONDAY

STATES = [
    "AC",
    "AL",
    "AM",
    "AP",
    "BA",
    "CE",
    "DF",
    "ES",
    "GO",
    "MA",
    "MG",
    "MS",
    "MT",
    "PA",
    "PB",
    "PE",
    "PI",
    "PR",
    "RJ",
    "RN",
    "RO",
    "RR",
    "RS",
    "SC",
    "SE",
    "SP",
    "TO",
]


def day(year: int, month: int, number: int) -> int:
    return (date(year, month, number) - date(1970, 1, 1)).days


def flag(flags_of, *dates: tuple[int, int, int]) -> list[bool]:
    return flags_of(np.array([day(*one) for one in dates])).tolist()


@pytest.mark.parametrize("state", STATES)
def test_every_state_has_the_national_holidays_and_the_optional_days(state):
    here = Holidays("BR", state)
    for year in (2016, 2023, 2024, 2031):
        sunday = easter(year)  # by the algorithm of Meeus, not by the package
        national = [(1, 1), (4, 21), (5, 1), (9, 7), (10, 12), (11, 2), (11, 15), (12, 25)]
        days = [date(year, *one) for one in national] + [sunday - timedelta(2)]
        since = np.array([(one - date(1970, 1, 1)).days for one in days])
        assert here.public(since).all()
        # Carnaval Monday, Tuesday and Ash Wednesday; Corpus Christi.
        custom = [sunday + timedelta(shift) for shift in (-48, -47, -46, 60)]
        since = np.array([(one - date(1970, 1, 1)).days for one in custom])
        # A state may have made one of them a holiday by law (Rio de Janeiro its Tuesday).
        assert (here.optional(since) | here.public(since)).all()


def test_well_known_days():
    brazil, sp, rs = Holidays("BR"), Holidays("BR", "SP"), Holidays("BR", "RS")
    assert flag(brazil.optional, (2024, 2, 12), (2024, 2, 13), (2024, 2, 14)) == [True] * 3
    assert flag(brazil.public, (2024, 2, 13), (2024, 5, 30)) == [False, False]
    # 9 July: the Constitutionalist Revolution, in São Paulo alone. 20 September: Farroupilha.
    assert flag(sp.public, (2024, 7, 9), (2024, 9, 20)) == [True, False]
    assert flag(rs.public, (2024, 7, 9), (2024, 9, 20)) == [False, True]
    # 20 November is national from 2024 on (Law 14.759/2023).
    assert flag(brazil.public, (2023, 11, 20), (2024, 11, 20)) == [False, True]
    # 8 December is a holiday of cities (Manaus, Salvador, …) and of no state in the package.
    assert flag(brazil.public, (2024, 12, 8)) == [False]
    england, nsw = Holidays("GB", "ENG"), Holidays("AU", "NSW")
    assert flag(england.public, (2019, 5, 6), (2019, 5, 27), (2019, 5, 28)) == [True, True, False]
    assert flag(nsw.public, (2013, 10, 7), (2013, 10, 8)) == [True, False]
    assert flag(Holidays("US", "CA").public, (2017, 5, 29), (2016, 11, 24)) == [True, True]


def test_optional_days_count_only_where_they_shall():
    carnaval = (2024, 2, 13)
    assert flag(Holidays("BR").off, carnaval) == [True]
    assert flag(Holidays("BR", optional_days=False).off, carnaval) == [False]


def test_bridges_by_hand():
    # Corpus Christi 2024-05-30 is a Thursday: the Friday after it is a bridge. 2025-11-20 likewise.
    # 2023-11-02 (Finados, Thursday): Friday. 2024-10-12 is a Saturday: no bridge about it.
    # A Tuesday: 2022-11-15, so Monday 14. 2024-12-24 and 31 are days off themselves.
    sp = Holidays("BR", "SP")
    assert flag(sp.bridge, (2024, 5, 31), (2025, 11, 21), (2023, 11, 3)) == [True] * 3
    assert flag(sp.bridge, (2022, 11, 14), (2024, 10, 11), (2024, 10, 14)) == [True, False, False]
    assert flag(sp.bridge, (2024, 12, 24), (2024, 6, 1), (2024, 5, 29)) == [False] * 3


def test_any_span_equals_day_by_day():
    sp = Holidays("BR", "SP")
    span = np.arange(day(2014, 12, 1), day(2033, 2, 1))
    together = sp.off(span)
    for k in range(0, span.size, 97):
        assert sp.off(span[k : k + 1])[0] == together[k]
    assert sp.off(span[:0]).shape == (0,)
    np.testing.assert_array_equal(sp.off(span[:6].reshape(2, 3)), together[:6].reshape(2, 3))


def test_unknown_places_are_fl112_all_at_once():
    with pytest.raises(ConfigError) as caught:
        holidays_of(Calendar(country="BR", subdivision="XX", subdivision_of={"a": "YY"}), ["a"])
    assert [fault.code for fault in caught.value.faults] == ["FL112", "FL112"]
    assert "SP" in caught.value.faults[0].hint
    with pytest.raises(ConfigError) as caught:
        holidays_of(Calendar(country="XX"), ["a"])
    assert caught.value.faults[0].code == "FL112"
    with pytest.raises(ValidationError, match="country"):
        Calendar(subdivision="SP")
    assert holidays_of(Calendar(), ["a"]) == {}


def test_a_client_may_have_its_own_state():
    found = holidays_of(
        Calendar(country="BR", subdivision="SP", subdivision_of={"b": "RS"}), ["a", "b"]
    )
    assert (found["a"].subdivision, found["b"].subdivision) == ("SP", "RS")


# ------------------------------------------------------------------------------ day types
def base_of(as_type: str | None, issue_day: int) -> float:
    """The base of hour 0 issued `issue_day` days after Monday 2024-01-01, at load = its day."""
    site = Site() if as_type is None else Site(Holidays("BR", as_type=as_type))  # type: ignore[arg-type]
    one = ClientSeries("a", MONDAY, 3600, np.repeat(np.arange(60.0), 24), site)
    part = Windows(one, np.array([issue_day * 24]), 24, "UTC")
    rows = row_features(part, ())
    return float(rows.base[0, 0] * rows.level.scale_kwh[0])


def test_a_holiday_is_forecast_as_a_sunday_and_is_none_of_the_working_days():
    # 2024-02-13 (Carnaval Tuesday) is day 43; the days before it in reach are 15 … 42.
    # Sundays (6, 13, 20, …): 20, 27, 34, 41, and Carnaval Monday, day 42: mean 164/5 = 32.8.
    assert base_of("sunday", 43) == pytest.approx(32.8, rel=1e-6)
    # Of its own type: Monday 42 alone. As a weekday: 20 days of Monday to Friday in 15 … 42:
    # 15…18, 21…25, 28…32, 35…39, 42: (66 + 115 + 150 + 185 + 42)/20 = 27.9.
    assert base_of("own", 43) == pytest.approx(42, rel=1e-6)
    for as_type in ("none", None):
        assert base_of(as_type, 43) == pytest.approx(27.9, rel=1e-6)
    # Thursday the 15th (day 45): Monday to Wednesday of Carnaval (42, 43, 44) are no working days.
    # 17, 18, 21…25, 28…32, 35…39: 35 + 115 + 150 + 185 = 485, of 17 days.
    assert base_of("sunday", 45) == pytest.approx(485 / 17, rel=1e-6)
    # A holiday of its own type without another in four weeks is as a Sunday: Monday, day 42.
    assert base_of("own", 42) == pytest.approx((20 + 27 + 34 + 41) / 4, rel=1e-6)


def test_the_group_by_hand():
    site = Site(Holidays("BR"))
    one = ClientSeries("a", MONDAY, 3600, np.ones(24 * 60), site)
    names = GROUPS["holidays"]

    def on(*date_: int) -> dict[str, float]:
        index = (day(*date_) * DAY_S - MONDAY) // 3600
        x = row_features(Windows(one, np.array([index]), 24), ("holidays",)).x[0, 5]
        return {name: float(value) for name, value in zip(names, x, strict=True) if value}

    assert on(2024, 2, 13) == {"optional_day": 1, "lag_1d_holiday": 1}  # a week ago: Tuesday
    assert on(2024, 2, 9) == {"lag_7d_same_type": 1}
    assert on(2024, 2, 11) == {"holiday_eve": 1, "lag_7d_same_type": 1}  # Sunday before Carnaval
    assert on(2024, 2, 15) == {
        "day_after_holiday": 1,
        "lag_1d_holiday": 1,
        "lag_7d_same_type": 1,
    }
    assert on(2024, 2, 20) == {"lag_7d_holiday": 1}
