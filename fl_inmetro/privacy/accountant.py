"""Epsilon and delta of what was spent, by two accountants, both upper bounds.

RDP (Rényi differential privacy, the moments accountant) and PLD (the privacy loss distribution on
a grid, rounded against us) through Google's `dp-accounting`, the extra `[privacy]`, which is
imported when a number is asked for and not before.

    draws                 RDP                                         PLD
    all                   exact Gaussian                              exact Gaussian
    poisson               Mironov, Talwar, Zhang 2019                 Doroshenko et al. 2022
    poisson, group k      k records in the sum when any of them is    mixture of Gaussians,
                          drawn: q' = 1 − (1 − q)^k, z' = z/k         Binomial(k, q) (Ganesh 2024)
    poisson, replaced     as if all were in every sum, z' = z/2k      two mixtures, see `group_size`
    without-replacement   Wang, Balle, Kasiviswanathan 2019,          Balle, Barthe, Gaboardi 2018,
                          theorem 27, with sensitivity 2 C            theorem 9, see `fixed_size`
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fl_inmetro.errors import Fault, PrivacyError
from fl_inmetro.privacy.mechanism import Gaussian, Parts, Relation, parts

if TYPE_CHECKING:
    from types import ModuleType

#: Orders of RDP: dense where large epsilons are decided, sparse where small ones are.
ORDERS = (
    *(1 + x / 10 for x in range(1, 100)),
    *range(11, 64),
    *(64, 72, 80, 96, 112, 128, 160, 192, 256, 384, 512, 768, 1024),
)

#: Steps of the grid of losses per unit of the RDP epsilon, and the finest and coarsest grid.
_STEPS, _FINEST, _COARSEST = 20_000, 1e-5, 0.02

#: Above this the bound by RDP stands for both: a grid of such losses fills the memory, to no end.
_MEANINGLESS = 5_000.0


@dataclass(frozen=True)
class Account:
    """What events cost, as (ε, δ).

    Attributes:
        epsilon_rdp: ε by RDP at `delta`; infinite without noise.
        epsilon_pld: ε by PLD at `delta`.
        delta: δ.
        relation: Data sets that count as neighbours.
    """

    epsilon_rdp: float
    epsilon_pld: float
    delta: float
    relation: Relation

    @property
    def epsilon(self) -> float:
        """The smaller one: both are upper bounds."""
        return min(self.epsilon_rdp, self.epsilon_pld)


def account(events: Iterable[Gaussian], delta: float) -> Account:
    """Return what events cost at δ, by both accountants.

    Raises:
        PrivacyError: FL401, δ is not in (0, 1); FL402, events that have no common relation;
            FL403, `dp-accounting` is not installed.
    """
    given = parts(events)
    with _quiet():
        rdp = _rdp_epsilon(given, _checked(delta))
        return Account(rdp, _pld_epsilon(given, delta, rdp), delta, given.relation)


def epsilon_rdp(events: Iterable[Gaussian], delta: float) -> float:
    """Return ε at δ by RDP. Errors as in `account`."""
    with _quiet():
        return _rdp_epsilon(parts(events), _checked(delta))


def epsilon_pld(events: Iterable[Gaussian], delta: float) -> float:
    """Return ε at δ by PLD. Errors as in `account`."""
    return account(events, delta).epsilon_pld


def delta_rdp(events: Iterable[Gaussian], epsilon: float) -> float:
    """Return δ at ε ≥ 0 by RDP. Errors as in `account`."""
    _checked_epsilon(epsilon)
    given = parts(events)
    trivial = _trivial(given)
    if trivial is not None:
        return min(trivial, 1.0)
    divergences = _rdp(given)
    from dp_accounting.rdp.rdp_privacy_accountant import compute_delta

    return float(compute_delta(ORDERS, divergences, epsilon)[0])


def delta_pld(events: Iterable[Gaussian], epsilon: float) -> float:
    """Return δ at ε ≥ 0 by PLD. Errors as in `account`."""
    _checked_epsilon(epsilon)
    given = parts(events)
    trivial = _trivial(given)
    if trivial is not None:
        return min(trivial, 1.0)
    # The grid of ε at some δ: any grid gives a bound, this one a close one.
    return float(_pld(given, _grid(_rdp_epsilon(given, 1e-6))).get_delta_for_epsilon(epsilon))


def version() -> str:
    """Return the version of `dp-accounting`, for a record of who counted."""
    from importlib.metadata import version as installed

    _library()
    return installed("dp-accounting")


# ------------------------------------------------------------------------------ internals
def _quiet() -> AbstractContextManager[None]:
    """Return what keeps NumPy's warnings off the terminal: orders that overflow are not chosen."""
    _library()
    import numpy as np

    return np.errstate(over="ignore", invalid="ignore")


def _library() -> ModuleType:
    try:
        import dp_accounting
    except ImportError as error:
        raise PrivacyError(
            Fault(
                "FL403",
                f"privacy accounts need a package that is not installed: {error.name}",
                "fl_inmetro.privacy",
                'install the extra: pip install "fl-inmetro[privacy]"',
            )
        ) from error
    return dp_accounting  # type: ignore[no-any-return]


def _checked(delta: float) -> float:
    if not 0 < delta < 1:
        hint = "below 1/K for K clients, for example 1e-5"
        raise PrivacyError(Fault("FL401", f"delta is in (0, 1), not {delta}", "an account", hint))
    return delta


def _checked_epsilon(epsilon: float) -> None:
    if not (math.isfinite(epsilon) and epsilon >= 0):
        raise PrivacyError(Fault("FL401", f"epsilon is a number from 0, not {epsilon}", "account"))


def _trivial(given: Parts) -> float | None:
    """Return 0 where nothing was released, infinity where something was without noise."""
    if math.isinf(given.precision) or any(event.noise_multiplier == 0 for event in given.drawn):
        return math.inf
    return None if given.precision or given.drawn else 0.0


def _rdp_epsilon(given: Parts, delta: float) -> float:
    trivial = _trivial(given)
    if trivial is not None:
        return trivial
    divergences = _rdp(given)
    return float(_library().rdp.compute_epsilon(ORDERS, divergences, delta)[0])


def _rdp(given: Parts) -> list[float]:
    """Return the Rényi divergence at each of `ORDERS`."""
    dp = _library()
    relations = dp.NeighboringRelation
    replace = given.relation == "replace"
    orders = ORDERS if replace else tuple(a for a in ORDERS if float(a).is_integer())
    accountant = dp.rdp.RdpAccountant(
        orders, relations.REPLACE_ONE if replace else relations.ADD_OR_REMOVE_ONE
    )
    if given.precision:
        # The most that can change is in `precision` already; the library's RDP takes z as it is.
        accountant.compose(dp.GaussianDpEvent(1 / math.sqrt(given.precision)))
    for event in given.drawn:
        z, q = event.noise_multiplier, event.sampling_rate
        if event.sampling == "poisson" and event.relation == "replace":
            # No draws are counted on: a plain bound, of which PLD is far below.
            one = dp.GaussianDpEvent(z / (2 * event.group))
        elif event.sampling == "without-replacement":
            # Theorem 27 counts noise over what a replaced record changes: 2 C, hence z/2.
            m, n = q.as_integer_ratio()
            one = dp.SampledWithoutReplacementDpEvent(n, m, dp.GaussianDpEvent(z / 2))
        else:
            z, q = _poisson(event)
            one = dp.PoissonSampledDpEvent(q, dp.GaussianDpEvent(z))
        accountant.compose(one, event.times)
    found = dict(zip(orders, accountant.rdp.tolist(), strict=True))
    return [found[a] if a in found else _between(given, a) for a in ORDERS]


def _between(given: Parts, order: float) -> float:
    """Return the divergence at an order that is not whole.

    The library's series stops early there, or does not converge: with q = 0.02, z = 0.5 it is
    10 % too large at order 1.4, which decides large epsilons.
    """
    from fl_inmetro.privacy.renyi import poisson_divergence

    drawn = (e.times * poisson_divergence(order, *_poisson(e)) for e in given.drawn)
    return given.precision * order / 2 + math.fsum(drawn)


def _poisson(event: Gaussian) -> tuple[float, float]:
    """Return z and q of Poisson draws that bound those of a group, see the table above."""
    any_of_them = -math.expm1(event.group * math.log1p(-event.sampling_rate))
    return event.noise_multiplier / event.group, any_of_them


def _grid(rdp: float) -> float:
    """Return the grid's step: every step gives an upper bound, a fine one a closer bound."""
    return min(max(rdp / _STEPS, _FINEST), _COARSEST)


def _pld_epsilon(given: Parts, delta: float, rdp: float) -> float:
    trivial = _trivial(given)
    if trivial is not None:
        return trivial
    if rdp > _MEANINGLESS:
        return rdp
    found = float(_pld(given, _grid(rdp)).get_epsilon_for_delta(delta))
    if found < rdp / 2:
        # Far below RDP, as with groups: the grid was made for a larger loss.
        found = min(found, float(_pld(given, _grid(found)).get_epsilon_for_delta(delta)))
    return found


def _pld(given: Parts, step: float) -> Any:
    _library()
    from dp_accounting.pld import privacy_loss_distribution as pld

    total = pld.identity(value_discretization_interval=step)
    if given.precision:
        deviation = 1 / math.sqrt(given.precision)
        total = total.compose(
            pld.from_gaussian_mechanism(deviation, value_discretization_interval=step)
        )
    for event in given.drawn:
        total = total.compose(_drawn(event, step).self_compose(event.times))
    return total


def _drawn(event: Gaussian, step: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution as pld

    z, q, k = event.noise_multiplier, event.sampling_rate, event.group
    if event.sampling == "without-replacement":
        from fl_inmetro.privacy.fixed_size import loss_distribution

        return loss_distribution(z, q, step)
    replaced = event.relation == "replace"
    if k == 1 and not replaced:
        return pld.from_gaussian_mechanism(z, value_discretization_interval=step, sampling_prob=q)
    from fl_inmetro.privacy.group_size import loss_distribution as of_group

    return of_group(z, q, k, step, replaced=replaced)
