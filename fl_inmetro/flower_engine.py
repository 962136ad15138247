"""Run a configuration on Flower's simulation engine: `flwr run` on this checkout, and wait for it.

Flower packs the application from its directory, so this engine needs a source checkout (where
`pyproject.toml` stands beside the package). The server app writes the run directory.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import fl_inmetro
from fl_inmetro.config import RunConfig, own_code, to_toml
from fl_inmetro.errors import Fault, FederationError
from fl_inmetro.federation.flower_compat import OFFLINE_ENVIRONMENT
from fl_inmetro.federation.grids import Interrupted

#: What the server app prints before the path of its run directory.
RUN_DIRECTORY = "fl-inmetro run directory:"

#: Keys of Flower's run configuration that set our `[federation]` table.
FEDERATION_KEYS = ("num-server-rounds", "fraction-fit", "local-epochs")

#: Beside the configuration that the apps read: where code of the user's own was found.
OWN_CODE = "own_code.json"

#: What `flwr run` says of the run that it has started.
_RUN_ID = re.compile(r"started run (\d+)")

#: Lines of Flower's log that are shown when it fails.
_TAIL_LINES = 15


def run(
    config: RunConfig,
    clients: int,
    root: Path,
    say: Callable[[str], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Run `config` with one Flower node per client and return the run directory.

    Args:
        config: The configuration; one federated model.
        clients: Number of clients of its data, and so of nodes.
        root: Directory of all runs.
        say: Where each line of Flower's log goes.
        should_stop: Looked at after each line and when Flower's command ends; True stops the run.

    Raises:
        FederationError: FL308, Flower or the checkout is missing, or the run failed there.
        Interrupted: `should_stop` said so.
    """
    application = Path(fl_inmetro.__file__).parent.parent
    command = Path(sys.executable).with_name("flwr")
    if not (application / "pyproject.toml").exists():
        raise _failed("Flower packs the application from a source checkout, and this is none", "")
    if not command.exists():
        raise _failed(f"the command `flwr` is not beside {sys.executable}", "")
    # `flwr run` looks for `flower-superlink` on the PATH: it stands beside `flwr`, in an
    # environment that need not be activated.
    path_of_environment = f"{command.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = os.environ | OFFLINE_ENVIRONMENT | {"PATH": path_of_environment}
    with tempfile.TemporaryDirectory(prefix="fl-inmetro-") as folder:
        file = Path(folder, "run.toml")
        file.write_text(to_toml(_with_ledger_here(config)), encoding="utf-8")
        # The file is not where its own code lies: say where that was found.
        places = json.dumps(own_code.places(config))
        file.with_name(OWN_CODE).write_text(places, encoding="utf-8")
        keys = {key: getattr(config.federation, key.replace("-", "_")) for key in FEDERATION_KEYS}
        settings = [f"config-file='{file}'", f"runs-dir='{root.absolute()}'"]
        settings += [f"{key}={value}" for key, value in keys.items()]
        command_line = [str(command), "run", str(application), "--stream"]
        command_line += ["--run-config", " ".join(settings)]
        command_line += ["--federation-config", f"num-supernodes={clients}"]
        path: Path | None = None
        run_id = ""
        lines: list[str] = []
        with subprocess.Popen(
            command_line,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            for line in process.stdout or ():
                lines = [*lines[1 - _TAIL_LINES :], line.rstrip()]
                say(line.rstrip())
                if RUN_DIRECTORY in line:
                    path = Path(line.partition(RUN_DIRECTORY)[2].strip())
                if found := _RUN_ID.search(line):
                    run_id = found.group(1)
                if should_stop():
                    process.terminate()  # it only shows the log; the run is ended below
                    break
        code = process.returncode
        if should_stop() and path is None:
            if run_id:
                subprocess.run(
                    [str(command), "stop", run_id],
                    env=environment,
                    capture_output=True,
                    check=False,
                )
            raise Interrupted
    if path is None:
        raise _failed(f"Flower's run ended without a result (exit code {code})", "\n".join(lines))
    return path


def _with_ledger_here(config: RunConfig) -> RunConfig:
    """Return the configuration with the ledger in the folder that is meant here: Flower moves."""
    if not config.privacy.enabled:
        return config
    ledger = str(Path(config.privacy.ledger).absolute())
    return config.model_copy(
        update={"privacy": config.privacy.model_copy(update={"ledger": ledger})}
    )


def _failed(what: str, where: str) -> FederationError:
    return FederationError(
        Fault(
            "FL308",
            what,
            where,
            'see `docs/flower.md`, or use `engine = "loop"`, which gives the same model',
        )
    )
