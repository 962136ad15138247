"""Families of trip models side by side: local, federated and central, on the same trips."""
