# SPDX-License-Identifier: Apache-2.0
"""The command line. Contracts: DESIGN section 4; exit codes are the errors' own."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Sequence

import click

from codesign.cli.app import app
from codesign.cli.show import Answered
from codesign.errors import CodesignError

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; prints errors to stderr and returns the exit code.

    0 done, 1 defect, 2 bad input or usage, 3 infeasible, 4 a tool is missing, 130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        # not app.main: that answers a broken pipe itself, as a failure
        with app.make_context("codesign", list(arguments)) as context:
            app.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as done:  # --help, --version
        return done.exit_code
    except Answered as answered:
        return _fail(str(answered.error), answered.error.exit_code, ())
    except CodesignError as error:
        return _fail(str(error), error.exit_code, arguments)
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            print(error.ctx.get_usage(), file=sys.stderr)
        return _fail(error.format_message(), 2, arguments)
    except (KeyboardInterrupt, click.Abort):
        text = "interrupted; run the same command again, it goes on from what was finished"
        return _fail(text, INTERRUPTED, arguments)
    except BrokenPipeError:
        return _reader_gone()
    return 0


def _reader_gone() -> int:
    """Whoever reads our output has seen enough, as in ``codesign list passes | head``."""
    with contextlib.suppress(OSError, ValueError):
        # what is still buffered must not be tried again when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _fail(text: str, code: int, arguments: Sequence[str]) -> int:
    print(f"codesign: error: {text}", file=sys.stderr)
    if "--json" in arguments:
        print(json.dumps({"error": text, "exit_code": code}))
    return code


def entry() -> None:
    """Console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
