"""Cleaning: every repair is a function of its own, reported before it is done."""
