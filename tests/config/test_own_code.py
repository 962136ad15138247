"""Code of the user's own: where it is looked for, and that a run finds it again."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from fl_inmetro.config import load, own_code
from fl_inmetro.errors import ConfigError, Fault
from fl_inmetro.flower_engine import OWN_CODE
from fl_inmetro.task import run_config

MODULE = "own_code_under_test"
TOML = f'model = "own"\n[models.own]\nnetwork = "{MODULE}:ANSWER"\n'


def failure(what: str, where: str, hint: str) -> ConfigError:
    return ConfigError(Fault("FL115", what, where, hint))


def answer() -> object:
    return own_code.imported(f"{MODULE}:ANSWER", failure)


@pytest.fixture(autouse=True)
def forgets(monkeypatch):
    """Leave no module and no folder behind."""
    monkeypatch.setattr("sys.path", [*sys.path])
    for name, kept in (("_FOLDERS", {}), ("_OURS", set()), ("_TAKEN", {})):
        monkeypatch.setattr(own_code, name, kept)
    yield
    sys.modules.pop(MODULE, None)


def folder(parent: Path, name: str, value: int) -> Path:
    """A folder with a configuration and the module that it names."""
    path = parent / name
    path.mkdir()
    (path / "run.toml").write_text(TOML)
    (path / f"{MODULE}.py").write_text(f"ANSWER = {value}\n")
    return path


def test_the_folder_of_the_file_comes_before_the_working_directory(tmp_path, monkeypatch):
    here, there = folder(tmp_path, "here", 1), folder(tmp_path, "there", 2)
    monkeypatch.chdir(here)
    config = load(there / "run.toml")
    assert answer() == 2
    assert own_code.places(config) == {
        MODULE: {
            "file": str(there / f"{MODULE}.py"),
            "folder": str(there),
            "sha256": hashlib.sha256(b"ANSWER = 2\n").hexdigest(),
        }
    }


def test_the_working_directory_is_searched_too(tmp_path, monkeypatch):
    here, there = folder(tmp_path, "here", 1), folder(tmp_path, "there", 2)
    (there / f"{MODULE}.py").unlink()
    monkeypatch.chdir(here)
    config = load(there / "run.toml")
    assert answer() == 1
    assert own_code.places(config)[MODULE]["folder"] == str(here)


def test_nothing_installed_is_hidden(tmp_path, monkeypatch):
    installed, there = folder(tmp_path, "installed", 3), folder(tmp_path, "there", 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(installed))
    config = load(there / "run.toml")
    assert answer() == 3
    place = own_code.places(config)[MODULE]
    assert place["file"] == str(installed / f"{MODULE}.py")
    assert "folder" not in place


def test_two_files_of_one_name_in_one_process_are_two(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in (("first", 1), ("second", 2)):
        load(folder(tmp_path, name, value) / "run.toml")
        assert answer() == value
    kept = own_code.places(load(tmp_path / "first" / "run.toml"))
    load(tmp_path / "second" / "run.toml")
    assert answer() == 2
    # What a run wrote down is where it is looked for, wherever the command is started.
    own_code.search_again(json.loads(json.dumps(kept)))
    assert answer() == 1


def test_a_module_in_a_package_is_found(tmp_path, monkeypatch):
    there = folder(tmp_path, "there", 2)
    package = there / "own_package_under_test"
    package.mkdir()
    (package / "inner.py").write_text("ANSWER = 5\n")
    text = TOML.replace(f"{MODULE}:", f"{package.name}.inner:")
    (there / "run.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    config = load(there / "run.toml")
    found = own_code.imported(f"{package.name}.inner:ANSWER", failure)
    assert found == 5
    place = own_code.places(config)[f"{package.name}.inner"]
    assert (place["file"], place["folder"]) == (str(package / "inner.py"), str(there))


def test_what_is_nowhere_names_the_folders_searched(tmp_path, monkeypatch):
    there = folder(tmp_path, "there", 2)
    (there / f"{MODULE}.py").unlink()
    monkeypatch.chdir(tmp_path)
    config = load(there / "run.toml")
    assert own_code.places(config) == {}
    with pytest.raises(ConfigError) as caught:
        answer()
    (fault,) = caught.value.faults
    assert fault.what == f"there is no module `{MODULE}`"
    assert f"searched {there} and {tmp_path} too" in fault.hint


def test_flower_s_apps_find_it_where_the_run_was_started(tmp_path, monkeypatch):
    """The apps read a copy of the file, in a folder of its own, from another working directory."""
    there = folder(tmp_path, "there", 2)
    config = load(there / "run.toml")
    sent = tmp_path / "sent"
    sent.mkdir()
    (sent / "run.toml").write_text(TOML)
    (sent / OWN_CODE).write_text(json.dumps(own_code.places(config)))
    own_code.search_beside(config, sent)  # as if nobody had looked beside the first
    monkeypatch.chdir(sent)
    run_config({"config-file": str(sent / "run.toml")}, 1)
    assert answer() == 2
