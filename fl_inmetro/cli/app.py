"""The tree of commands; nothing heavy is imported until a command runs."""

from __future__ import annotations

import typer

from fl_inmetro.cli import data, ev, privacy, privacy_attack, privacy_audit, privacy_ledger, runs
from fl_inmetro.cli.attack import attack
from fl_inmetro.cli.backtest import backtest
from fl_inmetro.cli.coldstart import coldstart
from fl_inmetro.cli.convergence import convergence
from fl_inmetro.cli.drift import drift
from fl_inmetro.cli.explain import explain
from fl_inmetro.cli.export import export
from fl_inmetro.cli.forecast import forecast, score
from fl_inmetro.cli.importance import importance
from fl_inmetro.cli.reconcile import reconcile
from fl_inmetro.cli.report import report_command
from fl_inmetro.cli.run import compare, run
from fl_inmetro.cli.typer_compat import mend_help
from fl_inmetro.cli.versus import versus_command
from fl_inmetro.i18n import text

mend_help()

app = typer.Typer(
    name="fl-inmetro",
    help=text("cli.help"),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Plain help, see `typer_compat`.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from fl_inmetro import __version__

        typer.echo(f"fl-inmetro {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", help=text("cli.version"), callback=_version, is_eager=True
    ),
) -> None:
    """Hold the options of the command itself."""


app.command("run", help=text("cli.run.help"))(run)
app.command("compare", help=text("cli.compare.help"))(compare)
app.command("convergence", help=text("convergence.help"))(convergence)
app.command("attack", help=text("attack.help"))(attack)
app.command("backtest", help=text("backtest.help"))(backtest)
app.command("coldstart", help=text("coldstart.help"))(coldstart)
app.command("forecast", help=text("cli.forecast.help"))(forecast)
app.command("drift", help=text("drift.help"))(drift)
app.command("export", help=text("export.help"))(export)
app.command("score", help=text("cli.score.help"))(score)
app.command("reconcile", help=text("reconcile.help"))(reconcile)
app.add_typer(data.app, name="data")
app.add_typer(ev.app, name="ev")
privacy.app.command("audit", help=text("privacy.audit.help"))(privacy_audit.audit)
privacy.app.command("attack", help=text("leakage.help"))(privacy_attack.attack)
privacy.app.add_typer(privacy_ledger.app, name="ledger")
app.add_typer(privacy.app, name="privacy")
runs.app.command("test", help=text("runs.command.test"))(versus_command)
app.add_typer(runs.app, name="runs")
app.command("report", help=text("runs.command.report"))(report_command)
app.command("importance", help=text("explain.importance"))(importance)
app.command("explain", help=text("explain.help"))(explain)
