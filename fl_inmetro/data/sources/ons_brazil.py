"""Load of the four Brazilian subsystems (ONS): mean MW per hour, official time of Brasília."""

from __future__ import annotations

from pathlib import Path

from fl_inmetro.data.readings import About, Clock, Opened
from fl_inmetro.data.series import ReferenceWindow
from fl_inmetro.data.sources.archive import NamedSet, read_columns

ABOUT = About(
    "ons_brazil",
    "Load of the four subsystems of the Brazilian grid (ONS), hourly",
    "ONS open data, free reuse for any purpose; cite ONS (https://dados.ons.org.br/about)",
    "ONS (Operador Nacional do Sistema Elétrico), Curva de Carga Horária, "
    "https://dados.ons.org.br/dataset/curva-carga",
)
ZONE = "America/Sao_Paulo"
WINDOW = ReferenceWindow("2023-11-01", "2023-12-31", "00:00", ZONE)
#: MW. The lowest load outside the three impossible lows (NE 149.9 and 385.7, S 0.0) is 610 MW.
IMPOSSIBLE_BELOW_MW = 500.0


def open_set(path: Path) -> Opened:
    """Open the set: daylight-saving time until 2019; the repeated autumn hour is not published."""
    clients, files = read_columns(path, "id_subsistema", "din_instante", "val_cargaenergiahomwmed")
    return Opened(
        ABOUT,
        clients,
        Clock(ZONE),
        unit="MW",
        zeros_mean_missing=True,
        impossible_below=IMPOSSIBLE_BELOW_MW,
        files=files,
        reference_window=WINDOW,
    )


SET = NamedSet(ABOUT, "curva_carga_horaria.parquet", open_set)
