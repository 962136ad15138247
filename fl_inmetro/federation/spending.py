"""What a private federation spends: planned before it begins, noted before each release leaves."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fl_inmetro import events as ev
from fl_inmetro.config.privacy import Privacy
from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.i18n.said import said
from fl_inmetro.learning.work import steps_of
from fl_inmetro.privacy import accountant
from fl_inmetro.privacy.budget import Accountant, Budget, of_one_subject, over_budget
from fl_inmetro.privacy.ledger import Ledger, Owner
from fl_inmetro.privacy.mechanism import Events, Gaussian
from fl_inmetro.privacy.plan import Planned, planned
from fl_inmetro.privacy.release import Release, Subject, digest_of, spending
from fl_inmetro.privacy.secret import Secret

#: Who spends so much of the most, by RDP, may spend the most by the other account.
_NEAR = 0.9

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
        self.secret = Secret.kept(folder / "secrets" / f"{run}.secret")
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
        self._bounds: list[tuple[Counter[Gaussian], float]] = []

    # ------------------------------------------------------------------------------- plan
    def scaler(self) -> Gaussian | None:
        """Return the noise of the sums that standardise features; None where there are none.

        It is planned before anybody enrols, by its share of ε alone; without an ε it has the noise
        multiplier of the updates.
        """
        share = self.settings.scaler_share
        event = Gaussian(self._given, 1.0, 1, "all", self._group)
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
        self, rounds: int, windows: Iterable[int], batch_size: int, epochs: int, most_steps: int
    ) -> set[Gaussian]:
        """Return what clients spend by DP-SGD that are in every round.

        Args:
            rounds: Rounds of the federation.
            windows: Training windows of the clients.
            batch_size: Windows of a step; 0 = all.
            epochs: Local epochs of a round.
            most_steps: At most so many steps of them; 0 = all.
        """
        of_steps = (batch_size, rounds, epochs, most_steps, self._group)
        return {_steps(self._given, count, *of_steps) for count in windows if count}

    def of_statistics(self) -> set[Gaussian]:
        """Return what one sum over all records spends."""
        return {Gaussian(self._given, 1.0, 1, "all", self._group)}

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

    def begin(self, kinds: Iterable[Gaussian], rounds: int, scaler: Gaussian | None) -> Planned:
        """Plan the noise of the rounds, and refuse what the budgets do not allow.

        Args:
            kinds: What the updates spend in all rounds, a kind for each sort of client.
            rounds: Rounds that are scored.
            scaler: What was planned for the standardisation.

        Raises:
            BudgetError: FL422, this run does not fit what is left of the budget.
            PrivacyError: FL404, no noise keeps such a promise; FL406, there is nobody who has
                anything to train on; FL429, the ledger holds releases that protect others.
        """
        s = self.settings
        z = self._given
        # However many windows a day is in, it moves its client's error within its limits.
        metrics = Gaussian(z, 1.0, rounds, "all") if s.metrics_share else None
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
        plan, total = _for_the_worst(kinds, wanted)
        self.plan = plan
        self._bounds = [(_counted(plan.events), total)]
        if s.budget is not None:
            self._within_budget(plan, s.budget)
        described = [asdict(event) for event in plan.events]
        self._account.note(
            self._key,
            {"planned": described, "epsilon": total, "clip": s.clip, "group": self._group},
        )
        self._account.emit(ev.Note("info", self._in_words(plan, total)))
        return plan

    def _within_budget(self, plan: Planned, budget: float) -> None:
        """Refuse a run that would exceed what all runs of the federation may spend together."""
        own = self._name
        ledger = self._account.ledger
        earlier = [e.release for e in ledger.entries() if e.release.run != own]
        of_one_subject(earlier, self.protect, "add-remove")
        before = spending(earlier)
        together = (*before, *plan.events)
        total = accountant.account(together, self.settings.delta).epsilon
        self._bounds.append((_counted(together), total))
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
            relation="add-remove",
            subject=self.protect,
            digest=digest,
        )
        subject = release.subject
        budgets = []
        if s.goal is not None:
            budgets.append(Budget(s.goal, s.delta, "run", subject))
        if s.budget is not None:
            budgets.append(Budget(s.budget, s.delta, "federation", subject))
        account = Accountant(f"min(RDP, PLD), dp-accounting {accountant.version()}", self._epsilon)
        self._account.ledger.record(release, budgets, account if budgets else None)
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
            if _counted(events) <= bound:
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


def _steps(
    z: float, count: int, batch_size: int, rounds: int, epochs: int, most: int, group: int
) -> Gaussian:
    """Return what a client of `count` windows spends when it is in every round."""
    rate = min(1.0, (batch_size or count) / count)
    times = rounds * steps_of(count, batch_size, epochs, most)
    return Gaussian(z, rate, times, "all" if rate == 1 else "poisson", group)


def _for_the_worst(kinds: Iterable[Gaussian], wanted: Mapping[str, Any]) -> tuple[Planned, float]:
    """Plan for the client that spends most, and return ε of the plan for it.

    Short histories mean large shares in each batch. RDP, which is quick, says who comes near the
    most; those are accounted as the promise is, for the order of the two may differ.
    """
    left = sorted(_undominated(kinds), key=lambda e: (-e.sampling_rate * e.times**0.5, e.times))
    if not left:
        raise PrivacyError(
            Fault(
                "FL406",
                "no client has a window to train on, so there is nothing to protect",
                "[window], [data]",
                "give more days of readings, or fewer to validation and test",
            )
        )
    delta, goal = wanted["delta"], wanted["epsilon"]
    worst = left[0]
    tried: set[Gaussian] = set()
    while True:
        tried.add(worst)
        plan = planned(worst, **wanted)
        beside = tuple(e for e in plan.events if e is not plan.update)
        own = [replace(kind, noise_multiplier=plan.update.noise_multiplier) for kind in left]
        costs = [accountant.epsilon_rdp((*beside, event), delta) for event in own]
        near = [place for place, cost in enumerate(costs) if cost >= _NEAR * max(costs)]
        totals = {p: accountant.account((*beside, own[p]), delta).epsilon for p in near}
        most = max(totals, key=lambda place: totals[place])
        if goal is None or totals[most] <= goal or left[most] in tried:
            return replace(plan, update=own[most]), totals[most]
        worst = left[most]


def _undominated(kinds: Iterable[Gaussian]) -> list[Gaussian]:
    """Return the kinds of which no other is drawn at least as often in at least as many steps.

    An account of groups takes seconds, and most clients differ by a few windows.
    """
    left: list[Gaussian] = []
    for kind in sorted(kinds, key=lambda e: (-e.sampling_rate, -e.times)):
        if not left or kind.times > max(one.times for one in left):
            left.append(kind)
    return left


def _counted(events: Sequence[Gaussian]) -> Counter[Gaussian]:
    counts: Counter[Gaussian] = Counter()
    for event in events:
        counts[replace(event, times=1)] += event.times
    return counts


def read_kept(text: bytes | None) -> dict[str, Any] | None:
    """Read what `Keep` has kept; None where nothing was."""
    return None if text is None else dict(json.loads(text))
