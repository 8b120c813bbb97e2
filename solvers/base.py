# SPDX-License-Identifier: Apache-2.0
"""What a solver back end declares and returns.

A back end takes a ``Problem`` and a time limit in seconds and returns a ``Result`` in the
problem's own positions and integer units. It never changes the problem, and ``solve`` checks
every answer again, so a back end cannot pass a wrong one on.
"""

from __future__ import annotations

import importlib.util
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from codesign.errors import InputError, SolverError, ToolNotFoundError
from codesign.solvers.problem import Problem
from codesign.solvers.solution import Proof, Status


class CapabilityError(SolverError, InputError):
    """The named solver cannot take this problem; the message says which one can (exit code 2)."""


class Feature(StrEnum):
    """What a back end can do beyond solving small problems to optimality."""

    INTEGER_PROOF = "integer-proof"
    """Proofs rest on exact integers, not on floating-point tolerances."""
    BIG_INTEGERS = "big-integers"
    """Exact for numbers beyond 64 bits."""
    TIME_LIMIT = "time-limit"
    """Stops early with the best answer and a bound."""
    MANY_ARCHITECTURES = "many-architectures"
    """Tens of thousands of architectures without one model over all of them."""


@dataclass(frozen=True)
class Availability:
    """Whether a back end can run here, and why not."""

    ok: bool
    why: str = ""

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True)
class Result:
    """A back end's answer; objective and bound count units of the objective's metric, in the
    user's sense (a bound is below when minimising, above when maximising)."""

    status: Status
    seconds: float
    choice: tuple[int, ...] | None = None
    """Option position per group."""
    architecture: int | None = None
    objective: int | None = None
    bound: int | None = None
    architectures_solved: int = 0
    architectures_pruned: int = 0
    proof: Proof = Proof.INTEGER
    solver: str = ""
    """What was used in the end, where a back end hands on to another."""


class Solver(ABC):
    """One back end. Subclasses state what they need and can as class attributes."""

    name: ClassVar[str]
    summary: ClassVar[str]
    features: ClassVar[frozenset[Feature]] = frozenset()
    modules: ClassVar[tuple[str, ...]] = ()
    """Importable modules that the back end needs."""

    @classmethod
    def availability(cls) -> Availability:
        """Whether the modules are installed; nothing is imported."""
        missing = [name for name in cls.modules if importlib.util.find_spec(name) is None]
        if missing:
            return Availability(
                False, f"not installed: {', '.join(missing)}; pip install {' '.join(missing)}"
            )
        return Availability(True)

    @classmethod
    def is_available(cls) -> bool:
        return bool(cls.availability())

    @classmethod
    def require(cls) -> None:
        """Raise ToolNotFoundError, with the way to get it, when the back end cannot run."""
        found = cls.availability()
        if not found:
            raise ToolNotFoundError(f"solver {cls.name!r} cannot run: {found.why}")

    @abstractmethod
    def solve(self, problem: Problem, time_limit: float | None = None) -> Result:
        """The best choice with its proof, within about ``time_limit`` seconds."""


@dataclass(frozen=True)
class Deadline:
    """A point in time after which a search stops."""

    at: float | None

    @staticmethod
    def after(seconds: float | None) -> Deadline:
        return Deadline(None if seconds is None else time.perf_counter() + seconds)

    @property
    def passed(self) -> bool:
        return self.at is not None and time.perf_counter() >= self.at

    def remaining(self) -> float | None:
        """Seconds left, at least 0; None without a limit."""
        return None if self.at is None else max(0.0, self.at - time.perf_counter())
