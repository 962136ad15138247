"""What attacks found is kept by model, and a damaged file is told."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from fl_inmetro.errors import RunError
from fl_inmetro.runs.leakage import LEAKAGE, keep, kept


@pytest.fixture
def record(tmp_path: Path) -> SimpleNamespace:
    return SimpleNamespace(path=tmp_path)


def test_models_are_kept_beside_each_other(record):
    assert kept(record) == {}
    keep(record, "mlp", {"seed": 1})
    keep(record, "nlinear", {"seed": 2})
    keep(record, "mlp", {"seed": 3})
    assert kept(record) == {"mlp": {"seed": 3}, "nlinear": {"seed": 2}}


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_damaged_file_is_told(record, content):
    (record.path / LEAKAGE).write_bytes(content)
    with pytest.raises(RunError, match="FL703"):
        kept(record)
    with pytest.raises(RunError, match="FL703"):
        keep(record, "mlp", {})
    assert (record.path / LEAKAGE).read_bytes() == content
