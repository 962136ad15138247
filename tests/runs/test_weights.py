import os
from pathlib import Path

import numpy as np
import pytest

from fl_inmetro.errors import RunError
from fl_inmetro.runs import weights
from fl_inmetro.seeds import derive


def test_bits_shapes_types_and_metadata_come_back(tmp_path):
    rng = derive(0, "weights")
    arrays = {
        "a": rng.normal(size=(3, 4)).astype(np.float32),
        "transposed": rng.normal(size=(3, 4)).T,
        "scalar": np.float64(0.1) * np.ones(()),
        "nan": np.array([np.nan, -0.0, np.inf]),
        "step": np.array([7], dtype=np.int64),
    }
    weights.save(tmp_path, "last", arrays, {"round": "3"})
    found, meta = weights.load(tmp_path, "last")
    assert meta == {"round": "3"}
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == np.asarray(array, order="C").tobytes()


def test_nothing_saved_is_none(tmp_path):
    assert weights.load(tmp_path, "last") is None


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    weights.save(tmp_path, "last", {"a": np.ones(2)}, {})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError) as caught:
        weights.save(tmp_path, "last", {"a": np.zeros(2)}, {})
    assert caught.value.faults[0].code == "FL704"
    assert "No space left" in str(caught.value)
    monkeypatch.undo()
    assert weights.load(tmp_path, "last")[0]["a"].tolist() == [1.0, 1.0]
    assert [p.name for p in (tmp_path / "weights").iterdir()] == ["last.safetensors"]


def test_a_damaged_file_is_a_coded_error(tmp_path):
    weights.save(tmp_path, "last", {"a": np.ones(100)}, {})
    file = tmp_path / "weights" / "last.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(RunError) as caught:
        weights.load(tmp_path, "last")
    assert caught.value.faults[0].code == "FL703"


@pytest.mark.parametrize("name", ["../last", "", "a/b", ".hidden"])
def test_a_name_cannot_leave_the_directory(tmp_path: Path, name):
    with pytest.raises(ValueError, match="not a name"):
        weights.save(tmp_path, name, {}, {})
