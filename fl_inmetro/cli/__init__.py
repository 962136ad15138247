"""The command `fl-inmetro`: parse, call a library function, print."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line; every error leaves in the house form, with its exit code."""
    # One thread per process: two threads on small steps are many times slower than one.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from fl_inmetro.cli.app import app
    from fl_inmetro.errors import FlInmetroError

    try:
        try:
            app()
        finally:
            # Here, where a reader that has gone can be met; at the interpreter's end it cannot.
            sys.stdout.flush()
    except FlInmetroError as error:
        print(error, file=sys.stderr)
        code = error.faults[0].code
        print(f"\n  fl-inmetro explain {code}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        # The reader of a pipe has gone (`… | head`): not our error, and nothing more to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except Exception as error:
        if os.environ.get("FL_INMETRO_DEBUG"):
            raise
        print(f"error[FL900]: {type(error).__name__}: {error}", file=sys.stderr)
        print(
            "hint: this is a fault of fl-inmetro; FL_INMETRO_DEBUG=1 shows where it happened",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
