"""Forecasts of sites, feeders and the total that add up."""

from fl_inmetro.hierarchy.groups import read_groups
from fl_inmetro.hierarchy.methods import METHODS, Calibration, reconciled
from fl_inmetro.hierarchy.tree import LEAF_LEVEL, TOTAL, Hierarchy, hierarchy_of

__all__ = [
    "LEAF_LEVEL",
    "METHODS",
    "TOTAL",
    "Calibration",
    "Hierarchy",
    "hierarchy_of",
    "read_groups",
    "reconciled",
]
