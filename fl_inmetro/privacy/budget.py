"""Budgets: the most that may be spent on one run, one client or one federation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, get_args

from fl_inmetro.errors import BudgetError, Fault, PrivacyError
from fl_inmetro.privacy.mechanism import Events, Relation, relation_of
from fl_inmetro.privacy.release import Release, Subject, spending

Scope = Literal["run", "client", "federation"]

#: How far a noise multiplier that would do is looked for, in doublings, and how closely.
_DOUBLINGS, _HALVINGS = 12, 4


@dataclass(frozen=True)
class Accountant:
    """A way to count, with its name.

    Attributes:
        name: Which accountant in which version; goes into the ledger.
        epsilon: Function of what was spent and of delta; an upper bound of epsilon, growing with
            what is spent.
    """

    name: str
    epsilon: Callable[[Events, float], float]


@dataclass(frozen=True)
class Budget:
    """The most that may be spent.

    Attributes:
        epsilon: Largest epsilon, above 0.
        delta: The delta at which it is taken, in (0, 1).
        scope: Over what it adds up: a `run` within one ledger, all of a `client`'s ledger, or all
            of the `federation`'s.
        subject: Whom it protects; a release with another subject does not fit the budget's units.
        relation: Neighbouring data sets, likewise.
    """

    epsilon: float
    delta: float
    scope: Scope
    subject: Subject = "client"
    relation: Relation = "add-remove"

    def __post_init__(self) -> None:
        what = [
            f"`epsilon` of a budget is a number above 0, not {self.epsilon!r}"
            for _ in range(not 0 < self.epsilon < math.inf)
        ]
        if not 0 < self.delta < 1:
            what.append(f"`delta` of a budget is in (0, 1), not {self.delta!r}")
        for name, choices in (
            ("scope", get_args(Scope)),
            ("subject", get_args(Subject)),
            ("relation", get_args(Relation)),
        ):
            if getattr(self, name) not in choices:
                what.append(f"`{name}` of a budget is one of {', '.join(choices)}")
        if what:
            raise PrivacyError(Fault("FL423", one) for one in what)


@dataclass(frozen=True)
class Verdict:
    """What a budget says to a release.

    Attributes:
        budget: The budget.
        account: Name of the accountant.
        events_before: What was spent so far, within the budget's scope.
        epsilon_before: Epsilon of that.
        epsilon_after: Spent when the release leaves.
    """

    budget: Budget
    account: str
    events_before: Events
    epsilon_before: float
    epsilon_after: float

    @property
    def allowed(self) -> bool:
        """Whether the release stays within the budget; an account that gives NaN does not."""
        return self.epsilon_after <= self.budget.epsilon

    def to_json(self) -> dict[str, Any]:
        """Return it as a ledger notes it: only what is allowed is noted, so all is finite."""
        return {
            "accountant": self.account,
            "delta": float(self.budget.delta),
            "epsilon": float(self.epsilon_after),
            "limit": float(self.budget.epsilon),
            "scope": self.budget.scope,
        }


def both_accountants() -> Accountant:
    """Return the smaller of RDP and PLD, see `accountant`; needs the extra `[privacy]`.

    Raises:
        PrivacyError: FL403, `dp-accounting` is not installed.
    """
    from fl_inmetro.privacy import accountant

    @lru_cache(maxsize=64)  # what a release costs in the end is what the next one begins with
    def epsilon(events: Events, delta: float) -> float:
        return accountant.account(events, delta).epsilon

    return Accountant(f"min(RDP, PLD), dp-accounting {accountant.version()}", epsilon)


def judge(
    budget: Budget, spent: Sequence[Release], wanted: Release, account: Accountant
) -> Verdict:
    """Say whether `wanted` may follow what was released before within the budget's scope.

    Raises:
        PrivacyError: FL429 when a release protects another subject, or under another relation,
            than the budget: their epsilons are of different units and do not add up. FL431 when
            a mechanism has no account.
    """
    of_one_subject((*spent, wanted), budget.subject, budget.relation)
    events = spending([*spent, wanted])
    if relation_of(events) != budget.relation:
        # Where all take part the accountants take one record more or less; replaced costs more.
        raise PrivacyError(
            Fault(
                "FL429",
                f"these releases are counted under `{relation_of(events)}`, "
                f"the budget is stated under `{budget.relation}`",
                f"run {wanted.run}, round {wanted.round}, {wanted.what}",
                f"state the budget and the releases under `{relation_of(events)}`",
            )
        )
    events_before = spending(spent)
    before = account.epsilon(events_before, budget.delta) if spent else 0.0
    after = account.epsilon(events, budget.delta)
    return Verdict(budget, account.name, events_before, before, after)


def of_one_subject(releases: Iterable[Release], subject: Subject, relation: Relation) -> None:
    """Look whether releases protect whom a budget is stated for.

    Raises:
        PrivacyError: FL429, one of them protects another, or under another relation.
    """
    for one in releases:
        if (one.subject, one.relation) != (subject, relation):
            raise PrivacyError(
                Fault(
                    "FL429",
                    f"a budget for `{subject}` ({relation}) cannot count a release that "
                    f"protects `{one.subject}` ({one.relation})",
                    f"run {one.run}, round {one.round}, {one.what}",
                    "state the budget for what the releases protect, or release under the "
                    "budget's; another `name` has a ledger of its own",
                )
            )


def refuse_excess(
    verdicts: Sequence[Verdict], wanted: Release, account: Accountant, where: str
) -> None:
    """Stop before a release that a budget does not allow; `where` names the ledger.

    Raises:
        BudgetError: FL422, a fault for each budget that would be exceeded.
    """
    faults = [
        Fault(
            "FL422",
            f"epsilon would go from {one.epsilon_before:.4g} to {one.epsilon_after:.4g} at delta "
            f"{one.budget.delta:g}; the budget of this {one.budget.scope} is "
            f"{one.budget.epsilon:g}",
            f"{where}: run {wanted.run}, round {wanted.round}, {wanted.what}",
            _what_would_work(one, wanted, account),
        )
        for one in verdicts
        if not one.allowed
    ]
    if faults:
        raise BudgetError(faults)


def over_budget(
    epsilon: tuple[float, float], budget: float, delta: float, where: str
) -> BudgetError:
    """Return the error of a run that does not fit what is left of a federation's budget.

    Args:
        epsilon: ε before the run, and with it.
        budget: The most that is allowed.
        delta: δ of both.
        where: Names the ledger and the run.
    """
    before, after = epsilon
    return BudgetError(
        Fault(
            "FL422",
            f"with this run epsilon would go from {before:.4g} to {after:.4g} at delta {delta:g}; "
            f"the budget of this federation is {budget:g}",
            where,
            "ask for a smaller `[privacy] epsilon`, for fewer rounds, or stop here; another `name` "
            "has a ledger that begins at zero, and the same people would spend both",
        )
    )


# ------------------------------------------------------------------------------ internals
def _what_would_work(verdict: Verdict, wanted: Release, account: Accountant) -> str:
    """Look for the noise with which this release would fit."""
    budget = verdict.budget
    if not verdict.epsilon_before <= budget.epsilon:
        return "nothing: the budget was spent before; no further release is allowed under it"

    def fits(noise_multiplier: float) -> bool:
        event = replace(wanted.spent(), noise_multiplier=noise_multiplier)
        return account.epsilon((*verdict.events_before, event), budget.delta) <= budget.epsilon

    low = high = wanted.noise_multiplier or 0.125
    for _ in range(_DOUBLINGS):
        high *= 2
        if fits(high):
            break
        low = high
    else:
        return "nothing more fits this budget, whatever the noise: stop here"
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if fits(middle) else (middle, high)
    # Rounded up: what is named has to fit.
    named = math.ceil(high * 1000) / 1000
    return f"stop here, or add noise: a noise multiplier of {named:g} or more would still fit"
