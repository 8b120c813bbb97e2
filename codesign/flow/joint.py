# SPDX-License-Identifier: Apache-2.0
"""The joint problem: accelerator, formats, tilings and fused chains, chosen together and exactly.

``joint_problem`` prices the network on every accelerator of the device and solves. Accelerators
are taken in batches, best lower bound first: bounds need no tables, so only those that may still be
best have their tables filled; then bounds from the tables discard more, and an exact knapsack
decides the rest. The answer carries a certificate.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from codesign.cost.best import map_chain, map_layer
from codesign.cost.bounds import Bounds
from codesign.cost.chain import ChainFormat, ChainTile
from codesign.cost.energy import DEFAULT_ENERGY, EnergyModel
from codesign.cost.fill import Filler, chain_shape
from codesign.cost.memory import DEFAULT_TIMING, Memory, Timing
from codesign.cost.option_tables import NEVER, OptionTables, Priced
from codesign.cost.resources import Resources, resources
from codesign.cost.tables import Machine
from codesign.cost.tiles import Tile
from codesign.cost.timing import vector_cycles
from codesign.errors import InputError
from codesign.ir.graph import Graph
from codesign.quant.formats import parse_formats
from codesign.solvers.base import Deadline, Solver
from codesign.solvers.decimals import scale_down, to_decimal
from codesign.solvers.exact import Exact
from codesign.solvers.lagrange import FloatArray, Relaxation, bounds_of_all
from codesign.solvers.problem import Metric, Problem
from codesign.solvers.solution import Status
from codesign.solvers.solve import solve_raw
from codesign.space.accelerator import Accelerator
from codesign.space.device import Device, load_device
from codesign.space.generate import RESOURCES, Space, SpaceOptions, generate
from codesign.space.options import units_of
from codesign.space.workload import Workload, workload_of

Array: TypeAlias = npt.NDArray[np.int64]
Number: TypeAlias = int | float | Decimal

JOINT = ("latency", "energy", "traffic")
"""Metrics that depend on the accelerator."""
MOVED = ("energy", "traffic")
"""Those of them that follow the bytes moved."""
CHOICE: tuple[str, ...] = ("loss", "size")
"""Metrics of the formats alone."""
OBJECTIVES = ("latency", "throughput", "energy", "traffic", "loss", "size", *RESOURCES)
LIMITS = {
    "latency_ms": "latency",
    "energy_uj": "energy",
    "traffic_kb": "traffic",
    "loss": "loss",
    "size_kb": "size",
}
"""Keys of limits to their metrics; resources (dsp, lut, ff, ramb18) may be limited besides."""
_BATCHES = (16, 64, 256, 1024)
"""Pairs of cores whose accelerators' tables are filled at once, first batch first."""
_CELLS = 12_000_000
"""Accelerators times options of one batch, at most (unless one pair has more)."""
_MULTIPLIERS = 8
"""Sets of multipliers kept for bounds."""


@dataclass(frozen=True)
class Certificate:
    """What was proven, and what it took."""

    status: Status
    objective: Decimal | None
    bound: Decimal | None
    generated: int
    """Accelerators of the grid that fit the device."""
    undominated: int
    solved: int
    """Accelerators whose choice of formats was solved exactly."""
    pruned: int
    """Undominated accelerators that a bound discarded."""
    tabled: int
    """Accelerators whose tables were filled."""
    seconds_tables: float
    seconds_solve: float
    seconds: float

    @property
    def gap(self) -> Decimal | None:
        """(objective − bound) / objective."""
        if self.objective is None or self.bound is None:
            return None
        if self.objective == self.bound:
            return Decimal(0)
        return abs(self.objective - self.bound) / abs(self.objective) if self.objective else None


@dataclass(frozen=True)
class LayerChoice:
    """What was chosen for one layer."""

    name: str
    format: str
    engine: str
    """``"dense"``, ``"depthwise"`` or ``"chain"``."""
    tile: Tile | None
    cycles: int
    """0 for layers of a fused chain; see ``JointResult.chains``."""
    traffic: int


@dataclass(frozen=True)
class ChainChoice:
    """A chain that runs fused."""

    layers: tuple[str, ...]
    tile: ChainTile
    cycles: int
    traffic: int


@dataclass(frozen=True)
class JointResult:
    """The best design found and its proof; all figures are modelled."""

    certificate: Certificate
    accelerator: Accelerator | None = None
    layers: tuple[LayerChoice, ...] = ()
    chains: tuple[ChainChoice, ...] = ()
    resources: Resources | None = None
    cycles: int = 0
    clock_hz: int = 1
    traffic: int = 0
    energy_pj: Decimal = Decimal(0)
    size_bytes: int = 0
    loss: Decimal | None = None
    why: str = ""
    """Why there is no design."""

    @property
    def latency_ms(self) -> float:
        """Of one image."""
        return self.cycles / self.clock_hz * 1e3

    @property
    def fps(self) -> float:
        """Images a second, one after the other."""
        return self.clock_hz / self.cycles if self.cycles else 0.0

    @property
    def formats(self) -> dict[str, str]:
        """Layer to format."""
        return {layer.name: layer.format for layer in self.layers}


@dataclass(frozen=True, eq=False)
class JointProblem:
    """A network on a device with everything that may be chosen; ``joint_problem`` builds it."""

    tables: OptionTables
    device: Device
    space: Space
    objective: str
    """A metric to minimise: latency, energy, traffic, loss or size."""
    limits: Mapping[str, int]
    """Metric to its largest value in the tables' units."""
    digits: Mapping[str, int]
    """Decimal digits of each metric's unit, as users see it."""
    pipelined: bool = True
    timing: Timing = DEFAULT_TIMING
    cache: Path | None = None
    seconds_space: float = 0.0

    def solve(self, time_limit: float | None = None, solver: Solver | None = None) -> JointResult:
        """The best design with its certificate."""
        return _Search(self, Deadline.after(time_limit), solver or Exact()).run()


@dataclass
class _Best:
    value: int
    place: int
    """Accelerator, in the whole space."""
    options: tuple[int, ...]


class _Search:
    """One branch and bound over accelerators, in batches."""

    def __init__(self, problem: JointProblem, deadline: Deadline, solver: Solver) -> None:
        self.problem, self.deadline, self.solver = problem, deadline, solver
        self.tables, self.space = problem.tables, problem.space
        units = self.tables.units
        # one more group of one option carries what does not depend on any choice
        self.offsets = np.append(self.tables.offsets, self.tables.offsets[-1] + 1)
        self.choices = {
            f"unit{i}": [",".join(option) for option in unit.options]
            for i, unit in enumerate(units)
        } | {"other": ["-"]}
        self.fixed = {
            name: np.append(self.tables.choice_metric(name), 0)
            for name in CHOICE
            if name in (problem.objective, *problem.limits)
        }
        self.best: _Best | None = None
        self.multipliers: list[FloatArray] = [np.zeros(len(problem.limits))]
        self.solved = self.tabled = 0
        self.seconds_tables = problem.seconds_space
        self.complete = True

    def run(self) -> JointResult:
        """Until every accelerator is solved or discarded, or time ends."""
        start = time.perf_counter()
        problem = self.problem
        bounds = Bounds(self.space, problem.timing, self.tables.by, problem.pipelined)
        metrics = self._metrics(self.tables.price(bounds), self._least_use(bounds))
        lower, open_pairs = self._lower(metrics, np.arange(len(bounds)))
        lower[~open_pairs] = np.inf
        members = _members(bounds.pair, len(bounds))
        room = _CELLS // int(self.offsets[-1])
        batch = 0
        bound_left = np.inf
        while True:
            if self.best is not None:
                lower[lower > self.best.value - 1] = np.inf
            waiting = np.flatnonzero(np.isfinite(lower))
            if not len(waiting):
                break
            if self.deadline.passed:
                self.complete, bound_left = False, float(lower.min())
                break
            size = _BATCHES[min(batch, len(_BATCHES) - 1)]
            chosen = waiting[np.argsort(lower[waiting], kind="stable")[:size]]
            held = np.cumsum([len(members[p]) for p in chosen])
            chosen = chosen[: max(1, int((held <= room).sum()))]
            before = len(self.multipliers)
            least = float(lower[chosen].min())
            lower[chosen] = np.inf
            if not self._batch(np.concatenate([members[p] for p in chosen])):
                self.complete, bound_left = False, least
                break
            if len(self.multipliers) > before:
                rest = np.flatnonzero(np.isfinite(lower))
                if len(rest):
                    raised = self._raise(metrics, rest, self.multipliers[before:])
                    lower[rest] = np.maximum(lower[rest], raised)
            batch += 1
        return self._result(bound_left, time.perf_counter() - start)

    # ---- bounds ----

    def _least_use(self, bounds: Bounds) -> dict[str, Array]:
        """The least use of each resource among a pair's accelerators."""
        found = {}
        for name, column in self.space.use.items():
            least = np.full(len(bounds), np.iinfo(np.int64).max)
            np.minimum.at(least, bounds.pair, column)
            found[name] = least
        return found

    def _metrics(self, priced: Priced, use: Mapping[str, Array]) -> dict[str, Array]:
        """Metric to (rows, options + 1) or (options + 1,)."""
        found: dict[str, Any] = dict(self.fixed)
        for name in (self.problem.objective, *self.problem.limits):
            if name in JOINT and name not in found:
                table, other = self.tables.joint_metric(name, priced)
                found[name] = np.concatenate([table, other[:, None]], axis=1)
            elif name in RESOURCES:
                found[name] = np.zeros((len(priced.cycles), int(self.offsets[-1])), np.int64)
                found[name][:, -1] = use[name]
        runs = np.concatenate(
            [priced.cycles < NEVER, np.ones((len(priced.cycles), 1), dtype=np.bool_)], axis=1
        )
        found["runs"] = runs
        return found

    def _float(self, metrics: Mapping[str, Array]) -> tuple[FloatArray, list[FloatArray]]:
        cost = metrics[self.problem.objective].astype(np.float64)
        cost = np.where(metrics["runs"], cost, np.inf)
        return cost, [metrics[name].astype(np.float64) for name in self.problem.limits]

    def _lower(self, metrics: Mapping[str, Array], places: Array) -> tuple[FloatArray, Any]:
        """Bounds under all multipliers, and which rows can meet every limit by itself."""
        alive = np.logical_or.reduceat(metrics["runs"], self.offsets[:-1], axis=1).all(axis=1)
        for name, limit in self.problem.limits.items():
            values = np.broadcast_to(metrics[name], metrics["runs"].shape)
            values = np.where(metrics["runs"], values, values.max())
            least = np.minimum.reduceat(values, self.offsets[:-1], axis=1).sum(axis=1)
            alive &= (least <= limit).astype(np.bool_)
        lower = np.full(len(places), -np.inf)
        rows = np.flatnonzero(alive)
        if len(rows):
            lower[rows] = self._raise(metrics, rows, self.multipliers)
        return lower, alive

    def _raise(
        self, metrics: Mapping[str, Array], rows: Array, multipliers: Sequence[FloatArray]
    ) -> FloatArray:
        cost, weights = self._float(metrics)
        limits = np.array([float(v) for v in self.problem.limits.values()])
        found = [bounds_of_all(self.offsets, cost, weights, limits, u, rows) for u in multipliers]
        highest: FloatArray = np.maximum.reduce(found)
        return highest

    # ---- one batch ----

    def _batch(self, places: Array) -> bool:
        """Fill tables, discard by bounds, solve the rest. False when time ended in it."""
        start = time.perf_counter()
        problem = self.problem
        part = self.space.take(places)
        filler = Filler(part, problem.timing, self.tables.by, problem.pipelined, problem.cache)
        metrics = self._metrics(self.tables.price(filler), part.use)
        self.seconds_tables += time.perf_counter() - start
        self.tabled += len(places)
        lower, alive = self._lower(metrics, places)
        if self.best is not None:
            alive &= lower <= self.best.value - 1
        rows = np.flatnonzero(alive)
        if not len(rows):
            return True
        runs = metrics["runs"][rows]
        made = [
            Metric.joint(name, metrics[name][rows])
            if metrics[name].ndim == 2
            else Metric.choice(name, metrics[name])
            for name in dict.fromkeys((problem.objective, *problem.limits))
        ]
        question = Problem.build(
            choices=self.choices,
            metrics=made,
            minimize=problem.objective,
            architectures=[str(row) for row in rows],
            limits=dict(problem.limits),
            allowed=None if runs.all() else runs,
        )
        answer = solve_raw(question, self.solver, self.deadline.remaining())
        self.solved += answer.architectures_solved
        if answer.choice is not None and answer.objective is not None:
            assert answer.architecture is not None
            row = int(rows[answer.architecture])
            if self.best is None or answer.objective < self.best.value:
                self.best = _Best(answer.objective, int(places[row]), answer.choice[:-1])
            self._learn(metrics, row)
        return answer.status in (Status.OPTIMAL, Status.INFEASIBLE)

    def _learn(self, metrics: Mapping[str, Array], row: int) -> None:
        """Keep the multipliers that are best for one accelerator."""
        if not self.problem.limits or len(self.multipliers) > _MULTIPLIERS:
            return
        runs = metrics["runs"][row]
        sizes = np.add.reduceat(runs.astype(np.int64), self.offsets[:-1])

        def line(name: str) -> Array:
            values = metrics[name]
            picked: Array = (values[row] if values.ndim == 2 else values)[runs]
            return picked

        relaxation = Relaxation.of(
            np.concatenate(([0], np.cumsum(sizes))),
            line(self.problem.objective),
            [line(name) for name in self.problem.limits],
            list(self.problem.limits.values()),
        )
        self.multipliers.append(relaxation.best(None))

    # ---- the answer ----

    def _result(self, bound_left: float, seconds: float) -> JointResult:
        problem, best = self.problem, self.best
        digits = problem.digits[problem.objective]
        if best is None:
            status = Status.INFEASIBLE if self.complete else Status.UNKNOWN
            objective = bound = None
        else:
            status = Status.OPTIMAL if self.complete else Status.FEASIBLE
            objective = to_decimal(best.value, digits)
            least = best.value
            if np.isfinite(bound_left):
                least = min(least, int(np.ceil(bound_left)))
            bound = to_decimal(least, digits)
        certificate = Certificate(
            status=status,
            objective=objective,
            bound=bound,
            generated=self.space.generated,
            undominated=len(self.space),
            solved=self.solved,
            pruned=len(self.space) - self.solved if self.complete else self.tabled - self.solved,
            tabled=self.tabled,
            seconds_tables=self.seconds_tables,
            seconds_solve=seconds - self.seconds_tables + problem.seconds_space,
            seconds=seconds + problem.seconds_space,
        )
        if best is None:
            return JointResult(certificate)
        return self._design(best, certificate)

    def _design(self, best: _Best, certificate: Certificate) -> JointResult:
        problem, tables = self.problem, self.tables
        device, workload = problem.device, tables.workload
        accelerator = self.space.accelerator(best.place)
        machine = Machine(device.dram_rate, device.dram_latency_cycles, problem.timing)
        chosen: dict[int, str] = {}
        for unit, option in zip(tables.units, best.options):
            chosen.update(zip(unit.layers, unit.options[option]))
        layers: dict[int, LayerChoice] = {}
        chains = []
        traffic = cycles = 0
        for place, fmt in sorted(chosen.items()):
            layer = workload.layers[place]
            bits = tables.formats[fmt]
            found = map_layer(layer.shape, *bits, accelerator, device, machine, tables.by)
            taken = tables.measured.get((layer.name, fmt), found.cost.cycles)
            layers[place] = LayerChoice(
                layer.name, fmt, found.engine, found.tile, taken, found.cost.traffic
            )
        for chain in workload.chains if tables.fusion else ():
            parts = [layers[p] for p in chain.layers]
            if any((part.name, part.format) in tables.measured for part in parts):
                continue

            def bits_of(place: int | None) -> tuple[int, int] | None:
                return None if place is None else tables.formats[chosen[place]]

            formats = ChainFormat(
                bits_of(chain.expand),
                tables.formats[chosen[chain.depthwise]],
                bits_of(chain.project),
            )
            fused = map_chain(
                chain_shape(workload, chain), formats, accelerator, device, machine,
                problem.pipelined, tables.by,
            )  # fmt: skip
            if fused is None:
                continue
            tile, cost = fused
            apart = (sum(p.cycles for p in parts), sum(p.traffic for p in parts))
            mine = (cost.cycles, cost.traffic)
            if (mine[::-1] < apart[::-1]) if tables.by == "traffic" else (mine < apart):
                chains.append(ChainChoice(tuple(p.name for p in parts), tile, *mine))
                for place, part in zip(chain.layers, parts):
                    layers[place] = LayerChoice(part.name, part.format, "chain", None, 0, 0)
        memory = Memory.of(device, accelerator.port_bits)
        for op in workload.vector_ops:
            cycles += vector_cycles(op, accelerator.dense, memory, problem.timing)
            traffic += op.load_bytes + op.store_bytes
        cycles += sum(c.cycles for c in layers.values()) + sum(c.cycles for c in chains)
        traffic += sum(c.traffic for c in layers.values()) + sum(c.traffic for c in chains)
        energy = tables.energy.moved(traffic, cycles)
        loss = None if tables.loss is None else 0
        position = {fmt: i for i, fmt in enumerate(tables.formats)}
        size = 0
        for place, fmt in chosen.items():
            shape = workload.layers[place].shape
            energy += shape.macs * tables.energy.mac(*tables.formats[fmt])
            size += shape.weight_bytes(tables.formats[fmt][0])
            if tables.loss is not None and loss is not None:
                loss += int(tables.loss[place, position[fmt]])
        totals = {"latency": cycles, "traffic": traffic, "energy": energy, "size": size}
        totals["loss"] = loss or 0
        totals |= {name: int(self.space.use[name][best.place]) for name in RESOURCES}
        if totals[problem.objective] != best.value:
            raise AssertionError(
                f"tables say {problem.objective} {best.value}, the reference {totals}"
            )
        return JointResult(
            certificate, accelerator, tuple(layers.values()), tuple(chains),
            resources(accelerator, device), cycles, device.clock_hz, traffic,
            to_decimal(energy, 3), size,
            None if loss is None else to_decimal(loss, problem.digits["loss"]),
        )  # fmt: skip


def _members(pair: Array, count: int) -> list[Array]:
    """Accelerators of each pair."""
    order = np.argsort(pair, kind="stable")
    ends = np.searchsorted(pair[order], np.arange(count + 1))
    return [order[a:b] for a, b in pairwise(ends)]


def joint_problem(
    network: Graph | Workload, device: Device | str, *, formats: Sequence[str] | str,
    loss: Mapping[str, Mapping[str, Number]] | None = None, objective: str = "latency",
    limits: Mapping[str, Number] | None = None, loss_budget: Number | None = None,
    ties: Sequence[Sequence[str]] = (), forbid: Sequence[Sequence[tuple[str, str]]] = (),
    only: Mapping[str, Sequence[str]] | None = None, fusion: bool = True, pipelined: bool = True,
    space: SpaceOptions | Space | None = None,
    measured: Mapping[tuple[str, str], int] | None = None, energy: EnergyModel = DEFAULT_ENERGY,
    timing: Timing = DEFAULT_TIMING, cache: Path | None = None,
) -> JointProblem:  # fmt: skip
    """The joint problem of a prepared graph (or workload) on a device or board.

    ``loss`` maps layer to format to loss: ints and Decimals are taken exactly, floats are rounded
    to nine significant digits of the greatest. ``limits`` are upper limits: latency_ms, energy_uj,
    traffic_kb, size_kb (1024 bytes), loss, dsp, lut, ff, ramb18; ``loss_budget`` is a share (0..1)
    of the way from the least to the greatest total loss. ``objective`` is one of OBJECTIVES, all
    minimised but throughput (its maximum is the least latency: images follow one another).
    ``ties`` are lists of layers of one format, ``forbid`` lists of (layer, format) not to hold
    together, ``only`` the formats a layer may take. Raises InputError or InfeasibleError.
    """
    start = time.perf_counter()
    workload = workload_of(network) if isinstance(network, Graph) else network
    if isinstance(device, str):
        device = load_device(device)
    bits = _format_bits(formats)
    if objective not in OBJECTIVES:
        raise InputError(f"unknown objective {objective!r} (known: {', '.join(OBJECTIVES)})")
    minimised = "latency" if objective == "throughput" else objective
    given = dict(limits or {})
    known = (*LIMITS, *RESOURCES)
    for key, value in given.items():
        if key not in known:
            raise InputError(f"unknown limit {key!r} (known: {', '.join(known)})")
        if not _number(value) or value < 0:
            raise InputError(f"limit {key!r} is {value!r}; expected a number from 0 on")
    needs_loss = minimised == "loss" or "loss" in given or loss_budget is not None
    if needs_loss and loss is None:
        raise InputError("a loss is minimised or limited, but no loss table is given; give loss=")
    table, loss_digits = _loss_table(workload, bits, loss)
    units = units_of(
        workload, list(bits), {name: b[1] for name, b in bits.items()}, fused=fusion, ties=ties,
        forbid=forbid, only=only,
    )  # fmt: skip
    digits = dict.fromkeys((*JOINT, *CHOICE, *RESOURCES), 0)
    digits |= {"energy": 3, "loss": loss_digits}
    bounds: dict[str, int] = {}
    for key, metric in LIMITS.items():
        if key in given:
            bounds[metric] = _units(key, given[key], device, loss_digits)
    used = {minimised, *bounds}
    if isinstance(space, Space):
        found = space
    else:
        budget = {name: int(given[name]) for name in RESOURCES if name in given}
        # what is larger is never slower and never moves more, but may trade one for the other
        safe = minimised not in RESOURCES and not ("latency" in used and used & set(MOVED))
        found = generate(device, space, budget, drop_dominated=safe)
    tables = OptionTables(
        workload, bits, units, table, fusion,
        "traffic" if used & set(MOVED) and "latency" not in used else "cycles",
        energy, dict(measured or {}),
    )  # fmt: skip
    if loss_budget is not None:
        bounds["loss"] = min(bounds.get("loss", 1 << 62), _share(tables, loss_budget))
    return JointProblem(
        tables, device, found, minimised, bounds, digits, pipelined, timing, cache,
        time.perf_counter() - start,
    )  # fmt: skip


def _number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return False
    return Decimal(value).is_finite()


def _format_bits(formats: Sequence[str] | str) -> dict[str, tuple[int, int]]:
    text = formats if isinstance(formats, str) else ",".join(formats)
    found = {}
    for fmt in parse_formats(text):
        name = str(fmt)
        if fmt.weight_bits is None or fmt.act_bits is None:
            raise InputError(f"format {name!r} does not run on an FPGA engine; give wNaM formats")
        found[name] = (fmt.weight_bits, fmt.act_bits)
    return found


def _units(key: str, value: Number, device: Device, loss_digits: int) -> int:
    """A limit in the units of the tables, rounded down."""
    exact = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
    if key == "latency_ms":
        return scale_down(exact * device.clock_hz / 1000, 0)
    if key == "energy_uj":
        return scale_down(exact, 9)
    if key in ("traffic_kb", "size_kb"):
        return scale_down(exact * 1024, 0)
    return scale_down(exact, loss_digits)


def _loss_table(
    workload: Workload, formats: Mapping[str, tuple[int, int]],
    loss: Mapping[str, Mapping[str, Number]] | None,
) -> tuple[Any, int]:  # fmt: skip
    if loss is None:
        return None, 0
    values: list[list[Decimal]] = []
    inexact = False
    for layer in workload.layers:
        if layer.name not in loss:
            raise InputError(f"loss: layer {layer.name!r} is missing")
        row = loss[layer.name]
        for name in formats:
            if name not in row:
                raise InputError(f"loss: layer {layer.name!r} has no entry for format {name!r}")
            if not _number(row[name]):
                raise InputError(
                    f"loss: layer {layer.name!r}, format {name!r}: {row[name]!r} is not a number"
                )
            inexact |= isinstance(row[name], float)
        values.append([Decimal(row[name]) for name in formats])
    if inexact:
        peak = max((abs(v) for row in values for v in row), default=Decimal(0))
        step = Decimal(1).scaleb(peak.adjusted() - 8) if peak else Decimal(1)
        values = [[v.quantize(step) for v in row] for row in values]
    digits = max((0, *(-int(v.as_tuple().exponent) for row in values for v in row)))
    table = [[int(v.scaleb(digits)) for v in row] for row in values]
    return np.array(table, dtype=object), digits


def _share(tables: OptionTables, share: Number) -> int:
    if not _number(share) or not 0 <= share <= 1:
        raise InputError(f"loss_budget is {share!r}; expected a share from 0 to 1")
    loss = tables.choice_metric("loss")
    starts = tables.offsets[:-1]
    low = int(np.minimum.reduceat(loss, starts).sum())
    high = int(np.maximum.reduceat(loss, starts).sum())
    exact = Decimal(str(share)) if isinstance(share, float) else Decimal(share)
    return low + scale_down(exact * (high - low), 0)
