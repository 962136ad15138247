"""Noise comes from bits that no record holds, and from the same bits after a restart."""

import os
import stat

import numpy as np
import pytest

from fl_inmetro.errors import PrivacyError
from fl_inmetro.privacy.secret import Secret

KEY = bytes(range(32))


def test_a_name_has_one_stream_and_no_other():
    one = Secret(KEY).generator("round", 1).standard_normal(4)
    assert np.array_equal(one, Secret(KEY).generator("round", 1).standard_normal(4))
    others = [
        Secret(KEY).generator("round", 2),
        Secret(KEY).generator("round", "1"),
        Secret(KEY).child("round", 1).generator(),
        Secret(bytes(32)).generator("round", 1),
        Secret.fresh().generator("round", 1),
    ]
    for other in others:
        assert not np.array_equal(one, other.standard_normal(4))


def test_names_do_not_run_into_each_other():
    assert Secret(KEY).child("a", "b").key != Secret(KEY).child("ab").key
    assert Secret(KEY).child("a").child("b").key != Secret(KEY).child("a", "b").key


def test_it_never_shows_itself():
    assert KEY.hex() not in repr(Secret(KEY))
    assert "key" not in repr(Secret(KEY))


def test_it_is_kept_for_its_owner_only(tmp_path):
    path = tmp_path / "secrets" / "r1.secret"
    made = Secret.kept(path)
    assert Secret.kept(path) == made
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.unlink()
    assert Secret.kept(path) != made


def test_a_file_that_is_none_is_told(tmp_path):
    path = tmp_path / "r1.secret"
    path.write_bytes(b"short")
    with pytest.raises(PrivacyError, match="FL405"):
        Secret.kept(path)
    assert path.read_bytes() == b"short"
