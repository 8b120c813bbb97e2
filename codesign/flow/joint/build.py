# SPDX-License-Identifier: Apache-2.0
"""From a network, a device and the user's words to a joint problem in integers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from math import ceil, floor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from codesign.cost.energy import DEFAULT_ENERGY, EnergyModel
from codesign.cost.memory import DEFAULT_TIMING, Timing
from codesign.cost.option_tables import OptionTables
from codesign.errors import InputError
from codesign.flow.joint.problem import (
    CHOICE,
    INTERVAL,
    JOINT,
    LIMITS,
    MOVED,
    OBJECTIVES,
    JointProblem,
    Reward,
)
from codesign.ir.graph import Graph
from codesign.quant.formats import parse_formats
from codesign.solvers.decimals import scale_down
from codesign.space.device import Device, load_device
from codesign.space.generate import RESOURCES, Space, SpaceOptions, generate
from codesign.space.options import units_of
from codesign.space.workload import Workload, workload_of

Number: TypeAlias = int | float | Decimal
LimitValue: TypeAlias = Number | Mapping[str, Number]


def joint_problem(
    network: Graph | Workload, device: Device | str, *, formats: Sequence[str] | str,
    loss: Mapping[str, Mapping[str, Number]] | None = None, objective: str = "latency",
    limits: Mapping[str, LimitValue] | None = None, loss_budget: Number | None = None,
    ties: Sequence[Sequence[str]] = (), forbid: Sequence[Sequence[tuple[str, str]]] = (),
    only: Mapping[str, Sequence[str]] | None = None, fusion: bool = True, pipelined: bool = True,
    stream: bool = False, reward: Reward | None = None, space: SpaceOptions | Space | None = None,
    measured: Mapping[tuple[str, str], int] | None = None, energy: EnergyModel = DEFAULT_ENERGY,
    timing: Timing = DEFAULT_TIMING, cache: Path | None = None, also: Sequence[str] = (),
) -> JointProblem:  # fmt: skip
    """The joint problem of a prepared graph (or workload) on a device or board.

    ``loss`` maps layer to format to loss: ints and Decimals are taken exactly, floats are rounded
    to nine significant digits of the greatest. ``limits`` are upper limits: latency_ms, energy_uj,
    traffic_kb, size_kb (1024 bytes), loss, dsp, lut, ff, ramb18, and fps, which is a lower one;
    ``{"min": …, "max": …}`` states both sides. ``loss_budget`` is a share (0..1) of the way from
    the least to the greatest total loss. ``objective`` is one of OBJECTIVES, all minimised but
    throughput and reward (the MnasNet reward that ``reward`` describes).
    ``stream``: images follow one another and the engines work on different ones at once, so that
    throughput is no longer one over the latency; the accelerators are those that are not dominated
    in latency (give ``space=generate(device, drop_dominated=False)`` for all). ``pipelined``:
    within a fused chain both engines work on neighbouring tiles at once.
    ``ties`` are lists of layers of one format, ``forbid`` lists of (layer, format) not to hold
    together, ``only`` the formats a layer may take. ``also`` names metrics that later questions
    (``dataclasses.replace``) will minimise or limit. Raises InputError or InfeasibleError.
    """
    start = time.perf_counter()
    workload = workload_of(network) if isinstance(network, Graph) else network
    if isinstance(device, str):
        device = load_device(device)
    bits = _format_bits(formats)
    if objective not in OBJECTIVES:
        raise InputError(f"unknown objective {objective!r} (known: {', '.join(OBJECTIVES)})")
    if (objective == "reward") != (reward is not None):
        raise InputError('objective "reward" and reward= belong together; give both or neither')
    if reward is not None:
        _check_reward(reward)
    minimised = {"throughput": INTERVAL, "reward": "loss"}.get(objective, objective)
    sides = _sides(limits or {})
    named = {LIMITS.get(key, key) for key, _ in sides}
    needs_loss = minimised == "loss" or "loss" in {*named, *also} or loss_budget is not None
    if needs_loss and loss is None:
        raise InputError("a loss is minimised or limited, but no loss table is given; give loss=")
    table, loss_digits = _loss_table(workload, bits, loss)
    units = units_of(
        workload, list(bits), {name: b[1] for name, b in bits.items()}, fused=fusion, ties=ties,
        forbid=forbid, only=only,
    )  # fmt: skip
    digits = dict.fromkeys((*JOINT, INTERVAL, *CHOICE, *RESOURCES), 0)
    digits |= {"energy": 3, "loss": loss_digits}
    used = {minimised, *named, *also} | ({"latency"} if reward is not None else set())
    timed = {"latency", INTERVAL} & used
    budget = {
        key: int(value) for (key, side), value in sides.items()
        if side == "max" and key in RESOURCES and not isinstance(space, Space)
    }  # fmt: skip
    # what is larger is never slower and never moves more, but may trade one for the other
    safe = (
        not {minimised, *also} & set(RESOURCES)
        and not (timed and used & set(MOVED))
        and not any(
            side == "min" and LIMITS.get(key, key) not in (*CHOICE, INTERVAL) for key, side in sides
        )
    )
    # tilings of least traffic, unless time counts, or a least energy or traffic is asked for: what
    # meets that must go on meeting it when a limit on time is left out
    floored = any(side == "min" and LIMITS.get(key, key) in MOVED for key, side in sides)
    grid = None if isinstance(space, Space) else space or SpaceOptions()
    found = space if isinstance(space, Space) else generate(device, grid, budget, safe)
    tables = OptionTables(
        workload, bits, units, table, fusion,
        "traffic" if used & set(MOVED) and not timed and not floored else "cycles",
        energy, dict(measured or {}), stream and INTERVAL in used,
    )  # fmt: skip
    problem = JointProblem(
        tables, device, found, minimised, {}, digits, pipelined, timing, cache,
        stream=stream, budget=budget, grid=grid, drop_dominated=safe, reward=reward,
    )  # fmt: skip
    problem = with_limits(problem, limits or {})
    if loss_budget is not None:
        share = min(problem.limits.get("loss", 1 << 62), _share(tables, loss_budget))
        problem = replace(problem, limits={**problem.limits, "loss": share})
    return replace(problem, seconds_space=time.perf_counter() - start)


def with_limits(problem: JointProblem, limits: Mapping[str, LimitValue]) -> JointProblem:
    """The same question under other values of limits, given as ``joint_problem`` takes them.

    Resources that were limited stay so within the accelerators that the problem was built with.
    """
    upper: dict[str, int] = {}
    lower: dict[str, int] = {}
    for (key, side), value in _sides(limits).items():
        metric = LIMITS.get(key, key)
        exact = Decimal(str(value)) if isinstance(value, float) else Decimal(value)
        if key == "fps":
            if exact:
                upper[metric] = floor(problem.units(key, exact))
        elif side == "max":
            upper[metric] = floor(problem.units(key, exact))
        else:
            lower[metric] = ceil(problem.units(key, exact))
    # what the space keeps to needs no limit of its own
    upper = {m: v for m, v in upper.items() if problem.budget.get(m) != v}
    return replace(problem, limits=upper, floors=lower)


def _sides(limits: Mapping[str, LimitValue]) -> dict[tuple[str, str], Number]:
    """(key, side) to value, checked."""
    known = (*LIMITS, *RESOURCES)
    found: dict[tuple[str, str], Number] = {}
    for key, given in limits.items():
        if key not in known:
            raise InputError(f"unknown limit {key!r} (known: {', '.join(known)})")
        sides = given if isinstance(given, Mapping) else {"min" if key == "fps" else "max": given}
        if not sides or set(sides) - {"min", "max"}:
            raise InputError(
                f'limit {key!r} is {dict(sides)}; expected a number, or {{"min": …, "max": …}}'
            )
        if key == "fps" and "max" in sides:
            raise InputError("limit 'fps' is a least rate; it takes no max")
        for side, value in sides.items():
            if not _number(value) or value < 0:
                raise InputError(f"limit {key!r} is {value!r}; expected a number from 0 on")
            found[key, side] = value
        if len(sides) == 2 and sides["min"] > sides["max"]:
            raise InputError(
                f"limit {key!r}: min {sides['min']} is above max {sides['max']}; nothing is between"
            )
    return found


def _check_reward(reward: Reward) -> None:
    values = [reward.accuracy, reward.target_ms, reward.alpha, reward.beta, reward.tolerance]
    if not all(map(_number, values)):
        raise InputError(f"a reward needs finite numbers, got {reward}")
    if reward.alpha > 0 or reward.beta > 0 or reward.target_ms <= 0 or reward.tolerance < 0:
        raise InputError(
            "a reward needs alpha and beta of at most 0, a target above 0 and a tolerance of at "
            f"least 0, got {reward.alpha}, {reward.beta}, {reward.target_ms}, {reward.tolerance}"
        )


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
