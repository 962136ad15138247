"""The appliances of a Brazilian home, one function each: a scene in, energy per bin out.

Each returns shape (T,) in kWh per 15-minute bin. Powers and habits are typical values known to the
authors (nameplates, PROCEL's surveys as published); docs/simulator.md says what they are based on
and what the sums were compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from fl_inmetro.data.simulator.clock import BIN_MIN, Floats
from fl_inmetro.data.simulator.households import Scene
from fl_inmetro.data.simulator.intervals import place

BIN_H = BIN_MIN / 60

#: Nameplate powers of electric showers sold in Brazil, kW, and their assumed shares.
SHOWER_KW = (4.5, 5.5, 6.8, 7.5)
SHOWER_KW_SHARE = (0.20, 0.50, 0.15, 0.15)
#: The middle position of the switch ("verão") as a share of the nameplate power.
SHOWER_SUMMER_POSITION = 0.60
SHOWER_GAP_MIN = 3.0


def refrigerator(scene: Scene) -> Floats:
    """Compressor that cycles; its duty grows with the temperature of the kitchen."""
    total = _compressor(scene, "refrigerator", power_kw=(0.085, 0.15), duty=(0.30, 0.46))
    if scene.stream("freezer-owned").random() < 0.16:
        total = total + _compressor(scene, "freezer", power_kw=(0.09, 0.15), duty=(0.30, 0.45))
    return total


def _compressor(
    scene: Scene, name: str, power_kw: tuple[float, float], duty: tuple[float, float]
) -> Floats:
    rng = scene.stream(name)
    power, duty_at_25, period_min = rng.uniform(*power_kw), rng.uniform(*duty), rng.uniform(35, 70)
    phase_0 = rng.random()
    wobble = np.exp(0.15 * rng.standard_normal(scene.clock.bins))
    opened = 0.06 * scene.presence.awake  # doors, warm food
    share = np.clip(duty_at_25 * (1 + 0.035 * (scene.sky.indoor_deg_c - 25)) + opened, 0.08, 0.95)
    phase = phase_0 + np.concatenate([[0.0], np.cumsum(BIN_MIN / (period_min * wobble))])
    cycle = np.floor(phase)
    left, right = phase[:-1] - cycle[:-1], phase[1:] - cycle[1:]
    # The compressor runs in the first `share` of each cycle: count the running part of the bin.
    running = (cycle[1:] - cycle[:-1]) * share + np.minimum(right, share) - np.minimum(left, share)
    energy: Floats = power * BIN_H * running / (phase[1:] - phase[:-1])
    return energy


def shower(scene: Scene) -> Floats:
    """Electric shower: 4.5 to 7.5 kW for some minutes per bath, most of them from 18 to 20 h.

    Cold days bring the high position and longer baths, warm days the middle position, and a hot
    day may have it switched off. One bathroom: baths queue.
    """
    home, days, clock = scene.home, scene.presence, scene.clock
    rng = scene.stream("shower")
    power_kw = rng.choice(SHOWER_KW, p=SHOWER_KW_SHARE)
    people = home.residents
    morning_person = rng.random(people) < 0.22
    # A family shares its rhythm: most of the spread is between homes.
    usual_evening = rng.normal(1160, 70) + rng.normal(0, 55, people)  # 19:15
    usual_morning = home.wake_min + rng.uniform(5, 35, people)
    feels_cold_at = rng.normal(23.0, 1.5, people)
    usual_min = np.clip(np.exp(rng.normal(np.log(6.6), 0.25, people)), 3, 15)

    draws = scene.stream("shower-days").random((clock.days, people, 5))
    shifts = scene.stream("shower-jitter").standard_normal((clock.days, people, 3))
    free = clock.free_day[:, None]
    evening_at = np.where(free, usual_evening - 20, usual_evening)
    evening_at = evening_at + np.where(free, 90, 48) * shifts[:, :, 0]
    morning_at = usual_morning + np.where(free, 130, 0) + np.where(free, 70, 20) * shifts[:, :, 1]
    main_at = np.where(morning_person, morning_at, evening_at)
    other_at = np.where(morning_person, evening_at, morning_at)
    noon_deg_c = scene.sky.air_deg_c[clock.bin_at(np.full((clock.days, 1), 900.0))]
    minute = np.concatenate([main_at, other_at], axis=1)
    takes_other = 0.15 + 0.01 * np.clip(noon_deg_c - 24, 0, 8)
    # A day's mood is also who is around: guests, a child at the grandparents', a day of laziness.
    company = np.clip(days.mood, 0.5, 1.1)[:, None]
    keep = np.concatenate(
        [draws[:, :, 0] < 0.93 * company, draws[:, :, 1] < takes_other * days.mood[:, None]], axis=1
    )
    keep = keep & days.at_home[:, None]

    room_deg_c = scene.sky.indoor_deg_c[clock.bin_at(minute)]
    colder = np.tile(feels_cold_at, 2) - room_deg_c
    high = _logistic(colder / 1.2) > np.concatenate([draws[:, :, 2], draws[:, :, 3]], axis=1)
    off = _logistic((-colder - 8.0) / 1.2) > np.concatenate([draws[:, :, 4]] * 2, axis=1)
    position = np.where(off, 0.0, np.where(high, 1.0, SHOWER_SUMMER_POSITION))
    longer = 1 + 0.015 * np.clip(23 - room_deg_c, -8, 12)
    duration = np.tile(usual_min, 2) * longer * np.exp(0.32 * np.tile(shifts[:, :, 2], (1, 2)))
    duration = np.clip(duration, 2.0, 25.0)
    return place(clock, _queue(minute, duration, keep), duration, power_kw * position, keep)


def _queue(minute: Floats, duration: Floats, keep: np.typing.NDArray[np.bool_]) -> Floats:
    """Shift the baths of each day, shape (D, N), so that none begins before the last has ended."""
    order = np.argsort(minute, axis=1, kind="stable")
    start = np.take_along_axis(minute, order, axis=1)
    taken = np.take_along_axis(keep, order, axis=1)
    blocks = np.where(taken, np.take_along_axis(duration, order, axis=1) + SHOWER_GAP_MIN, 0.0)
    free_at = np.full(minute.shape[0], -np.inf)
    for bath in range(minute.shape[1]):  # at most ten baths a day, all days at once
        start[:, bath] = np.where(
            taken[:, bath], np.maximum(start[:, bath], free_at), start[:, bath]
        )
        free_at = np.where(taken[:, bath], start[:, bath] + blocks[:, bath], free_at)
    queued = np.empty_like(start)
    np.put_along_axis(queued, order, start, axis=1)
    return queued


def lighting(scene: Scene) -> Floats:
    """Lamps: on where somebody is awake and the sun is low or the sky leaden."""
    rng = scene.stream("lighting")
    home = scene.home
    power_kw = home.affluence * (0.030 + 0.013 * home.residents) * rng.uniform(0.7, 1.3)
    # From full daylight at 12 degrees of elevation to dark at 4 degrees below the horizon.
    low = np.clip((0.208 - scene.sky.sin_elevation) / 0.278, 0.0, 1.0)
    gloom = 0.35 * np.exp(-scene.sky.irradiance_w_m2 / 120.0)
    flicker = np.exp(0.25 * scene.stream("lighting-bins").standard_normal(scene.clock.bins) - 0.03)
    mood = scene.presence.mood[scene.clock.day_of_bin]
    lit = np.maximum(low, gloom) * scene.presence.awake * mood * flicker
    outdoor = 0.008 * home.affluence * (scene.sky.sin_elevation < -0.07)
    return (power_kw * lit + outdoor) * BIN_H


def entertainment(scene: Scene) -> Floats:
    """Television in the evening, more on free days; a computer or console in some homes."""
    home, days, clock = scene.home, scene.presence, scene.clock
    rng = scene.stream("television")
    sets = 1 + int(home.residents >= 3 and rng.random() < 0.6) + int(rng.random() < 0.15)
    power_kw = rng.uniform(0.07, 0.15)
    shifts = scene.stream("television-days").standard_normal((clock.days, sets, 4))
    evening_at = days.return_min[:, None] + 55 + 45 * np.arange(sets) + 25 * shifts[:, :, 0]
    length = np.clip(165 + 50 * shifts[:, :, 1], 15, 300) * days.mood[:, None]
    total = place(clock, evening_at, length, power_kw, days.evening[:, None])
    by_day = shifts[:, :, 2] > np.where(clock.free_day, 0.0, 0.6)[:, None] - home.someone_by_day
    midday = np.clip(130 + 70 * shifts[:, :, 3], 20, 300)
    total = total + place(
        clock, 780 + 90 * shifts[:, :, 3], midday, power_kw, by_day & days.at_home[:, None]
    )
    if rng.random() < 0.35 * home.affluence:
        evenings = scene.stream("computer-days").standard_normal((clock.days, 2))
        starts, used = 1180 + 60 * evenings[:, 0], evenings[:, 1] < 0.25  # on 60 % of them
        lasts = np.clip(100 + 50 * shifts[:, 0, 0], 20, 240)
        total = total + place(clock, starts, lasts, rng.uniform(0.08, 0.22), used & days.evening)
    return total


def kitchen(scene: Scene) -> Floats:
    """Microwave, air fryer and small appliances; the stove itself burns gas in nearly all homes."""
    home, days, clock = scene.home, scene.presence, scene.clock
    rng = scene.stream("kitchen")
    draws = scene.stream("kitchen-days").random((clock.days, 5))
    shifts = scene.stream("kitchen-jitter").standard_normal((clock.days, 5))
    at_home, evening = days.at_home, days.evening
    total = np.zeros(clock.bins)
    if rng.random() < min(0.95, 0.55 * home.affluence + 0.05):
        minutes = np.clip(4 + 2 * shifts[:, :2], 1, 12)
        at = np.stack([735 + 25 * shifts[:, 2], days.return_min + 70 + 25 * shifts[:, 3]], axis=1)
        used = (draws[:, :2] < 0.65) & np.stack([at_home, evening], axis=1)
        total = total + place(clock, at, minutes, 1.3, used)
    if rng.random() < 0.40 * home.affluence:
        used = (draws[:, 2] < 0.35) & evening
        total = total + place(
            clock, days.return_min + 60 + 30 * shifts[:, 4], 22 + 4 * shifts[:, 2], 1.1, used
        )
    if rng.random() < 0.15 * home.affluence:  # electric oven, rather at weekends
        used = (draws[:, 3] < np.where(clock.free_day, 0.35, 0.06)) & at_home
        total = total + place(clock, 690 + 40 * shifts[:, 1], 45 + 10 * shifts[:, 0], 1.2, used)
    coffee = (draws[:, 4] < 0.5) & at_home  # coffee maker or sandwich maker at breakfast
    return total + place(clock, days.wake_min + 20, 7.0, 0.7, coffee)


def washing_machine(scene: Scene) -> Floats:
    """Cold-water washing: motor only, more often at weekends."""
    home, days, clock = scene.home, scene.presence, scene.clock
    rng = scene.stream("washing")
    if rng.random() > 0.70:  # about two homes in three own one (IBGE's PNAD; from memory)
        return np.zeros(clock.bins)
    power_kw, weekly = rng.uniform(0.25, 0.45), 1.2 + 0.6 * home.residents
    draws = scene.stream("washing-days").random((clock.days, 2))
    chance = np.minimum(weekly / 7 * np.where(clock.free_day, 1.6, 0.75), 0.95)
    at = np.where(clock.free_day, 540 + 360 * draws[:, 1], 480 + 660 * draws[:, 1])
    return place(clock, at, 50.0, power_kw, (draws[:, 0] < chance) & days.at_home)


def iron(scene: Scene) -> Floats:
    """Ironing once a week or so, for about half an hour; the thermostat halves its 1.1 kW."""
    days, clock = scene.presence, scene.clock
    weekly = scene.stream("iron").uniform(0.2, 1.4)
    draws = scene.stream("iron-days").random((clock.days, 2))
    used = (draws[:, 0] < weekly / 7) & days.evening
    return place(clock, 1000 + 220 * draws[:, 1], 20 + 30 * draws[:, 1], 0.6, used)


def standby(scene: Scene) -> Floats:
    """Router, set-top boxes, chargers: always on."""
    rng = scene.stream("standby")
    power_kw = (0.008 + 0.014 * scene.home.affluence) * rng.uniform(0.6, 1.4)
    return np.full(scene.clock.bins, power_kw * BIN_H)


def fan(scene: Scene) -> Floats:
    """Fans in the evening and at night when it is warm inside; fewer where there is cooling."""
    home, days, clock = scene.home, scene.presence, scene.clock
    rng = scene.stream("fan")
    fans = 1 + int(home.residents >= 3) + int(home.residents >= 5)
    power_kw = fans * rng.uniform(0.045, 0.08) * (0.4 if home.has_air_conditioning else 1.0)
    warm_at = rng.normal(26.0, 1.0)
    evening_deg_c = scene.sky.indoor_deg_c[clock.bin_at(np.full(clock.days, 1260.0))]
    shifts = scene.stream("fan-days").standard_normal((clock.days, 2))
    wanted = days.at_home & (evening_deg_c + 0.7 * shifts[:, 0] > warm_at)
    until = np.where(evening_deg_c > warm_at + 1.5, 1440 + days.wake_min, days.bed_min + 60)
    start = days.return_min + 60 + 40 * shifts[:, 1]
    return place(clock, start, until - start, power_kw, wanted)


def _logistic(x: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-x))


#: What every home has; shower, cooling, panels and vehicle are added where a home owns them.
COMMON: Mapping[str, Callable[[Scene], Floats]] = MappingProxyType(
    {
        "refrigerator": refrigerator,
        "lighting": lighting,
        "entertainment": entertainment,
        "kitchen": kitchen,
        "washing_machine": washing_machine,
        "iron": iron,
        "standby": standby,
        "fan": fan,
    }
)
