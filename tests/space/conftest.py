# SPDX-License-Identifier: Apache-2.0
"""Small joint problems from a seed, and an oracle that tries everything."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from codesign.cost.chain import ChainFormat
from codesign.cost.energy import EnergyModel
from codesign.cost.fill import Filler, chain_shape
from codesign.cost.memory import Memory
from codesign.cost.tables import INFEASIBLE, By, unpack
from codesign.space.device import load_device
from codesign.space.generate import DenseKind, Space, SpaceOptions, generate
from codesign.space.workload import Chain, Layer, LayerShape, VectorOp, Workload
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
        "objective": rng.choice(
            ["latency"] * 3 + ["throughput"] * 3 + ["energy", "traffic", "loss", "size", "dsp"]
        ),
        "fusion": rng.random() < 0.8,
        "pipelined": rng.random() < 0.5,
        "stream": rng.random() < 0.6,
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
    if rng.random() < 0.15:
        limits["fps"] = Decimal(2) ** rng.randint(0, 10)
    if rng.random() < 0.2:
        limits["dsp"] = rng.choice([90, 150, 220, 300])
    if rng.random() < 0.25:  # a least value, alone or beside the greatest
        least_values: list[tuple[str, Decimal]] = [
            ("size_kb", Decimal(2) ** rng.randint(2, 8)),
            ("loss", Decimal(rng.randint(10, 200) * len(layers)) / 100),
            ("latency_ms", Decimal(2) ** rng.randint(-7, 1)),
            ("dsp", Decimal(rng.choice([40, 80]))),
            ("energy_uj", Decimal(2) ** rng.randint(0, 6)),
        ]
        key, least = rng.choice(least_values)
        both = {"min": least} | ({"max": limits[key]} if key in limits else {})
        if both.get("max", least) >= least:
            limits[key] = both
    if rng.random() < 0.2 and len(names) > 1:
        arguments["ties"] = [rng.sample(names, 2)]
    if rng.random() < 0.3:
        some = rng.sample(names, rng.randint(1, min(2, len(names))))
        arguments["forbid"] = [[(name, rng.choice(formats)) for name in some]]
    kinds = rng.sample([DenseKind(), DenseKind(4, 8), DenseKind(4, 4, lut=True)], 2)
    options = SpaceOptions(
        inputs=(8, 16),
        outputs=(8,),
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


def oracle(question: Question, board: str, by: By, drop: bool = False) -> int | None:
    """The least objective in the tables' units, by trying every accelerator that fits the device
    (``drop``: and is not dominated in latency) with every combination of formats, fused and not;
    None when nothing is feasible."""
    best: int | None = None
    for values, runs in designs(question, board, by, drop):
        found = int(values[_minimised(question)][runs].min())
        best = found if best is None else min(best, found)
    return best


def _minimised(question: Question) -> str:
    name: str = question.arguments["objective"]
    return "interval" if name == "throughput" else name


def designs(
    question: Question, board: str, by: By, drop: bool = False
) -> Iterator[tuple[dict[str, Any], Any]]:
    """For every combination of formats that is allowed: every metric of every accelerator, and
    which of these run it within the limits (at least one)."""
    args, workload = question.arguments, question.workload
    device = load_device(board)
    # a stream is asked of the accelerators that are not dominated in latency, within the budget
    dsp = args["limits"].get("dsp")
    most = dsp.get("max") if isinstance(dsp, dict) else dsp
    budget = {"dsp": most} if drop and most is not None else {}
    space: Space = generate(device, question.options, budget, drop)
    filler = Filler(space, by=by, pipelined=args["pipelined"])
    formats = args["formats"].split(",")
    energy = EnergyModel()
    count = len(space)
    # in a stream it matters which engine a chain takes, so fused or not is a choice
    apart = args["stream"] and (args["objective"] == "throughput" or "fps" in args["limits"])
    rows = {
        (i, f): filler.layer(layer.shape, FORMATS[f])
        for i, layer in enumerate(workload.layers)
        for f in formats
    }
    one = {
        (i, f): _layer(filler, workload.layers[i].shape, row, by) for (i, f), row in rows.items()
    }
    vectors = [_vector(filler, op, by) for op in workload.vector_ops]
    fused = functools.cache(lambda chain, picked: _fused(filler, workload, chain, picked, by))
    chains = workload.chains if args["fusion"] else ()
    ways = list(itertools.product((False, True), repeat=len(chains))) if apart else [None]
    for pick, way in itertools.product(
        itertools.product(formats, repeat=len(workload.layers)), ways
    ):
        if not _allowed(question, pick):
            continue
        both = list(zip(workload.layers, pick))
        loss = sum(args["loss"][layer.name][f] for layer, f in both)
        size = sum(layer.shape.weight_bytes(FORMATS[f][0]) for layer, f in both)
        parts = list(vectors)
        left = set(range(len(workload.layers)))
        for place, chain in enumerate(chains):
            if way is None:
                left -= set(chain.layers)
                parts.append(_chain(filler, workload, chain, pick, rows, by))
            elif way[place]:
                left -= set(chain.layers)
                parts.append(fused(chain, _formats(chain, pick)))
        parts += [one[i, pick[i]] for i in left]
        cycles, traffic, dense, depthwise, memory = (
            sum((part[k] for part in parts), np.zeros(count, dtype=np.int64)) for k in range(5)
        )
        runs = np.logical_and.reduce([part[5] for part in parts])
        macs = sum(layer.shape.macs * energy.mac(*FORMATS[f]) for layer, f in both)
        values = {
            "latency": cycles,
            "interval": np.maximum(np.maximum(dense, depthwise), memory) if apart else cycles,
            "traffic": traffic,
            "energy": energy.dram_byte * traffic + macs,
            "size": np.full(count, size),
            "loss": np.full(count, int(loss * 100)),
            "dsp": space.use["dsp"],
        }
        runs = runs & _within(args["limits"], values, device.clock_hz)
        if runs.any():
            yield values, runs


SCALES: dict[str, Fraction | int] = {"energy": Fraction(1, 10**9), "size": Fraction(1, 1024),
          "loss": Fraction(1, 100), "dsp": 1}  # fmt: skip


def _within(limits: Any, values: Any, clock: int) -> Any:
    """Which accelerators keep every limit, in the user's units and exact fractions."""
    good = np.ones(len(values["latency"]), dtype=np.bool_)
    for key, given in limits.items():
        metric = {"fps": "interval"}.get(key, key.split("_")[0])
        unit = Fraction(1000, clock) if metric == "latency" else Fraction(SCALES.get(metric, 1))
        sides = given if isinstance(given, dict) else {"min" if key == "fps" else "max": given}
        for side, value in sides.items():
            bound, found = Fraction(value), values[metric]
            if key == "fps":
                good &= (clock * bound.denominator >= bound.numerator * found).astype(np.bool_)
            elif side == "max":
                good &= found <= math.floor(bound / unit)
            else:
                good &= found >= math.ceil(bound / unit)
    return good


def _moved(filler: Filler, load: Any, store: Any) -> Any:
    """Memory cycles one by one, by ``Memory.cycles``."""
    device, space = filler.space.device, filler.space
    bits = np.array(device.ports)[space.axes["port"]]
    loads, stores = np.broadcast_arrays(load, store, bits)[:2]
    triples = list(zip(bits.tolist(), loads.tolist(), stores.tolist()))
    known = {t: Memory.of(device, t[0]).cycles(t[1], t[2]) for t in set(triples)}
    return np.array([known[t] for t in triples])


def _vector(filler: Filler, op: VectorOp, by: By) -> Any:
    cycles, traffic = unpack(filler.vector(op), by)
    moved = _moved(filler, op.load_bytes, op.store_bytes)
    return cycles, traffic, cycles, 0 * cycles, moved, np.ones(len(cycles), dtype=np.bool_)


def _stored(shape: LayerShape) -> int:
    """Bytes of the result: every group in whole blocks of 8 channels."""
    parts = 1 if shape.kind == "depthwise" else shape.groups
    blocks = parts * math.ceil(shape.outputs / parts / 8)
    return 8 * blocks * shape.out_size[0] * shape.out_size[1]


def _layer(filler: Filler, shape: LayerShape, row: Any, by: By) -> Any:
    runs = row < INFEASIBLE
    cycles, traffic = unpack(np.where(runs, row, 0), by)
    apart = filler.has_depthwise & (shape.kind == "depthwise")
    store = _stored(shape)
    moved = _moved(filler, np.where(runs, traffic - store, 0), store)
    return cycles, traffic, np.where(apart, 0, cycles), np.where(apart, cycles, 0), moved, runs


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


def _formats(chain: Chain, pick: tuple[str, ...]) -> ChainFormat:
    return ChainFormat(
        None if chain.expand is None else FORMATS[pick[chain.expand]],
        FORMATS[pick[chain.depthwise]],
        None if chain.project is None else FORMATS[pick[chain.project]],
    )


def _fused(
    filler: Filler, workload: Workload, chain: Chain, formats: ChainFormat, by: By
) -> Any:  # fmt: skip
    """A fused chain takes both engines."""
    shape = chain_shape(workload, chain)
    found = filler.chain(shape, formats)
    runs = found < INFEASIBLE
    cycles, traffic = unpack(np.where(runs, found, 0), by)
    tail = shape.layers[-1]
    store = _stored(tail)
    moved = _moved(filler, np.where(runs, traffic - store, 0), store)
    return cycles, traffic, cycles, cycles, moved, runs


def _chain(
    filler: Filler, workload: Workload, chain: Chain, pick: tuple[str, ...], rows: Any, by: By
) -> Any:
    """The better of fused and layer by layer; what is taken of the engines is not asked then."""
    fused = filler.chain(chain_shape(workload, chain), _formats(chain, pick))
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
    cycles, traffic = np.where(wins, c1, c2), np.where(wins, t1, t2)
    return cycles, traffic, cycles, cycles, cycles, fused_ok | apart_ok
