"""What serves forecasts: the form that every trained model of a run has."""

from __future__ import annotations

from typing import Protocol

from fl_inmetro.data.fleet_windows import FleetWindows
from fl_inmetro.data.windows import Windows
from fl_inmetro.metrics import Forecast
from fl_inmetro.plan import Job


class Model(Protocol):
    """What a job of a run has come to."""

    @property
    def job(self) -> Job:
        """What it is and how it was trained."""

    def forecast(self, client_id: str, windows: Windows) -> Forecast | None:
        """Forecast a client's windows; None where it has no model for that client."""

    def forecast_fleet(self, windows: FleetWindows) -> list[Forecast | None]:
        """Forecast many clients at once; for each what `forecast` says of it."""
