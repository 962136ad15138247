"""Forecasters: baselines, ridge in closed form, NLinear, MLP."""
