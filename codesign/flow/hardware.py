# SPDX-License-Identifier: Apache-2.0
"""Designs for FPGA boards: formats, accelerator and mappings chosen in one joint problem."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from codesign.errors import InfeasibleError, InputError
from codesign.flow.joint import JointProblem, JointResult, joint_problem, solve
from codesign.flow.options import BOARD_LIMITS, BOARD_OBJECTIVES, DesignOptions
from codesign.flow.tables import Tables, limits
from codesign.ir.graph import Graph
from codesign.solvers.solution import Solution, Status
from codesign.space.device import Device
from codesign.space.generate import SpaceOptions
from codesign.targets.fpga.build.ulx3s import room_for_buffers
from codesign.targets.fpga.design import Hardware

FUSION = True
"""Whether chains may run fused."""
_TO_JOINT = {"latency": ("latency_ms", Decimal(1)), "size": ("size_kb", Decimal(1) / 1024),
             "loss": ("loss", Decimal(1))}  # fmt: skip
_BOARD_KEYS = {"energy": "energy_uj", "traffic": "traffic_kb"}
_OBJECTIVES = ("latency", "size", "loss", *BOARD_OBJECTIVES)


def goal_of(options: DesignOptions) -> str:
    """The metric that is minimised: as asked, else the loss under a limit, else latency."""
    if options.objective != "auto":
        if options.objective not in _OBJECTIVES:
            raise InputError(
                f"--objective {options.objective}: an FPGA design minimises one of "
                f"{', '.join(_OBJECTIVES)}"
            )
        return options.objective
    limited = options.max_latency_ms is not None or options.max_size_kb is not None
    return "loss" if limited else "latency"


def board_limits(options: DesignOptions, device: Device) -> dict[str, Decimal]:
    """Limits that only boards have, in their units; the tightest counts."""
    found: dict[str, Decimal] = {}
    for name, value, unit in options.limits:
        if name not in BOARD_LIMITS:
            continue
        number = Decimal(str(value))
        if unit == "%":
            number = number / 100 * getattr(device, name)
        tighter = max if name == "fps" else min
        found[name] = tighter(number, found.get(name, number))
    return found


def time_limit_ms(asked: Mapping[str, Decimal]) -> float | None:
    """Most milliseconds that an image may take by limits on latency and fps; None: no limit."""
    found = [float(asked["latency"])] if "latency" in asked else []
    if rate := asked.get("fps"):
        found.append(1e3 / float(rate))
    return min(found, default=None)


def joint_limits(
    options: DesignOptions, device: Device, of_tables: Mapping[str, Decimal]
) -> dict[str, Any]:
    """All limits as ``joint_problem`` takes them. Raises InputError for what boards do not have."""
    given: dict[str, Any] = {
        _BOARD_KEYS.get(name, name): value for name, value in board_limits(options, device).items()
    }
    for name, value in of_tables.items():
        if name not in _TO_JOINT:
            raise InputError(
                f"--limit {name}: an FPGA design has no such limit (it has "
                f"{', '.join((*_TO_JOINT, *BOARD_LIMITS))})"
            )
        key, factor = _TO_JOINT[name]
        given[key] = value * factor
    return given


ROUTED_LUT, ROUTED_RAMB18 = 24_000, 96
"""Where the user gives no limit on an ECP5: the modelled accelerator's LUTs and its buffers' block
RAMs (the network's memory comes on top). The part has more; but wires set the clock of larger
designs, and nextpnr takes hours to route them or does not end."""


def solve_hardware(
    graph: Graph, device: Device, tables: Tables, options: DesignOptions,
    loss_limit: Decimal | None, tightness: Decimal = Decimal(1),
) -> tuple[Solution, Hardware, Tables, JointProblem]:  # fmt: skip
    """The best accelerator with formats and mappings under the user's limits; limits on time are
    taken ``tightness`` (at most 1) times as long.

    The tables that come back hold the modelled latencies of the chosen layers; the problem keeps
    what was filled, for an explanation. Raises
    InfeasibleError that names the limits, InputError for what FPGA designs do not have.
    """
    if options.batch != 1:
        raise InputError(f"--batch {options.batch}: an accelerator takes one image at a time")
    bad = [name for name, f in tables.formats.items() if f.is_float]
    if bad:
        raise InputError(f"--formats {bad[0]}: an accelerator's layers are integers of 2 to 8 bits")
    given = joint_limits(options, device, limits(tables, options, loss_limit))
    if device.family == "ecp5":  # the network's memory is block RAM, too
        room = Decimal(room_for_buffers(graph, device))
        given["ramb18"] = min(room, given.get("ramb18", Decimal(ROUTED_RAMB18)))
        given.setdefault("lut", Decimal(ROUTED_LUT))
    if "latency_ms" in given:
        given["latency_ms"] *= tightness
    if "fps" in given:
        given["fps"] /= tightness
    goal = goal_of(options)
    problem = joint_problem(
        graph, device, formats=list(tables.formats), loss=tables.loss, objective=goal,
        limits=given, fusion=FUSION,
        # placing is slow on an ECP5: small accelerators are offered, too
        space=SpaceOptions(least_products=32) if device.family == "ecp5" else None,
    )  # fmt: skip
    result = solve(problem, time_limit=options.time_limit)
    proof = result.certificate
    if proof.status is Status.INFEASIBLE:
        tighter = "" if tightness == 1 else (
            f"; limits on time are {100 * (1 - tightness):.1f} % tighter there than asked for: by "
            "the event model designs take that much longer than by the solver's formulas"
        )  # fmt: skip
        raise InfeasibleError(f"{options.network} on {device.board}: {result.why}{tighter}")
    if result.accelerator is None:
        raise InfeasibleError(
            f"{options.network} on {device.board}: no design was found in "
            f"{options.time_limit} seconds; give more time"
        )
    objective, bound = (_in_unit(goal, v, device) for v in (proof.objective, proof.bound))
    solution = Solution(
        proof.status, "joint", proof.seconds, options.network, objective, bound,
        result.accelerator.name, result.formats, None, proof.solved, proof.pruned,
    )  # fmt: skip
    return solution, hardware_of(result, device), _with_latency(tables, result), problem


def _in_unit(goal: str, value: Decimal | None, device: Device) -> Decimal | None:
    """A certificate's number in ms (latency), images/s (throughput) or µJ (energy)."""
    if value is None:
        return None
    if goal == "latency":
        return value * 1000 / device.clock_hz
    if goal == "throughput":
        return round(Decimal(device.clock_hz) / value, 6)
    return value / 10**6 if goal == "energy" else value


def hardware_of(result: JointResult, device: Device) -> Hardware:
    """What a build needs of a joint answer."""
    assert result.accelerator is not None
    cycles = {layer.name: layer.cycles for layer in result.layers}
    for chain in result.chains:
        cycles[chain.layers[0]] = chain.cycles
    used = {} if result.resources is None else {
        name: int(getattr(result.resources, name)) for name in ("dsp", "lut", "ff", "ramb18")
    }  # fmt: skip
    return Hardware(
        result.accelerator,
        device.board,
        device.clock_hz,
        tuple((layer.name, layer.tile) for layer in result.layers if layer.tile is not None),
        tuple((chain.layers, chain.tile) for chain in result.chains),
        tuple(cycles.items()),
        result.cycles,
        tuple(used.items()),
    )


def _with_latency(tables: Tables, result: JointResult) -> Tables:
    formats: Mapping[str, str] = result.formats
    to_ms = 1e3 / result.clock_hz
    cycles = {layer.name: layer.cycles for layer in result.layers}
    for chain in result.chains:
        cycles[chain.layers[0]] = chain.cycles
    found = {(name, formats[name]): n * to_ms for name, n in cycles.items()}
    return tables.with_measured(found)
