"""`[protocol]`: the splits and scores that published tables use, in place of `[window]`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fl_inmetro.config.table import Positive, Table

ProtocolName = Literal["none", "ltsf", "lstnet", "gift-eval", "buildingsbench"]

#: Steps of a forecast where none are given.
HORIZON: dict[str, int] = {"ltsf": 96, "lstnet": 24, "gift-eval": 48, "buildingsbench": 24}

#: Steps of the past that a forecast may see where none are given; 0 = all there is.
LOOK_BACK: dict[str, int] = {"ltsf": 336, "lstnet": 168, "gift-eval": 0, "buildingsbench": 168}


class Protocol(Table):
    """Which published protocol decides the splits and the scores (see `docs/protocols.md`).

    Attributes:
        name: `none` = `[window]` decides. `ltsf`: split 0.7/0.1/0.2, errors in standard deviations.
            `lstnet`: 60/20/20, the last step alone. `gift-eval`: up to 20 windows one after the
            other. `buildingsbench`: 180 days, then 24 h after 24 h.
        horizon: Steps of a forecast; None = 96, 24, 48 and 24, in that order.
        look_back: Steps of the past that a forecast sees; 0 = all; None = 336, 168, 0 and 168.
        every: Steps between the windows that are trained on, that choose the round, and that our
            own scores are of (one share of the windows of `ltsf` and `lstnet`). The protocol's
            scores are always of every window. No divisor of a day: all its hours are to be seen.
    """

    name: ProtocolName = "none"
    horizon: Positive | None = None
    look_back: int | None = Field(None, ge=0)
    every: Positive = 5

    @property
    def enabled(self) -> bool:
        """Whether a protocol decides."""
        return self.name != "none"

    @property
    def horizon_steps(self) -> int:
        """Steps of a forecast."""
        return self.horizon or HORIZON[self.name]

    @property
    def look_back_steps(self) -> int:
        """Steps of the past that a forecast sees; 0 = all."""
        return LOOK_BACK[self.name] if self.look_back is None else self.look_back

    def check(self, others: dict[str, bool]) -> None:
        """Refuse settings that a protocol decides or that would change what it scores.

        Args:
            others: Setting to whether it differs from its default.

        Raises:
            ValueError: One of them does.
        """
        if named := [key for key, is_set in others.items() if self.enabled and is_set]:
            raise ValueError(
                f'`[protocol] name = "{self.name}"` decides the windows and scores the models '
                f"themselves: leave out {', '.join(named)}"
            )
