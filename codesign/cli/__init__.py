# SPDX-License-Identifier: Apache-2.0
"""The command line. Contracts: DESIGN section 4; exit codes are the errors' own."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import click

from codesign.cli.app import app
from codesign.errors import CodesignError

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; prints errors to stderr and returns the exit code.

    0 done, 1 defect, 2 bad input or usage, 3 infeasible, 4 a tool is missing, 130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app.main(list(arguments), prog_name="codesign", standalone_mode=False)
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
        sys.stderr.close()  # the reader of our output is gone: nothing more to say
        return 0
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
