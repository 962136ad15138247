"""`fl-inmetro privacy`: what noise costs, and what that means."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fl_inmetro.cli.options import AsJson, Lang
from fl_inmetro.i18n import Language, language, number, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from fl_inmetro.privacy.accountant import Account
    from fl_inmetro.privacy.mechanism import Gaussian

app = typer.Typer(help=text("privacy.help"), no_args_is_help=True)

#: Above this ε, and this share of noise in a mean, a warning is given.
_LARGE_EPSILON, _LARGE_NOISE = 10.0, 0.1

#: False positive rate at which membership tests are compared (Carlini et al. 2022).
_FALSE_POSITIVES = 0.01


@app.command("budget", help=text("privacy.budget.help"))
def budget(
    rounds: Annotated[int, typer.Option("--rounds", min=1, help=text("privacy.budget.rounds"))],
    clients: Annotated[int, typer.Option("--clients", min=1, help=text("privacy.budget.clients"))],
    fraction: Annotated[float, typer.Option(help=text("privacy.budget.fraction"))] = 1.0,
    sigma: Annotated[float | None, typer.Option(help=text("privacy.budget.sigma"))] = None,
    epsilon: Annotated[float | None, typer.Option(help=text("privacy.budget.epsilon"))] = None,
    delta: Annotated[float, typer.Option(help=text("privacy.budget.delta"))] = 1e-5,
    sampling: Annotated[str, typer.Option(help=text("privacy.budget.sampling"))] = "poisson",
    as_json: AsJson = False,
    lang: Lang = None,
) -> None:
    """Say what rounds with noise cost, or which noise a wanted epsilon needs."""
    if (sigma is None) == (epsilon is None):
        raise typer.BadParameter(text("privacy.say.one_of"))
    from fl_inmetro.privacy.accountant import account
    from fl_inmetro.privacy.calibrate import noise_for
    from fl_inmetro.privacy.mechanism import round_of_clients

    one = round_of_clients(clients, fraction, 1.0 if sigma is None else sigma, sampling)
    if epsilon is not None:
        z = noise_for(epsilon, delta, one.sampling_rate, rounds, one.sampling)
        # Rounded up, so that the number printed is one that does.
        unit = 10.0 ** (_exponent(z) - 3)
        z = round(math.ceil(z / unit) * unit, 9)
        one = round_of_clients(clients, fraction, z, sampling)
    steps = sorted({n for n in (1, 10, rounds // 2, rounds) if 0 < n <= rounds})
    curve = {n: account(_times(one, n), delta) for n in steps}
    found = _result(one, clients, rounds, curve)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False, indent=2, allow_nan=False))
        return
    _print(found, language(lang))


# ------------------------------------------------------------------------------ internals
def _times(one: Gaussian, rounds: int) -> tuple[Gaussian, ...]:
    from dataclasses import replace

    return (replace(one, times=rounds),)


def _result(one: Gaussian, clients: int, rounds: int, curve: dict[int, Account]) -> dict[str, Any]:
    from fl_inmetro.privacy.accountant import version
    from fl_inmetro.privacy.meaning import belief_from_half, odds_factor, true_positive_bound

    total = curve[rounds]
    cohort = one.sampling_rate * clients
    odds = odds_factor(total.epsilon)
    noise = one.noise_multiplier / cohort
    warnings = [
        name
        for name, there in (
            ("delta_large", total.delta >= 1 / clients),
            ("few_clients", noise > _LARGE_NOISE),
            ("epsilon_large", total.epsilon > _LARGE_EPSILON),
        )
        if there
    ]
    return {
        "rounds": rounds,
        "clients": clients,
        "clients_per_round": cohort,
        "sampling": one.sampling,
        "sampling_rate": one.sampling_rate,
        "sigma": one.noise_multiplier,
        "delta": total.delta,
        "subject": "client",
        "relation": total.relation,
        "epsilon_rdp": total.epsilon_rdp,
        "epsilon_pld": total.epsilon_pld,
        "epsilon": total.epsilon,
        "after": [
            {"rounds": n, "epsilon_rdp": spent.epsilon_rdp, "epsilon_pld": spent.epsilon_pld}
            for n, spent in curve.items()
        ],
        "odds_factor": odds if odds < float("inf") else None,
        "belief_from_half": belief_from_half(total.epsilon),
        "false_positive_rate": _FALSE_POSITIVES,
        "true_positive_bound": true_positive_bound(total.epsilon, total.delta, _FALSE_POSITIVES),
        "noise_share": noise,
        "warnings": warnings,
        "dp_accounting": version(),
    }


def _print(found: dict[str, Any], lang: Language) -> None:
    def bound(value: float, digits: int | None = None) -> str:
        # An upper bound is rounded up: a smaller number would promise too much.
        places = max(0, min(6, 2 - _exponent(value))) if digits is None else digits
        return number(math.ceil(value * 10**places - 1e-9) / 10**places, places, lang)

    def share(value: float) -> str:
        return bound(100 * value, 1) + " %"

    told = {
        "rounds": number(found["rounds"], 0, lang),
        "clients": number(found["clients"], 0, lang),
        "cohort": _short(found["clients_per_round"], lang),
        "sampling": text(f"privacy.sampling.{found['sampling']}", lang),
        "sigma": _short(found["sigma"], lang),
        "delta": _short(found["delta"], lang),
        "epsilon": bound(found["epsilon"]),
        "odds": text("privacy.say.no_bound", lang)
        if found["odds_factor"] is None or found["odds_factor"] > 1e6
        else bound(found["odds_factor"]),
        "belief": share(found["belief_from_half"]),
        "false": share(found["false_positive_rate"]),
        "true": share(found["true_positive_bound"]),
        "noise": _short(100 * found["noise_share"], lang) + " %",
    }
    typer.echo(text("privacy.say.run", lang, **told))
    typer.echo(text(f"privacy.relation.{found['relation']}", lang))
    typer.echo()
    _table(found, lang, bound)
    typer.echo()
    for line in ("bounds", f"odds.{found['relation']}", "test", "limits"):
        typer.echo(text(f"privacy.say.{line}", lang, **told))
    for name in found["warnings"]:
        typer.echo(text(f"privacy.warning.{name}", lang, **told), err=True)


def _short(value: float, lang: Language) -> str:
    """Write a number that is no bound: four significant digits, no zeros behind the mark."""
    if 1e-3 <= value < 1e6:
        plain = f"{value:.{max(0, 3 - _exponent(value))}f}"
        plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    else:
        plain = f"{value:.3g}"
    return plain if lang == "en" else plain.replace(".", ",")


def _exponent(value: float) -> int:
    return math.floor(math.log10(value)) if value > 0 else 0


def _table(found: dict[str, Any], lang: Language, bound: Callable[[float], str]) -> None:
    heads = [text(f"privacy.column.{key}", lang) for key in ("rounds", "rdp", "pld")]
    rows = [
        [number(row["rounds"], 0, lang), bound(row["epsilon_rdp"]), bound(row["epsilon_pld"])]
        for row in found["after"]
    ]
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(3)]
    for row in [heads, *rows]:
        typer.echo("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)))
