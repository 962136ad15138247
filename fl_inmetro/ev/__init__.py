"""Electric vehicles: the energy of a drive from its physics, calibrated from a car's own trips."""
