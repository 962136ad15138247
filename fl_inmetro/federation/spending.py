"""What a private federation spends: planned before it begins, noted before each release leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fl_inmetro import events as ev
from fl_inmetro.config.privacy import Privacy
from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.federation.group_account import GroupAccount
from fl_inmetro.i18n.said import said
from fl_inmetro.privacy import accountant
from fl_inmetro.privacy.ledger import Ledger, Owner
from fl_inmetro.privacy.release import spending
from fl_inmetro.privacy.secret import Secret

#: What is noted of a run's privacy in its directory.
Keep = Callable[[Mapping[str, Any]], None]


class Account:
    """A run's account: its secret, its ledger, and what its federations have planned.

    Args:
        settings: `[privacy]`, of somebody who is protected.
        run: Identifier of the run.
        federation: Name of the federation, whose ledger it is.
        keep: Keeps a JSON document with the run.
        kept: What was kept by the run before it was interrupted; None for a new one.
        emit: Where events go.

    Raises:
        PrivacyError: FL403, `dp-accounting` is not installed; FL405, FL420, FL421, FL424, the
            secret or the ledger cannot be used; FL416, the ledger of a resumed run is gone.
    """

    def __init__(
        self,
        settings: Privacy,
        run: str,
        federation: str,
        keep: Keep,
        kept: Mapping[str, Any] | None = None,
        emit: ev.Emit = lambda event: None,
    ) -> None:
        accountant.version()  # before anything is trained
        self.settings = settings
        self.run = run
        self.emit = emit
        self._keep = keep
        self._groups: dict[str, GroupAccount] = {}
        self._of_clients: dict[str, Ledger] = {}
        folder = Path(kept["ledger"]) if kept else Path(settings.ledger).absolute() / federation
        owner = Owner(federation)
        if kept and kept["releases"] and not (folder / "federation.ledger").is_file():
            raise PrivacyError(
                Fault(
                    "FL416",
                    f"the ledger of run `{run}` is not where it was",
                    str(folder),
                    "bring the folder back: what was spent before is written there and nowhere "
                    "else; or begin a new run",
                )
            )
        secret = folder / "secrets" / f"{run}.secret"
        if kept and kept["releases"] and not secret.is_file():
            emit(ev.Note("warning", said("privacy_lost_secret", path=str(secret))))
        self.secret = Secret.kept(secret)
        self.ledger = Ledger(folder, owner)
        self.record: dict[str, Any] = dict(kept or {}) or {
            "protect": settings.protect,
            "delta": settings.delta,
            "ledger": str(folder),
            "federation": federation,
            "releases": 0,
            "models": {},
        }
        self._save()

    def of_client(self, name: str) -> Ledger:
        """Return the ledger of a client that is simulated here."""
        if name not in self._of_clients:
            owner = Owner(self.ledger.owner.federation, name)
            self._of_clients[name] = Ledger(self.ledger.path.parent, owner)
        return self._of_clients[name]

    def group(self, key: str, group: int = 1) -> GroupAccount:
        """Return the account of one federation of the run.

        Args:
            key: Name of its model, for example `mlp-federated-g0000`.
            group: Training windows of the one who is protected.
        """
        one = GroupAccount(self, key, group)
        self._groups[key] = one
        return one

    def of(self, key: str) -> GroupAccount | None:
        """Return the account of a federation that was opened; None where there is none."""
        return self._groups.get(key)

    def close(self) -> dict[str, tuple[float, float]]:
        """Sum up a run that is done, and forget its secret.

        Nobody has any use of the secret then but to undo the noise.

        Returns:
            Model to ε that was spent, and that was planned.
        """
        spent = {key: one.spent() for key, one in self._groups.items()}
        for key, epsilon in spent.items():
            self.note(key, {"spent": epsilon})
        of_run = [e for e in self.ledger.entries() if e.release.run.split("/")[0] == self.run]
        self.record["releases"] = len(of_run)
        self._save()
        (self.ledger.path.parent / "secrets" / f"{self.run}.secret").unlink(missing_ok=True)
        models = self.record["models"]
        return {key: (epsilon, models[key]["epsilon"]) for key, epsilon in spent.items()}

    def together(self) -> float | None:
        """Return ε of all that the ledger holds; None where it holds one federation of one run.

        The ε of several runs, or of several models of one, are not each other's: who is in all of
        them has all of it.

        Raises:
            PrivacyError: As `accountant.account`.
        """
        releases = [entry.release for entry in self.ledger.entries()]
        alike = [one for one in releases if one.subject == self.settings.protect]
        if len({one.run for one in alike}) < 2:
            return None
        return accountant.account(spending(alike), self.settings.delta).epsilon

    def note(self, key: str, values: Mapping[str, Any]) -> None:
        """Keep something about one federation with the run."""
        self.record["models"].setdefault(key, {}).update(values)
        self._save()

    def released(self) -> None:
        """Count a release, so that a resumed run asks for its ledger."""
        if not self.record["releases"]:
            self.record["releases"] = 1
            self._save()

    def _save(self) -> None:
        self._keep(self.record)


def read_kept(text: bytes | None) -> dict[str, Any] | None:
    """Read what `Keep` has kept; None where nothing was."""
    return None if text is None else dict(json.loads(text))
