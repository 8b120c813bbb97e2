# SPDX-License-Identifier: Apache-2.0
"""CoSA's program (Huang et al., ISCA 2021) for one layer's mapping, in linear form.

CoSA places every prime factor of the loop bounds at a level, in space or in time, and writes
products as sums of logarithms. Its product of binaries (a loop placed at a rank, a tensor already
fetched at that rank) is quadratic. Which loops multiply a tensor's traffic depends only on what is
innermost, so the program is solved once for each of the three cases, where traffic is linear, and
the best is taken. Equal primes of a bound are counted instead of told apart. Logarithms are scaled
to integers, rounded so that no capacity is exceeded.

Objective as in the published code: -0.1 · utilisation + 10 · compute + 1 · traffic, with traffic
D + L + T and the DRAM loops of every tensor. The input halo follows CoSA: a kernel prime counts in
full when no output prime lies in the tile, else as a factor of two; strides count with the first
output prime. What this approximation lets slip is caught by the exact model (``space.mapping``),
and the program is solved again with less room.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from codesign.errors import InfeasibleError
from codesign.solvers.base import Deadline
from codesign.solvers.formulate import linear
from codesign.solvers.model import Constraint, Model, Variable
from codesign.solvers.model_solver import ModelSolver
from codesign.solvers.solution import Status
from codesign.space.mapping import _REFETCH as REFETCH
from codesign.space.mapping import (
    STAYS,
    C,
    K,
    Machine,
    MapCost,
    MapLayer,
    Mapping,
    P,
    Q,
    R,
    S,
    Six,
    Stay,
    map_cost,
    primes,
)

SCALE = 10_000
"""Units of one bit of logarithm."""
WEIGHTS = (-1, 100, 10)
"""Of utilisation, compute and traffic: -0.1, 10 and 1, tenfold."""
LEVELS = ("dram", "glob", "pe", "cluster", "lane", "inner")
RELEVANT = ((R, S, C, K), (P, Q, C), (P, Q, K))
"""Loops that weights, inputs and outputs depend on (inputs' kernel loops: see the halo)."""
_TRIES = 6


@dataclass(frozen=True)
class CosaResult:
    """The program's mapping, priced by the exact model."""

    mapping: Mapping
    cost: MapCost
    optimal: bool
    """Whether the last programs were solved to optimality."""
    programs: int


def _log(n: int) -> int:
    return math.ceil(math.log2(n) * SCALE)


def _room(n: int) -> int:
    return math.floor(math.log2(n) * SCALE)


class _Program:
    """One case of what is innermost."""

    def __init__(self, layer: MapLayer, machine: Machine, stay: Stay, less: int) -> None:
        self.layer, self.machine, self.stay = layer, machine, stay
        self.variables: list[Variable] = []
        self.rows: list[Constraint] = []
        self.count: dict[tuple[int, int, str], int] = {}
        for j, bound in enumerate(layer.bounds):
            for prime, many in Counter(primes(bound)).items():
                for level in LEVELS:
                    self.count[j, prime, level] = self._variable(f"n{j}_{prime}_{level}", many)
                placed = [(self.count[j, prime, level], 1) for level in LEVELS]
                self._row(placed, many, many)
        self.primes = sorted({(j, prime) for j, prime, _ in self.count})
        tile_b = ("cluster", "lane", "inner")
        tile_g = (*tile_b, "pe", "glob")
        half = _room(machine.global_bytes // 2) - less
        halo_b, halo_g = self._halo(tile_b), self._halo(tile_g)
        held = {
            "input": (self._logs((P, Q, C), tile_b) + halo_b, _room(machine.input_bytes) - less),
            "weight": (
                self._logs(RELEVANT[0], tile_b), _room(machine.weight_bytes * machine.clusters)
            ),
            "global inputs": (self._logs((P, Q, C), tile_g) + halo_g, half),
            "global outputs": (self._logs(RELEVANT[2], tile_g), half),
        }  # fmt: skip
        for terms, room in held.values():
            self._row(terms, None, room)
        everything = tuple(range(6))
        for level, most in (
            ("pe", machine.pes), ("cluster", machine.clusters), ("lane", machine.lanes),
        ):  # fmt: skip
            self._row(self._logs(everything, (level,)), None, _room(most))
        use = [term for terms, _ in held.values() for term in terms]
        compute = self._logs(everything, ("dram", "glob", "inner"))
        traffic = list(halo_b)
        for relevant, again in zip(RELEVANT, REFETCH[stay]):
            traffic += self._logs(relevant, (*tile_b, "pe"))
            traffic += self._logs(again, ("glob",))
            traffic += self._logs(everything, ("dram",))
        total: Counter[int] = Counter()
        for weight, terms in zip(WEIGHTS, (use, compute, traffic)):
            for column, value in terms:
                total[column] += weight * value
        self.objective = linear(total.items())

    def _variable(self, name: str, upper: int) -> int:
        self.variables.append(Variable(name, 0, upper))
        return len(self.variables) - 1

    def _row(self, terms: Iterable[tuple[int, int]], low: int | None, high: int | None) -> None:
        total: Counter[int] = Counter()
        for column, value in terms:
            total[column] += value
        expression = linear(total.items())
        self.rows.append(Constraint(f"row{len(self.rows)}", expression, low, high))

    def _logs(self, loops: Sequence[int], levels: Sequence[str]) -> list[tuple[int, int]]:
        return [
            (self.count[j, prime, level], _log(prime))
            for j, prime in self.primes
            if j in loops
            for level in levels
        ]

    def _halo(self, levels: Sequence[str]) -> list[tuple[int, int]]:
        """What kernel and stride add to the logarithm of an input tile's rows and columns."""
        found = []
        for kernel, output in ((R, P), (S, Q)):
            bound, stride = self.layer.bounds[kernel], self.layer.stride
            outputs = [(self.count[j, p, lv], 1) for j, p in self.primes if j == output
                       for lv in levels]  # fmt: skip
            many = sum(self.variables[column].upper for column, _ in outputs)
            some = self._variable(f"outputs{output}", 1)  # an output prime lies in the tile
            self._row([*outputs, (some, -1)], 0, None)
            self._row([*outputs, (some, -max(1, many))], None, 0)
            if stride > 1:
                found.append((some, _log(stride)))
            if bound == 1:
                continue
            kernels = self._logs((kernel,), levels)
            add = self._variable(f"halo{kernel}", _log(bound) + SCALE)
            full = _log(bound) * len(primes(bound))
            # add ≥ the kernel's logarithm unless an output prime lies in the tile
            self._row([(add, 1), *((c, -v) for c, v in kernels), (some, full)], 0, None)
            for column, _ in kernels:  # add ≥ 1 bit once a kernel prime does
                many = self.variables[column].upper
                self._row([(add, many), (column, -SCALE)], 0, None)
            found.append((add, 1))
        return found

    def model(self) -> Model:
        """The integer program."""
        return Model("cosa", tuple(self.variables), tuple(self.rows), self.objective)

    def mapping(self, values: Sequence[int]) -> Mapping:
        """The mapping that a solution stands for."""

        def loops(level: str) -> Six:
            sizes = [1] * 6
            for j, prime in self.primes:
                sizes[j] *= prime ** values[self.count[j, prime, level]]
            r, s, p, q, c, k = sizes
            return r, s, p, q, c, k

        dram, glob, pe, cluster, lane, inner = map(loops, LEVELS)
        return Mapping(dram, glob, pe, cluster, lane, inner, self.stay)


def map_layer_cosa(
    layer: MapLayer, machine: Machine | None = None, solver: ModelSolver | None = None,
    time_limit: float | None = None,
) -> CosaResult:  # fmt: skip
    """CoSA's mapping of the layer by an open MILP solver (HiGHS when None).

    Raises InfeasibleError when no mapping is found within the time limit (seconds, in all).
    """
    from codesign.solvers.highs import Highs

    machine = machine or Machine()
    solver = solver or Highs()
    deadline = Deadline.after(time_limit)
    programs = 0
    for attempt in range(_TRIES):
        best: tuple[int, Mapping] | None = None
        optimal = True
        for stay in STAYS:
            program = _Program(layer, machine, stay, attempt * SCALE // 2)
            model = program.model()
            answer = solver.solve_model(model, deadline)
            programs += 1
            optimal &= answer.status in (Status.OPTIMAL, Status.INFEASIBLE)
            if answer.values is None or model.violations(answer.values):
                continue
            value = model.objective.value(answer.values)
            if best is None or value < best[0]:
                best = value, program.mapping(answer.values)
        if best is not None:
            try:
                cost = map_cost(layer, machine, best[1])
            except InfeasibleError:
                continue
            return CosaResult(best[1], cost, optimal, programs)
    raise InfeasibleError(f"CoSA's program has no mapping for {layer} on {machine}")


__all__ = ["CosaResult", "map_layer_cosa"]
