# SPDX-License-Identifier: Apache-2.0
"""Small joint problems from a seed, and an oracle that tries everything."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from codesign.cost.chain import ChainFormat
from codesign.cost.energy import EnergyModel
from codesign.cost.fill import Filler, chain_shape
from codesign.cost.tables import INFEASIBLE, By, unpack
from codesign.space.device import load_device
from codesign.space.generate import DenseKind, Space, SpaceOptions, generate
from codesign.space.workload import Chain, Layer, VectorOp, Workload
from tests.cost.conftest import draw_chain, draw_shape

FORMATS = {"w8a8": (8, 8), "w8a4": (8, 4), "w4a8": (4, 8), "w4a4": (4, 4)}


@dataclass(frozen=True)
class Question:
    """Arguments of ``joint_problem``."""

    workload: Workload
    options: SpaceOptions
    arguments: dict[str, Any]


def draw_question(seed: int) -> Question:
    """A network of up to five layers on a few dozen accelerators, with limits, ties, forbids."""
    rng = random.Random(seed)
    layers: list[Layer] = []
    chains = []
    if rng.random() < 0.6:
        drawn = draw_chain(rng)
        places: list[int | None] = []
        for shape in (drawn.expand, drawn.depthwise, drawn.project):
            places.append(None if shape is None else len(layers))
            if shape is not None:
                layers.append(Layer(f"l{len(layers)}", shape, f"t{len(layers)}"))
        assert places[1] is not None
        chains.append(Chain(places[0], places[1], places[2], drawn.local_residual))
    for _ in range(rng.randint(1, 2)):
        reads = f"t{len(layers)}" if not layers or rng.random() < 0.7 else layers[-1].reads
        layers.append(Layer(f"l{len(layers)}", draw_shape(rng), reads))
    ops = tuple(
        VectorOp(f"v{i}", rng.randint(1, 9000), rng.randint(1, 9000), rng.randint(1, 90000))
        for i in range(rng.randint(0, 1))
    )
    workload = Workload(f"net{seed}", tuple(layers), tuple(chains), ops)
    formats = sorted(rng.sample(sorted(FORMATS), rng.randint(2, 3)))
    names = [layer.name for layer in layers]
    loss = {name: {f: Decimal(rng.randint(0, 500)) / 100 for f in formats} for name in names}
    arguments: dict[str, Any] = {
        "formats": ",".join(formats),
        "loss": loss,
        "objective": rng.choice(["latency"] * 3 + ["energy", "traffic", "loss", "size", "dsp"]),
        "fusion": rng.random() < 0.8,
        "pipelined": rng.random() < 0.5,
        "limits": {},
    }
    limits = arguments["limits"]
    if rng.random() < 0.6:
        limits["loss"] = Decimal(rng.randint(50, 450) * len(layers)) / 100
    if rng.random() < 0.3:
        limits["size_kb"] = Decimal(2) ** rng.randint(3, 11)
    if rng.random() < 0.3 or arguments["objective"] in ("dsp", "loss"):
        limits["latency_ms"] = Decimal(2) ** rng.randint(-3, 9)
    if rng.random() < 0.2:
        limits["energy_uj"] = Decimal(2) ** rng.randint(3, 12)
    if rng.random() < 0.2 and len(names) > 1:
        arguments["ties"] = [rng.sample(names, 2)]
    if rng.random() < 0.3:
        some = rng.sample(names, rng.randint(1, min(2, len(names))))
        arguments["forbid"] = [[(name, rng.choice(formats)) for name in some]]
    kinds = rng.sample([DenseKind(), DenseKind(4, 8), DenseKind(4, 4, lut=True)], 2)
    options = SpaceOptions(
        inputs=(8, 16),
        outputs=(16,),
        pixels=(1, 2),
        kinds=tuple(kinds),
        post=(8, 16),
        weight_depths=(512, 1024),
        activation_depths=(512, 2048),
        accumulator_depths=(512,),
        depthwise_lanes=((8, 1), (16, 2)),
        depthwise_lut_lanes=(),
        depthwise=(False, True),
        depthwise_activation_depths=(1024, 4096),
    )
    return Question(workload, options, arguments)


def oracle(question: Question, board: str, by: By) -> int | None:
    """The least objective in the tables' units, by trying every accelerator that fits the device
    with every combination of formats, fused and not; None when nothing is feasible."""
    best: int | None = None
    for values, runs in designs(question, board, by):
        found = int(values[question.arguments["objective"]][runs].min())
        best = found if best is None else min(best, found)
    return best


def designs(question: Question, board: str, by: By) -> Iterator[tuple[dict[str, Any], Any]]:
    """For every combination of formats that is allowed: every metric of every accelerator, and
    which of these run it within the limits (at least one)."""
    args, workload = question.arguments, question.workload
    device = load_device(board)
    space: Space = generate(device, question.options, drop_dominated=False)
    filler = Filler(space, by=by, pipelined=args["pipelined"])
    formats = args["formats"].split(",")
    energy = EnergyModel()
    count = len(space)
    fixed_c = sum((unpack(filler.vector(o), by)[0] for o in workload.vector_ops), np.zeros(count))
    fixed_t = sum((unpack(filler.vector(o), by)[1] for o in workload.vector_ops), np.zeros(count))
    rows = {
        (i, f): filler.layer(layer.shape, FORMATS[f])
        for i, layer in enumerate(workload.layers)
        for f in formats
    }
    for pick in itertools.product(formats, repeat=len(workload.layers)):
        if not _allowed(question, pick):
            continue
        cycles, traffic = fixed_c.copy(), fixed_t.copy()
        runs = np.ones(count, dtype=np.bool_)
        left = set(range(len(workload.layers)))
        for chain in workload.chains if args["fusion"] else ():
            left -= set(chain.layers)
            c, t, ok = _chain(filler, workload, chain, pick, rows, by)
            cycles, traffic, runs = cycles + c, traffic + t, runs & ok
        for i in left:
            c, t = unpack(rows[i, pick[i]], by)
            cycles, traffic, runs = cycles + c, traffic + t, runs & (rows[i, pick[i]] < INFEASIBLE)
        both = list(zip(workload.layers, pick))
        macs = sum(layer.shape.macs * energy.mac(*FORMATS[f]) for layer, f in both)
        size = sum(layer.shape.weight_bytes(FORMATS[f][0]) for layer, f in both)
        loss = sum(args["loss"][layer.name][f] for layer, f in both)
        values = {
            "latency": cycles,
            "traffic": traffic,
            "energy": energy.dram_byte * traffic + macs,
            "size": np.full(count, size),
            "loss": np.full(count, int(loss * 100)),
            "dsp": space.use["dsp"],
        }
        limits = args["limits"]
        if "loss" in limits and loss > limits["loss"]:
            continue
        if "size_kb" in limits and size > limits["size_kb"] * 1024:
            continue
        if "latency_ms" in limits:
            runs = runs & (cycles <= int(limits["latency_ms"] * device.clock_hz / 1000))
        if "energy_uj" in limits:
            runs = runs & (values["energy"] <= int(limits["energy_uj"] * 10**9))
        if runs.any():
            yield values, runs


def _allowed(question: Question, pick: tuple[str, ...]) -> bool:
    workload, args = question.workload, question.arguments
    chosen = dict(zip((layer.name for layer in workload.layers), pick))
    for a, b in itertools.combinations(range(len(pick)), 2):
        same = workload.layers[a].reads == workload.layers[b].reads
        if same and FORMATS[pick[a]][1] != FORMATS[pick[b]][1]:
            return False
    if any(len({chosen[name] for name in tie}) > 1 for tie in args.get("ties", ())):
        return False
    return not any(all(chosen[n] == f for n, f in clause) for clause in args.get("forbid", ()))


def _chain(
    filler: Filler, workload: Workload, chain: Chain, pick: tuple[str, ...], rows: Any, by: By
) -> Any:
    formats = ChainFormat(
        None if chain.expand is None else FORMATS[pick[chain.expand]],
        FORMATS[pick[chain.depthwise]],
        None if chain.project is None else FORMATS[pick[chain.project]],
    )
    fused = filler.chain(chain_shape(workload, chain), formats)
    parts = [rows[i, pick[i]] for i in chain.layers]
    apart_ok = np.logical_and.reduce([p < INFEASIBLE for p in parts])
    c1, t1 = unpack(fused, by)
    c2 = sum(unpack(p, by)[0] for p in parts)
    t2 = sum(unpack(p, by)[1] for p in parts)
    first = (t1, c1) if by == "traffic" else (c1, t1)
    second = (t2, c2) if by == "traffic" else (c2, t2)
    fused_ok = fused < INFEASIBLE
    wins = (first[0] < second[0]) | ((first[0] == second[0]) & (first[1] < second[1]))
    wins = (wins | ~apart_ok) & fused_ok
    return np.where(wins, c1, c2), np.where(wins, t1, t2), fused_ok | apart_ok
