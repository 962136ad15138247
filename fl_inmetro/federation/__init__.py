"""Grids, strategy, rules, messages: how clients become a federation."""
