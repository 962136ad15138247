"""Made charging sessions with known habits."""

from datetime import datetime, timedelta

import numpy as np

from fl_inmetro.ev.charging.sessions import Limits, RawSessions, Sessions, judged

MONDAY = datetime(2019, 9, 2, 17, 0)


def raw(rows: list[dict], zone: str = "Europe/Oslo") -> RawSessions:
    """Rows as a source has them; what a row does not say is ordinary."""
    ordinary = {
        "user": "u",
        "hub": "g",
        "start": MONDAY,
        "end": MONDAY + timedelta(hours=10),
        "stated": 10.0,
        "energy": 9.0,
    }
    full = [ordinary | row for row in rows]
    return RawSessions(
        np.array([str(i) for i in range(len(full))]),
        np.array([row["user"] for row in full]),
        np.array([row["hub"] for row in full]),
        [row["start"] for row in full],
        [row["end"] for row in full],
        np.array([row["stated"] for row in full], dtype=float),
        np.array([row["energy"] for row in full], dtype=float),
        zone,
    )


def sessions(rows: list[tuple[str, float, float, float]], hub: str = "g") -> Sessions:
    """Sessions from (user, hours after Monday 17:00, hours at the plug, kWh), clock UTC."""
    made = [
        {
            "user": user,
            "hub": hub,
            "start": MONDAY + timedelta(hours=after),
            "end": MONDAY + timedelta(hours=after + hours),
            "stated": hours,
            "energy": kwh,
        }
        for user, after, hours, kwh in rows
    ]
    return judged(raw(made, "UTC"), Limits())


def town(users: int = 8, days: int = 60, seed: int = 3) -> Sessions:
    """Users who drive as far each day as is their habit, and plug in every one to three days."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(users):
        daily, gap = 3.0 + 1.5 * k, int(rng.integers(1, 4))
        day = gap
        while day < days:
            kwh = daily * gap * float(rng.uniform(0.8, 1.2))
            after = 24.0 * day + float(rng.uniform(-1, 3))
            rows.append((f"u{k}", after, kwh / 10.0 + 1.0, kwh))
            gap = int(rng.integers(1, 4))
            day += gap
    found = sessions(rows)
    hubs = np.array([f"g{int(user[1:]) % 3}" for user in found.user])
    return Sessions(
        found.user,
        hubs,
        found.start_utc_s,
        found.duration_h,
        found.energy_kwh,
        found.zone,
        found.local_s,
    )
