"""Figures and the self-contained report of a run; Plotly is loaded by `figures` alone."""
