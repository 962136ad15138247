"""A node's own ledger: what leaves it under `[privacy]` is written down before it leaves.

The federation's ledger counts the client that spends most. A node counts itself: by its own
windows, its own batches and its own noise. Where the noise is the server's, and who is drawn for a
round the server's secret, it has to take the server's word, and counts all rounds as soon as it is
in one: a client that is not drawn is hidden in the rounds of the others, and spends as they do.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.federation.requests import TrainRequest
from fl_inmetro.federation.worst_case import steps_spent
from fl_inmetro.learning.client import ClientWorker
from fl_inmetro.learning.private_moments import WINDOW_NORM, MomentsAsked
from fl_inmetro.privacy.budget import Budget, both_accountants
from fl_inmetro.privacy.claim import Claim
from fl_inmetro.privacy.ledger import Ledger, Owner
from fl_inmetro.privacy.mechanism import Gaussian
from fl_inmetro.privacy.release import Release, Subject, digest_of, relation_under


class OwnLedger:
    """Where a node notes what leaves it.

    Args:
        folder: Folder of its ledgers; each federation has a folder there.
        budget: ε of all that may ever leave the node for one federation; None = no limit. With
            one, the node answers no request that promises nothing.
        delta: δ of the budget.
        protect: Whom the node insists that a request protects; None = whom the run says. Where it
            is not `client`, no error leaves the node either: it would have no noise.
    """

    def __init__(
        self,
        folder: Path,
        budget: float | None = None,
        delta: float = 1e-5,
        protect: Subject | None = None,
    ) -> None:
        self._folder, self._budget, self._delta, self._protect = folder, budget, delta, protect

    def enrolled(
        self, worker: ClientWorker, asked: MomentsAsked | None, claim: Claim | None
    ) -> None:
        """Note what enrolment lets leave.

        Raises:
            BudgetError: FL422, the node's budget does not allow it; nothing may leave.
            PrivacyError: FL418, sums would leave without a promise; as `Ledger`.
        """
        if asked is not None and asked.unit == "nothing":
            return
        if asked is None or claim is None or self._another(claim):
            self._unpromised()
        elif asked.unit == "client":
            self._write(worker, claim, "scaler", claim.event, 0, _same(claim, "scaler", 0))
        else:
            group, relation = _group(worker, claim), relation_under(claim.subject)
            event = Gaussian(asked.noise_multiplier, 1.0, 1, "all", group, relation)
            self._write(worker, claim, "scaler", event, 0, _other(), WINDOW_NORM)

    def trained(self, worker: ClientWorker, request: TrainRequest, claim: Claim | None) -> None:
        """Note what a round of training lets leave.

        Raises:
            BudgetError: FL422, the node's budget does not allow it; nothing may leave.
            PrivacyError: FL418, an update would leave without a promise; as `Ledger`.
        """
        if claim is None or self._another(claim):
            return self._unpromised()
        what = "statistics" if worker.learner.closed_form else "update"
        dp = request.work.dp
        if claim.subject == "client":
            return self._as_a_whole(worker, what, request.round, claim)
        if dp is None or not dp.noise_multiplier:
            return self._unpromised()
        group, relation = _group(worker, claim), relation_under(claim.subject)
        if worker.learner.closed_form:
            event = Gaussian(dp.noise_multiplier, 1.0, 1, "all", group, relation)
            return self._write(worker, claim, what, event, request.round, _other(), dp.clip)
        windows = len(worker.train_design.x)
        if not windows:
            return None
        event = steps_spent(
            dp.noise_multiplier,
            windows,
            worker.learner.settings.batch_size,  # type: ignore[attr-defined]  # gradient learners
            1,
            request.work.epochs,
            request.work.steps,
            group,
            relation,
        )
        return self._write(worker, claim, what, event, request.round, _other(), dp.clip)

    def scored(self, worker: ClientWorker, round_: int, claim: Claim | None) -> None:
        """Note the errors that score a round; they get their noise at the server.

        Without a claim they leave for who runs the study alone, who is told without noise.

        Raises:
            BudgetError: FL422, the node's budget does not allow it; nothing may leave.
        """
        if self._protect in ("window", "client-day"):
            self._unpromised()
        if claim is not None:
            what = "metrics"
            self._write(worker, claim, what, claim.event, round_, _same(claim, what, round_))

    # ------------------------------------------------------------------------------ internals
    def _as_a_whole(self, worker: ClientWorker, what: str, round_: int, claim: Claim) -> None:
        """Note a round of whole clients; where they are drawn, all rounds, at the first one."""
        event, number = claim.event, round_
        if event.sampling != "all":
            event, number = replace(event, times=claim.rounds), 1
        self._write(worker, claim, what, event, number, _same(claim, what, number))

    def _write(
        self,
        worker: ClientWorker,
        claim: Claim,
        what: str,
        event: Gaussian,
        round_: int,
        digest: str,
        sensitivity: float | None = None,
    ) -> None:
        release = Release(
            run=claim.run,
            round=round_,
            what=what,
            mechanism="gaussian",
            noise_multiplier=event.noise_multiplier,
            sensitivity=claim.sensitivity if sensitivity is None else sensitivity,
            sampling=event.sampling,
            sampling_rate=event.sampling_rate,
            times=event.times,
            group=event.group,
            relation=relation_under(claim.subject),
            subject=claim.subject,
            digest=digest,
        )
        # The name comes from elsewhere: it may not lead out of the folder.
        place = quote(claim.federation, safe="")
        if place in (".", ".."):
            place = place.replace(".", "%2E")
        ledger = Ledger(self._folder / place, Owner(claim.federation, worker.client_id))
        if self._budget is None:
            ledger.record(release)
            return
        relation = relation_under(claim.subject)
        budget = Budget(self._budget, self._delta, "client", claim.subject, relation)
        ledger.record(release, (budget,), both_accountants())

    def _another(self, claim: Claim) -> bool:
        return self._protect is not None and claim.subject != self._protect

    def _unpromised(self) -> None:
        """Refuse what promises nothing, where the node has a budget; without one it is asked so."""
        if self._budget is not None or self._protect is not None:
            raise PrivacyError(
                Fault(
                    "FL418",
                    "the server asks for what would leave without the noise that this node wants",
                    f"budget = {self._budget}, protect = {self._protect}",
                    "a run whose `[privacy]` protects whom the node says",
                )
            )


def _group(worker: ClientWorker, claim: Claim) -> int:
    """Return the windows of the one who is protected, by the node's own readings."""
    return worker.windows_of_a_day if claim.subject == "client-day" else 1


def _same(claim: Claim, what: str, round_: int) -> str:
    """Return the digest of what the server releases: from the same secret it is the same."""
    return digest_of([claim.token.encode(), what.encode(), str(round_).encode()])


def _other() -> str:
    """Return the digest of what has noise of the node's own: no two are the same."""
    return digest_of([secrets.token_bytes(32)])
