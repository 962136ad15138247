"""`[fallback]`: when a model should not be asked, and what is said instead."""

from __future__ import annotations

from pydantic import Field

from fl_inmetro.config.table import Table


class Fallback(Table):
    """What `forecast` does for a client and an issue time that the model should not serve.

    Attributes:
        enabled: Look for such cases and go down the ladder of `docs/serving.md`. False = the model
            is asked wherever it can answer, and nobody else is.
        no_readings_days: The model is not asked when readings have been missing for so long. One
            day by measurement: models that were trained on readings up to their issue time are
            worse without the last of them than the mean of the day type (`docs/serving.md`).
        flat_h: Nor when the last readings have been the same value for so many hours, at a meter
            that is not often so; 0 = never looked for.
        usual_flat_share: A meter is often so where more than this share of its steps in the four
            weeks repeats the step before.
        max_missing_share: Nor when more than this share of the last 14 days is missing; for a meter
            that is younger, of the days since its first reading.
        known_weeks: The last known weeks of a meter stand in for it for so many weeks.
        size_days: Readings of the last so many days say how large a client is that has no other.
    """

    enabled: bool = True
    no_readings_days: float = Field(1.0, gt=0, le=28)
    flat_h: float = Field(24.0, ge=0, le=168)
    usual_flat_share: float = Field(0.2, ge=0, le=1)
    max_missing_share: float = Field(0.8, ge=0, le=1)
    known_weeks: int = Field(8, ge=0, le=520)
    size_days: float = Field(366.0, ge=1)
