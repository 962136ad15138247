"""The account of one federation of a run: its plan, its noise, and what it has released."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from fl_inmetro import events as ev
from fl_inmetro.federation.requests import ENROL, EVALUATE, TRAIN
from fl_inmetro.federation.worst_case import counted, plan_for_the_worst, steps_spent
from fl_inmetro.i18n.said import said
from fl_inmetro.privacy import accountant
from fl_inmetro.privacy.budget import Accountant, Budget, of_one_subject, over_budget
from fl_inmetro.privacy.claim import Claim
from fl_inmetro.privacy.mechanism import Events, Gaussian
from fl_inmetro.privacy.plan import Planned
from fl_inmetro.privacy.release import Release, Subject, digest_of, relation_under, spending

if TYPE_CHECKING:
    from fl_inmetro.federation.spending import Account


class GroupAccount:
    """What one federation of a run plans, draws its noise from, and notes.

    Args:
        account: The run's.
        key: Name of the federation's model.
        group: Windows that belong to the one who is protected.
    """

    def __init__(self, account: Account, key: str, group: int) -> None:
        self.settings = account.settings
        self.protect: Subject = account.settings.protect  # type: ignore[assignment]  # not "nobody"
        self.secret = account.secret.child("federation", key)
        self.plan: Planned | None = None
        self._account = account
        self._key = key
        self._group = group
        self._relation = relation_under(self.protect)
        self._bounds: list[tuple[Counter[Gaussian], float]] = []
        self._rounds = 1
        self._kinds: dict[str, Gaussian] = {}
        self._here: tuple[str, ...] = ()

    # ------------------------------------------------------------------------------- plan
    def scaler(self) -> Gaussian | None:
        """Return the noise of the sums that standardise features; None where there are none.

        It is planned before anybody enrols, by its share of ε alone; without an ε it has the noise
        multiplier of the updates.
        """
        share = self.settings.scaler_share
        event = Gaussian(self._given, 1.0, 1, "all", self._group, self._relation)
        if not share or self.settings.goal is None:
            return event if share else None
        return self._beside(event, share)

    def _beside(self, event: Gaussian, share: float) -> Gaussian:
        from fl_inmetro.privacy.calibrate import smallest_noise

        assert self.settings.goal is not None
        return smallest_noise(event, share * self.settings.goal, self.settings.delta)

    def of_clients(self, rounds: int, fraction: float) -> set[Gaussian]:
        """Return what rounds spend in which each client is with chance `fraction`, as a whole."""
        return {Gaussian(self._given, fraction, rounds, "all" if fraction == 1 else "poisson")}

    def of_windows(
        self,
        rounds: int,
        windows: Mapping[str, int],
        batch_size: int,
        epochs: int,
        most_steps: int,
    ) -> set[Gaussian]:
        """Return what clients spend by DP-SGD that are in every round.

        Args:
            rounds: Rounds of the federation.
            windows: Client to its training windows.
            batch_size: Windows of a step; 0 = all.
            epochs: Local epochs of a round.
            most_steps: At most so many steps of them; 0 = all.
        """
        of_steps = (batch_size, rounds, epochs, most_steps, self._group, self._relation)
        self._kinds = {
            name: steps_spent(self._given, count, *of_steps)
            for name, count in windows.items()
            if count
        }
        return set(self._kinds.values())

    def of_statistics(self) -> set[Gaussian]:
        """Return what one sum over all records spends."""
        return {Gaussian(self._given, 1.0, 1, "all", self._group, self._relation)}

    @property
    def _given(self) -> float:
        """The noise multiplier that was given; any, where there is an ε."""
        return self.settings.noise_multiplier or 1.0

    def book(self, round_: int, what: str, event: Gaussian, sensitivity: float) -> None:
        """Write down what nodes are about to be asked for; whatever they send, it is paid.

        A node that is asked again draws noise anew: no two bookings are the same release.

        Raises:
            BudgetError: As `note`.
        """
        self.note(round_, what, event, sensitivity, digest_of([secrets.token_bytes(32)]))

    def begin(
        self,
        kinds: Iterable[Gaussian],
        rounds: int,
        scaler: Gaussian | None,
        here: Iterable[str] = (),
    ) -> Planned:
        """Plan the noise of the rounds, and refuse what the budgets do not allow.

        Args:
            kinds: What the updates spend in all rounds, a kind for each sort of client.
            rounds: Rounds that are scored.
            scaler: What was planned for the standardisation.
            here: Clients of this process, whose ledgers are kept if `client_ledgers` says so.

        Raises:
            BudgetError: FL422, this run does not fit what is left of the budget.
            PrivacyError: FL404, no noise keeps such a promise; FL406, there is nobody who has
                anything to train on; FL429, the ledger holds releases that protect others.
        """
        s = self.settings
        z = self._given
        # However many windows a day is in, it moves its client's error within its limits. (Counted
        # as replaced, that has twice the noise that it needs.)
        relation = self._relation
        metrics = Gaussian(z, 1.0, rounds, "all", 1, relation) if s.metrics_share else None
        wanted = {
            "epsilon": s.goal,
            "delta": s.delta,
            "scaler": scaler,
            "scaler_share": s.scaler_share,
            "metrics": metrics,
            "metrics_share": s.metrics_share,
            "calibration": Gaussian(z, 1.0, 1, "all") if s.calibration_share else None,
            "calibration_share": s.calibration_share,
        }
        plan, total = plan_for_the_worst(kinds, wanted)
        self.plan = plan
        self._rounds = rounds
        self._here = tuple(here) if s.client_ledgers else ()
        self._bounds = [(counted(plan.events), total)]
        if s.budget is not None:
            self._within_budget(plan, s.budget)
        described = [asdict(event) for event in plan.events]
        self._account.note(
            self._key,
            {
                "planned": described,
                "epsilon": total,
                "clip": s.clip,
                "group": self._group,
                "clients": self._by_client(plan, total),
            },
        )
        self._account.emit(ev.Note("info", self._in_words(plan, total)))
        return plan

    def _by_client(self, plan: Planned, total: float) -> dict[str, float]:
        """Return ε of each client where they differ: shares of a batch do, with short histories.

        By RDP, which is quick, and never above the plan's.
        """
        if len(set(self._kinds.values())) < 2:
            return {}
        z = plan.update.noise_multiplier
        beside = tuple(event for event in plan.events if event is not plan.update)
        costs = {
            kind: accountant.epsilon_rdp(
                (*beside, replace(kind, noise_multiplier=z)), self.settings.delta
            )
            for kind in set(self._kinds.values())
        }
        return {name: min(total, costs[kind]) for name, kind in self._kinds.items()}

    def claims(self, scaler: Gaussian | None = None) -> dict[str, Claim]:
        """Return what nodes are told of the promise, by type of message.

        With `scaler`, of the sums of enrolment; without it, of the rounds and what scores them.
        """
        assert self.plan is not None
        if scaler:
            return {ENROL: self._claim(scaler, 1)}
        told = {TRAIN: self._claim(self.plan.update, self._rounds)}
        if self.plan.metrics and self.protect == "client":
            told[EVALUATE] = self._claim(self.plan.metrics, self._rounds)
        return told

    def _claim(self, event: Gaussian, rounds: int) -> Claim:
        return Claim(
            federation=self._account.ledger.owner.federation,
            run=self._name,
            subject=self.protect,
            # One way: nobody comes from it to the secret that the noise is drawn from.
            token=self.secret.child("claim").key.hex()[:32],
            noise_multiplier=event.noise_multiplier,
            sensitivity=self.settings.clip,
            sampling_rate=event.sampling_rate,
            rounds=rounds,
        )

    def _within_budget(self, plan: Planned, budget: float) -> None:
        """Refuse a run that would exceed what all runs of the federation may spend together."""
        own = self._name
        ledger = self._account.ledger
        earlier = [e.release for e in ledger.entries() if e.release.run != own]
        of_one_subject(earlier, self.protect, self._relation)
        before = spending(earlier)
        together = (*before, *plan.events)
        total = accountant.account(together, self.settings.delta).epsilon
        self._bounds.append((counted(together), total))
        if total <= budget:
            return
        spent = accountant.account(before, self.settings.delta).epsilon if before else 0.0
        raise over_budget((spent, total), budget, self.settings.delta, f"{ledger.path}: run {own}")

    # ------------------------------------------------------------------------------ spend
    def note(
        self, round_: int, what: str, event: Gaussian, sensitivity: float, digest: str
    ) -> None:
        """Write a release into the ledger; it may leave when this returns.

        Args:
            round_: Round, from 0 for what enrolment releases.
            what: What leaves: `update`, `scaler`, `metrics`.
            event: What it spends.
            sensitivity: Most that one record changes the sum.
            digest: Of the bits that leave, from `release.digest_of`.

        Raises:
            BudgetError: FL422, a budget would be exceeded; nothing may leave.
        """
        s = self.settings
        release = Release(
            run=self._name,
            round=round_,
            what=what,
            mechanism="gaussian",
            noise_multiplier=event.noise_multiplier,
            sensitivity=sensitivity,
            sampling=event.sampling,
            sampling_rate=event.sampling_rate,
            times=event.times,
            group=event.group,
            relation=self._relation,
            subject=self.protect,
            digest=digest,
        )
        subject = release.subject
        budgets = []
        if s.goal is not None:
            budgets.append(Budget(s.goal, s.delta, "run", subject, self._relation))
        if s.budget is not None:
            budgets.append(Budget(s.budget, s.delta, "federation", subject, self._relation))
        account = Accountant(f"min(RDP, plan), dp-accounting {accountant.version()}", self._epsilon)
        self._account.ledger.record(release, budgets, account if budgets else None)
        for name in self._here:
            own = event
            if what == "update" and name in self._kinds:
                kind = self._kinds[name]
                own = replace(kind, times=kind.times // self._rounds)
            self._account.of_client(name).record(
                replace(
                    release,
                    sampling=own.sampling,
                    sampling_rate=own.sampling_rate,
                    times=own.times,
                    group=own.group,
                )
            )
        self._account.released()

    def spent(self) -> float:
        """Return ε of what this federation has released so far, as the ledger has it."""
        own = [e.release for e in self._account.ledger.entries() if e.release.run == self._name]
        return self._epsilon(spending(own), self.settings.delta) if own else 0.0

    @property
    def _name(self) -> str:
        """The run in the ledger: each federation of a run is one, with a promise of its own."""
        return f"{self._account.run}/{self._key}"

    def _epsilon(self, events: Events, delta: float) -> float:
        """Return an upper bound of ε, quickly where what is spent is a part of what was planned.

        A part of the planned releases costs at most what all of them do, which PLD has counted
        once; RDP, which takes milliseconds, says less while little of them is spent.
        """
        for bound, total in self._bounds:
            if counted(events) <= bound:
                return min(accountant.epsilon_rdp(events, delta), total)
        return accountant.account(events, delta).epsilon

    def _in_words(self, plan: Planned, total: float) -> str:
        u = plan.update
        return said(
            f"privacy_planned_{self.settings.protect.replace('-', '_')}",
            epsilon=f"{total:.3g}",
            delta=f"{self.settings.delta:g}",
            group=self._group,
            noise=f"{u.noise_multiplier:.4g}",
            times=u.times,
            rate=f"{u.sampling_rate:.3g}",
        )
