# SPDX-License-Identifier: Apache-2.0
"""Every error the program raises on purpose, grouped by who must act.

A message says what is wrong, where (layer, file), what was expected and got, and the way out.
``exit_code`` is what the command line returns (DESIGN, section 4).
"""

from __future__ import annotations


class CodesignError(Exception):
    """Root of all errors raised on purpose."""

    exit_code = 1


class InputError(CodesignError):
    """The user's input is wrong: a file, an option, data."""

    exit_code = 2


class UnsupportedError(InputError):
    """The network holds operators that cannot be taken; lists all of them at once."""


class VerifyError(CodesignError):
    """A graph breaks a rule of the IR. From a pass this is a defect, from a file bad input."""

    exit_code = 1


class ParseError(InputError):
    """Text IR or a data file that cannot be read; carries line and column where known."""


class InfeasibleError(CodesignError):
    """No design meets the limits; says which limit binds and the nearest feasible value."""

    exit_code = 3


class SolverError(CodesignError):
    """A solver failed, or lacks a capability that the problem needs."""


class ToolNotFoundError(CodesignError):
    """An outside tool or library is missing; says how to get it."""

    exit_code = 4
