"""What serves forecasts: the form that every trained model of a run has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fl_inmetro.data.fleet_windows import FleetWindows
from fl_inmetro.data.series import ClientSeries
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

    def settled(
        self, clients: Mapping[str, ClientSeries], asked_utc_s: NDArray[np.int64], zone: str
    ) -> Model:
        """Return the model with all that it chooses by a client's readings chosen for good.

        Who makes forecasts that nobody asked for, such as the days that a calibration learns from,
        settles the model first: the choice is that of the issues that are asked for.

        Args:
            clients: Client to its readings.
            asked_utc_s: Shape (I,), the issues for which forecasts are wanted, epoch seconds.
            zone: Clock of a client whose site has none.
        """
