"""From the `[data]` table of a run to `FederatedData`: open, choose clients, clean, one step."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import numpy as np

from fl_inmetro.config.schema import Data
from fl_inmetro.data.cleaning.ends import note_uneven_ends
from fl_inmetro.data.cleaning.findings import CleaningReport, ClientSummary
from fl_inmetro.data.cleaning.source import Cleaned, clean_source
from fl_inmetro.data.cleaning.steps import resample
from fl_inmetro.data.readings import Opened
from fl_inmetro.data.series import ClientSeries, FederatedData, Manifest
from fl_inmetro.data.sources import LAYOUTS, SIMULATOR, SOURCES
from fl_inmetro.data.sources.guess import settings_for as guessed
from fl_inmetro.data.surroundings import with_sites
from fl_inmetro.errors import DataError, Fault
from fl_inmetro.i18n.said import said
from fl_inmetro.units import DAY_S, HOUR_S, iso_utc


def settings_for(source: str, base: Data) -> Data:
    """Return the settings that read `source`: a known name, or a path whose layout is looked up.

    Everything else that `base` says (format, cleaning, clients, step) is kept.

    Raises:
        DataError: FL202 or FL203 when the path is no table of readings.
    """
    return guessed(source, base)[0]


def load(data: Data, seed: int = 0) -> FederatedData:
    """Return the clean series of a source, all on one grid.

    `seed` matters for the simulator only, and there where `[data.simulator]` has none of its own.

    Raises:
        DataError: All faults at once: FL201 set not there, FL202 columns, FL203 file, FL204 dates,
            FL205 empty client or none left, FL206 too short, FL207 step, FL208 unknown source,
            FL209 unknown client, FL211 timestamps.
    """
    return load_with_report(data, seed)[0]


def load_with_report(data: Data, seed: int = 0) -> tuple[FederatedData, CleaningReport]:
    """Return the clean series of a source and the report of what was found and done.

    Raises:
        DataError: See `load`.
    """
    result, report = examine(data, seed)
    if result is None:
        raise DataError(report.faults)
    return result, report


def examine(data: Data, seed: int = 0) -> tuple[FederatedData | None, CleaningReport]:
    """Clean a source; refused data give None and a report with the faults.

    Raises:
        DataError: The source cannot be opened at all (FL201, FL202, FL203, FL204, FL208, FL211), or
            the client filter names unknown clients (FL209).
    """
    if data.source == SIMULATOR:
        return _simulated(data, seed)
    source = _open(data)
    names, excluded = _choose(data, source.clients)
    cleaned = clean_source(source, names, data.cleaning)
    cleaned.excluded.update(excluded)
    series, step_s = _one_step(cleaned, data.resolution_min)
    note_uneven_ends(series, cleaned.ledger)
    if not series and not cleaned.ledger.faults:
        cleaned.ledger.refuse(
            Fault(
                "FL205",
                f"source `{data.source}` has no client left",
                "\n".join(f"{name}: {why}" for name, why in list(cleaned.excluded.items())[:5]),
                "check `data.clients`, `data.exclude` and `cleaning.drop-short`",
            )
        )
    report = CleaningReport(
        source.about.name,
        sum(cleaned.readings.values()),
        tuple(_summary(one, cleaned.readings.get(name, 0)) for name, one in series.items()),
        tuple(cleaned.ledger.findings),
        cleaned.excluded,
        source.assumed,
        tuple(cleaned.ledger.faults),
    )
    if report.refused:
        return None, report
    series, more, covariates = with_sites(series, data, seed, source.clients)
    manifest = Manifest(
        source=source.about.name,
        title=source.about.title,
        licence=source.about.licence,
        citation=source.about.citation,
        timezone=source.clock.zone,
        resolution_s=step_s,
        files={**source.files, **more},
        excluded=dict(cleaned.excluded),
        cleaning=report.counts(),
        reference_window=source.reference_window,
        covariates=covariates,
    )
    return FederatedData(series, manifest), report


def _open(data: Data) -> Opened:
    named = SOURCES.get(data.source)
    if named:
        return named.open(named.required())
    layout = LAYOUTS.get(data.source)
    if layout:
        return layout(data.path, data.format)
    known = [SIMULATOR, *SOURCES, *LAYOUTS]
    near = difflib.get_close_matches(data.source, known, n=1, cutoff=0.4)
    hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
    what = f"`{data.source}` is neither a source known by name nor a file that is there"
    raise DataError(Fault("FL208", what, f'[data] source = "{data.source}"', hint))


def _choose(data: Data, present: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the clients to use, in the order of their names, and the others with the reason."""
    names = sorted(present)
    unknown = [name for name in (*data.clients, *data.exclude) if name not in names]
    if unknown:
        near = difflib.get_close_matches(unknown[0], names, n=1)
        shown = ", ".join(f"`{name}`" for name in unknown[:5])
        raise DataError(
            Fault(
                "FL209",
                f"{len(unknown)} client(s) of the filter are not in the source: {shown}",
                "[data] clients, exclude",
                f"did you mean `{near[0]}`?" if near else f"clients are {', '.join(names[:8])}, …",
            )
        )
    excluded: dict[str, str] = {}
    kept: list[str] = []
    for name in names:
        if data.clients and name not in data.clients:
            excluded[name] = said("not_chosen")
        elif name in data.exclude:
            excluded[name] = said("named_out")
        elif data.max_clients is not None and len(kept) >= data.max_clients:
            excluded[name] = said("beyond_max", count=data.max_clients)
        else:
            kept.append(name)
    return kept, excluded


def _one_step(cleaned: Cleaned, resolution_min: int | None) -> tuple[dict[str, ClientSeries], int]:
    """Bring all clients to one step: the one asked for, or the coarsest there is."""
    steps = {name: one.resolution_s for name, one in cleaned.series.items()}
    if not steps:
        return {}, 0
    target_s = resolution_min * 60 if resolution_min else max(steps.values())
    odd = {name: step for name, step in steps.items() if target_s % step}
    if DAY_S % target_s or odd:
        places = "\n".join(
            f"client {name}: {step // 60} min" for name, step in list(odd.items())[:5]
        )
        what = (
            f"{len(odd)} clients cannot be brought to {target_s // 60} min by summing"
            if odd
            else f"{target_s // 60} min does not divide a day"
        )
        hint = "set `data.resolution-min` to a common multiple of the clients' steps, such as 60"
        cleaned.ledger.refuse(Fault("FL207", what, places or "[data] resolution-min", hint))
        return {}, 0
    result: dict[str, ClientSeries] = {}
    for name, one in cleaned.series.items():
        start_s, energy = resample(one.start_utc_s, one.energy_kwh, one.resolution_s, target_s)
        if not np.isfinite(energy).any():
            hint = "take a shorter `data.resolution-min`, or exclude the client"
            what = f"client {name} has no step of {target_s // 60} min whose parts are all there"
            cleaned.ledger.refuse(Fault("FL205", what, f"client {name}", hint))
            continue
        result[name] = ClientSeries(name, start_s, target_s, energy)
    return result, target_s


def _summary(series: ClientSeries, readings: int) -> ClientSummary:
    return ClientSummary(
        series.client_id,
        readings,
        len(series),
        int(series.valid.sum()),
        iso_utc(series.start_utc_s),
        iso_utc(series.end_utc_s),
        series.resolution_s,
        float(np.nanmean(series.energy_kwh)) * HOUR_S / series.resolution_s,
    )


def _simulated(data: Data, seed: int) -> tuple[FederatedData | None, CleaningReport]:
    # Imported here: nothing else of the product needs the simulator to load real readings.
    from fl_inmetro.data.simulator import simulate

    seed = seed if data.simulator.seed is None else data.simulator.seed
    made = simulate(data.simulator, seed)
    names, excluded = _choose(data, made)
    cleaned = Cleaned({name: made[name] for name in names}, excluded=excluded)
    series, step_s = _one_step(cleaned, data.resolution_min)
    summaries = tuple(_summary(one, len(made[name])) for name, one in series.items())
    readings = sum(one.readings for one in summaries)
    faults = tuple(cleaned.ledger.faults)
    report = CleaningReport(SIMULATOR, readings, summaries, (), excluded, (), faults)
    if faults:
        return None, report
    series, files, covariates = with_sites(series, data, seed, made)
    old = made.manifest
    changed = {
        "resolution_s": step_s,
        "excluded": {**old.excluded, **excluded},
        "files": {**old.files, **files},
        "covariates": covariates,
    }
    manifest = Manifest(**{**vars(old), **changed})
    return FederatedData(series, manifest), report
