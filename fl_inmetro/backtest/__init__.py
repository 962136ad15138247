"""Backtests: what would have been, had the models been used and trained again from time to time."""
