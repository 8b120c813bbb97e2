# SPDX-License-Identifier: Apache-2.0
"""From a network, a device and the user's words to a joint problem in integers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from codesign.cost.energy import DEFAULT_ENERGY, EnergyModel
from codesign.cost.memory import DEFAULT_TIMING, Timing
from codesign.cost.option_tables import OptionTables
from codesign.errors import InputError
from codesign.flow.joint.problem import CHOICE, JOINT, MOVED, OBJECTIVES, JointProblem
from codesign.ir.graph import Graph
from codesign.quant.formats import parse_formats
from codesign.solvers.decimals import scale_down
from codesign.space.device import Device, load_device
from codesign.space.generate import RESOURCES, Space, SpaceOptions, generate
from codesign.space.options import units_of
from codesign.space.workload import Workload, workload_of

Number: TypeAlias = int | float | Decimal

LIMITS = {
    "latency_ms": "latency",
    "energy_uj": "energy",
    "traffic_kb": "traffic",
    "loss": "loss",
    "size_kb": "size",
}
"""Keys of limits to their metrics; resources (dsp, lut, ff, ramb18) may be limited besides."""


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
