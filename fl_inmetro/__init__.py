"""fl-inmetro: federated learning of energy demand on Flower and PyTorch."""

__version__ = "0.1.0"
