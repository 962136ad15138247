"""Charging of electric cars: sessions by user, and what garages and stations draw by the hour."""
