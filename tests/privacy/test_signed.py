"""Exports: signed, checked by another implementation's view, compared with ledgers; statements."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_inmetro.errors import PrivacyError
from fl_inmetro.privacy.accountant import account
from fl_inmetro.privacy.ledger import Contents, Ledger, Owner, find_ledgers, read_ledger
from fl_inmetro.privacy.mechanism import Gaussian
from fl_inmetro.privacy.signed import (
    check_export,
    compare_with_export,
    own_key_path,
    public_key_of,
    sign,
    signing_key,
)
from fl_inmetro.privacy.statement import statement
from tests.privacy.ledgers import FLEET, HOME, ledger, release


@pytest.fixture(autouse=True)
def own_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def books(folder: Path) -> list[Contents]:
    return [read_ledger(path) for path in find_ledgers(folder)]


def exported(tmp_path: Path) -> Path:
    folder = tmp_path / "books"
    ledger(folder, 3)
    ledger(folder, 2, HOME)
    file = tmp_path / "export.json"
    file.write_text(json.dumps(sign(books(folder), signing_key()), ensure_ascii=False, indent=1))
    return file


def test_an_export_is_checked(tmp_path: Path) -> None:
    file = exported(tmp_path)
    found = check_export(file)
    assert found.public_key == public_key_of(signing_key())
    assert [(one.owner, one.head.entries) for one in found.ledgers] == [(FLEET, 4), (HOME, 3)]
    assert check_export(file, found.public_key) == found
    compare_with_export(books(tmp_path / "books"), found)


def test_the_signature_by_openssl_and_the_chain_by_hand(tmp_path: Path) -> None:
    """Nothing of ours: OpenSSL checks the signature, hashlib the chain."""
    document = json.loads(exported(tmp_path).read_text())
    hash_before = "0" * 64
    for body in document["content"]["ledgers"][0]["lines"]:
        text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        hash_before = hashlib.sha256(f"{hash_before}\n{text}".encode()).hexdigest()
    assert hash_before == document["content"]["ledgers"][0]["hash"]
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    content = json.dumps(
        document["content"], sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    signed = tmp_path / "signed"
    signed.write_bytes(b"fl-inmetro ledger export\n" + content.encode())
    (tmp_path / "signature").write_bytes(base64.b64decode(document["signature"]))
    # A public Ed25519 key in DER is these twelve bytes and the key (RFC 8410).
    der = bytes.fromhex("302a300506032b6570032100") + base64.b64decode(document["public_key"])
    (tmp_path / "key").write_bytes(der)
    words = "openssl pkeyutl -verify -pubin -keyform DER -rawin -inkey key -sigfile signature"
    done = subprocess.run(
        [*words.split(), "-in", "signed"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "Verified Successfully" in done.stdout, done.stderr


def refused(path: Path, public_key: str | None = None) -> str:
    with pytest.raises(PrivacyError) as error:
        check_export(path, public_key)
    return error.value.faults[0].code


def test_exports_that_were_changed(tmp_path: Path) -> None:
    file = exported(tmp_path)
    document = json.loads(file.read_text())
    other = base64.b64encode(b"1" * 32).decode()
    assert refused(file, other) == "FL425"
    assert refused(file, "nonsense") == "FL425"
    assert refused(tmp_path / "none.json") == "FL427"
    for content in (b"", b"[]", b"{}", b"\xff", b'{"content":NaN,"public_key":"","signature":""}'):
        file.write_bytes(content)
        assert refused(file) == "FL425"
    lines = document["content"]["ledgers"][0]["lines"]
    lines[1]["noise_multiplier"] = 100.0
    file.write_text(json.dumps(document))
    assert refused(file) == "FL425"
    # Signed anew by the same key, but its chain is not what its hash says.
    key = signing_key()
    from fl_inmetro.privacy.chain import canonical

    signed = b"fl-inmetro ledger export\n" + canonical(document["content"])
    document["signature"] = base64.b64encode(key.sign(signed)).decode()
    file.write_text(json.dumps(document))
    with pytest.raises(PrivacyError, match="a chain in it"):
        check_export(file)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_changed_byte_of_an_export_is_found_or_changes_nothing(
    tmp_path: Path, draw: st.DataObject
) -> None:
    file = tmp_path / "export.json"
    if not file.exists():
        exported(tmp_path)
    whole = file.read_bytes()
    at = draw.draw(st.integers(0, len(whole) - 1))
    changed = tmp_path / "changed.json"
    changed.write_bytes(whole[:at] + bytes([draw.draw(st.integers(0, 255))]) + whole[at + 1 :])
    try:
        found = check_export(changed, json.loads(whole)["public_key"])
    except PrivacyError:
        return
    assert found == check_export(file)
    assert json.loads(changed.read_bytes())["content"] == json.loads(whole)["content"]


def test_a_ledger_set_back_is_found_by_an_export(tmp_path: Path) -> None:
    folder, before = tmp_path / "books", tmp_path / "before"
    ledger(folder, 2)
    shutil.copytree(folder, before)
    export = check_export(exported(tmp_path))  # has one round more, and a client
    Ledger(folder, FLEET).record(release(7))
    compare_with_export(books(folder), export)
    with pytest.raises(PrivacyError) as error:
        compare_with_export(books(before), export)
    assert [fault.code for fault in error.value.faults] == ["FL428", "FL428"]
    assert "4 entries were exported, 3 are there" in error.value.faults[0].what
    # As long, but another history.
    shutil.rmtree(folder)
    ledger(folder, 9)
    ledger(folder, 9, HOME)
    with pytest.raises(PrivacyError, match="are not those of the export"):
        compare_with_export(books(folder), export)


def test_the_own_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(public_key_of(signing_key())))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert own_key_path().stat().st_mode & 0o777 == 0o600
    assert [path.name for path in own_key_path().parent.iterdir()] == ["ledger-key.pem"]


def test_keys_that_cannot_be_used(tmp_path: Path) -> None:
    def code(path: Path) -> str:
        with pytest.raises(PrivacyError) as error:
            signing_key(path)
        return error.value.faults[0].code

    assert code(tmp_path / "none.pem") == "FL426"
    file = tmp_path / "key.pem"
    file.write_text("nonsense")
    file.chmod(0o600)
    assert code(file) == "FL426"
    signing_key()
    shutil.copy(own_key_path(), file)
    file.chmod(0o644)
    assert code(file) == "FL426"
    file.chmod(0o600)
    assert public_key_of(signing_key(file)) == public_key_of(signing_key())
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    for lock in (NoEncryption(), BestAvailableEncryption(b"secret")):
        key = ec.generate_private_key(ec.SECP256R1())
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
        assert code(file) == "FL426"


def test_a_statement_says_what_stands_in_the_ledger(tmp_path: Path) -> None:
    book = Ledger(tmp_path, Owner("north", "house | <7>"))
    for number in range(3):
        book.record(release(number, noise_multiplier=1.5, times=1000))
    book.record(release(3, subject="client-day", group=9))
    page = statement([read_ledger(book.path)], "2026-01-02T03:04:05Z", "KEY")
    portuguese, english = page.split("\n---\n")
    assert "Liberações: 4. Execuções: 1." in portuguese
    assert (
        "| atualização de um modelo | ruído gaussiano | 1,5 | 0,5 | cada um sorteado por si, 10 % |"
        in portuguese
    )
    assert "| 3 | 3.000 |" in portuguese
    assert (
        "| update of a model | Gaussian noise | 1.5 | 0.5 | each drawn by itself, 10 % |" in english
    )
    assert "| 3 | 3,000 |" in english
    assert "up to 9 records each" in english
    assert "artigo 38 da LGPD" in portuguese
    assert "no epsilon stands in this ledger" in english
    # What all of it costs is counted anew, for each of those who are protected apart.
    whole = account((Gaussian(1.5, 0.1, 3000),), 1e-5).epsilon
    who = "(releases: 3), protecting a client, with all its readings"
    assert f"{who}: epsilon {whole:.4g}" in english
    assert "(releases: 1), protecting one day of a client: epsilon" in english
    assert f"épsilon {whole:.4g} a delta 1e-05".replace(".", ",") in portuguese
    assert "another ledger" not in english
    assert "Each federation name has a ledger of its own" in english
    assert page.count(read_ledger(book.path).hash) == 2
    assert "house | <7>" not in page  # a name cannot make a table or a tag
    assert "house \\| \\<7\\>" in page
    assert "noise multiplier 0" not in english


def test_a_statement_tells_of_noise_that_is_not_there_and_of_budgets(tmp_path: Path) -> None:
    from fl_inmetro.privacy.budget import Budget
    from tests.privacy.ledgers import ROOT_SUM

    book = Ledger(tmp_path, FLEET)
    for number in range(4):
        book.record(release(number), [Budget(2.0, 1e-5, "federation")], ROOT_SUM)
    book.record(release(4, noise_multiplier=0))
    page = statement([read_ledger(book.path)], "2026-01-02T03:04:05Z", "KEY")
    assert "épsilon 2 de no máximo 2, com delta 1e-05, conforme calculado por root-sum 1" in page
    assert "which this epsilon does not count: 1." in page
    assert "epsilon ∞ at delta 1e-05" in page
    assert "left without noise" in page
    assert "saiu sem ruído" in page
    empty = Ledger(tmp_path, HOME)
    assert "nenhuma liberação" in statement([read_ledger(empty.path)], "x", "KEY")
