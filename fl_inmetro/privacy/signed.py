"""Ledgers as one signed document that anybody can check with the public key (Ed25519).

The signature says that the holder of the key exported exactly these entries. It does not say that
the entries are all there were: what is kept of an export (its count and hash) shows later whether
the ledger still begins in the same way.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.privacy.chain import Head, canonical, write_line
from fl_inmetro.privacy.journal import cannot_write, replace_file
from fl_inmetro.privacy.ledger import Contents, Owner

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FORMAT = "fl-inmetro-ledger-export/1"

#: Stands before what is signed, so that no other document's signature passes for one of ours.
_CONTEXT = b"fl-inmetro ledger export\n"


@dataclass(frozen=True)
class Exported:
    """One ledger of an export that was checked.

    Attributes:
        owner: Whose ledger it is.
        head: Its end when it was exported.
    """

    owner: Owner
    head: Head


@dataclass(frozen=True)
class Verified:
    """An export that was checked.

    Attributes:
        made_utc: When it was made, by the clock of the machine that made it.
        public_key: The key that signed it, base64.
        ledgers: The ledgers in it.
    """

    made_utc: str
    public_key: str
    ledgers: tuple[Exported, ...]


def sign(ledgers: Sequence[Contents], key: Ed25519PrivateKey) -> dict[str, Any]:
    """Return the signed document of ledgers that were read and checked, as plain data."""
    content = {
        "format": FORMAT,
        "made_utc": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "ledgers": [
            {
                "federation": one.owner.federation,
                "client": one.owner.client,
                "entries": len(one.bodies),
                "hash": one.hash,
                "lines": list(one.bodies),
            }
            for one in ledgers
        ],
    }
    return {
        "content": content,
        "public_key": public_key_of(key),
        "signature": base64.b64encode(key.sign(_CONTEXT + canonical(content))).decode("ascii"),
    }


#: Bytes of a public key of Ed25519 (RFC 8032).
_KEY_BYTES = 32


def check_export(path: Path, public_key: str | None = None) -> Verified:
    """Check signature and chains of an export.

    Args:
        path: The JSON file.
        public_key: The key that must have signed it, base64; without it the one in the file, which
            shows that the file is whole, but not who made it.

    Raises:
        PrivacyError: FL425 when it is not such a document, was changed, or another key signed it;
            FL427 when it is not there.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    def wrong(what: str) -> PrivacyError:
        return PrivacyError(
            Fault("FL425", what, str(path), "ask for the export again, and keep this file apart")
        )

    if public_key is not None and not _is_key(public_key):
        raise PrivacyError(
            Fault(
                "FL425",
                "the key to hold the export to is none: a public key is 32 bytes in base64",
                public_key,
                "copy it whole from who made the export; `privacy ledger export` prints it",
            )
        )
    try:
        document = json.loads(path.read_bytes())
        content, said = document["content"], str(document["public_key"])
        signed = _CONTEXT + canonical(content)
        signature = base64.b64decode(document["signature"], validate=True)
        given = said if public_key is None else public_key
        signer = Ed25519PublicKey.from_public_bytes(base64.b64decode(given, validate=True))
    except FileNotFoundError:
        raise PrivacyError(Fault("FL427", "there is no export", str(path))) from None
    except OSError as error:
        raise PrivacyError(
            Fault("FL421", f"cannot read: {error.strerror or error}", str(path))
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise wrong("this is no export of a ledger, or the key in it is none") from None
    try:
        signer.verify(signature, signed)
    except InvalidSignature:
        raise wrong(
            "the signature does not fit: the file was changed, or another key signed it"
        ) from None
    if said != given:
        raise wrong("the file names another key than the one that signed it")
    try:
        if content["format"] != FORMAT:
            raise wrong(f"its format is {content['format']!r}, this program reads {FORMAT!r}")
        ledgers = tuple(_checked(one) for one in content["ledgers"])
        return Verified(str(content["made_utc"]), given, ledgers)
    except (ValueError, KeyError, TypeError):
        raise wrong("a chain in it is not what its hash says") from None


def _is_key(given: str) -> bool:
    try:
        return len(base64.b64decode(given, validate=True)) == _KEY_BYTES
    except ValueError:
        return False


def compare_with_export(ledgers: Sequence[Contents], export: Verified) -> None:
    """Hold ledgers to an export of earlier: each must begin with all that was exported.

    This is what finds a ledger and its checkpoint that were set back together.

    Raises:
        PrivacyError: FL428, a fault for each ledger that is missing, shorter or another.
    """
    now: Mapping[Owner, Contents] = {one.owner: one for one in ledgers}
    faults = []
    for old in export.ledgers:
        name = _name(old.owner)
        found = now.get(old.owner)
        if found is None:
            faults.append(Fault("FL428", f"a ledger of the export is not here: {name}"))
        elif len(found.bodies) < old.head.entries:
            faults.append(
                Fault(
                    "FL428",
                    f"{old.head.entries} entries were exported, {len(found.bodies)} are there",
                    str(found.path),
                    "put a copy back that is not older than the export",
                )
            )
        elif _head_of(found.bodies[: old.head.entries]) != old.head:
            faults.append(
                Fault(
                    "FL428",
                    f"its first {old.head.entries} entries are not those of the export",
                    str(found.path),
                    "put a copy back that is not older than the export",
                )
            )
    if faults:
        raise PrivacyError(faults)


def signing_key(path: Path | None = None) -> Ed25519PrivateKey:
    """Return the key in `path`; without a path this user's own, made on first use.

    Raises:
        PrivacyError: FL426 when there is none in `path`, it is no Ed25519 key, others may read
            it, or it cannot be made.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    file = own_key_path() if path is None else path
    try:
        if path is None and not file.exists():
            _make_key(file)
        if os.name == "posix" and file.stat().st_mode & 0o077:
            raise PrivacyError(
                Fault("FL426", "others may read the signing key", str(file), f"chmod 600 {file}")
            )
        key = load_pem_private_key(file.read_bytes(), password=None)
    except OSError as error:
        raise PrivacyError(
            Fault("FL426", f"no signing key: {error.strerror or error}", str(file))
        ) from None
    except (ValueError, TypeError):
        key = None
    except Exception as error:  # cryptography's own errors have no common base
        if type(error).__module__.split(".")[0] != "cryptography":
            raise
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise PrivacyError(
            Fault(
                "FL426",
                "the file holds no Ed25519 key in PEM without a password",
                str(file),
                "leave out `--key` to have one made",
            )
        )
    return key


def own_key_path() -> Path:
    """Return where this user's signing key stands: outside of all ledgers and runs."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "fl-inmetro" / "ledger-key.pem"


def public_key_of(key: Ed25519PrivateKey) -> str:
    """Return the public part of a key, 32 bytes in base64."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode("ascii")


def write_document(path: Path, content: bytes) -> None:
    """Write an export or a statement, whole, for its owner's eyes.

    Raises:
        PrivacyError: FL421 when it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    except OSError as error:
        raise cannot_write(path, error) from None


# ------------------------------------------------------------------------------ internals
def _head_of(bodies: Sequence[dict[str, Any]]) -> Head:
    head = Head()
    for body in bodies:
        head = write_line(head, body)[1].head
    return head


def _checked(ledger: Mapping[str, Any]) -> Exported:
    head = _head_of(ledger["lines"])
    if (head.entries, head.hash) != (ledger["entries"], ledger["hash"]):
        raise ValueError("another hash")
    try:
        return Exported(Owner(ledger["federation"], ledger["client"]), head)
    except PrivacyError:
        raise ValueError("no owner") from None


def _name(owner: Owner) -> str:
    return owner.federation if owner.client is None else f"{owner.federation} / {owner.client}"


def _make_key(path: Path) -> None:
    """Make a key; of those that do so at once, one wins and all use its key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    own = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}")
    replace_file(own, pem)
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink()
