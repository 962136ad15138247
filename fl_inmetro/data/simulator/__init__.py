"""The simulator of Brazilian consumers that ships with the product; no meter is behind its data."""

from fl_inmetro.data.simulator.atmosphere import Weather, weather
from fl_inmetro.data.simulator.build import simulate

__all__ = ["Weather", "simulate", "weather"]
