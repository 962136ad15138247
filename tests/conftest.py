import hashlib
import itertools
import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# `pytest` alone does not put the repository root on the path, `python -m pytest` does.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# One thread per process: two on small steps are many times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A slow machine is no fault of the code: no deadline. Derandomised: the suite is repeatable.
settings.register_profile(
    "house",
    deadline=None,
    max_examples=30,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def _the_same_noise(monkeypatch):
    """Noise of this process is the same in each run of a test: none fails, or passes, by chance."""
    from fl_inmetro.privacy.secret import Secret

    root, count = Secret(hashlib.sha256(b"tests").digest()), itertools.count()
    fresh = classmethod(lambda cls: cls(root.child("fresh", next(count)).key))
    monkeypatch.setattr(Secret, "fresh", fresh)


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread():
    import torch

    torch.set_num_threads(1)
