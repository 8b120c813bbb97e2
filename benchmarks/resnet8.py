#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""ResNet8 on CIFAR-10: a mixed design at a share of the w8a8 size against its rivals, measured.

Rivals are the uniform networks and random assignments of the same size (at most 2 % below the
limit). Every accuracy is of the integer network, compiled for this machine, on all labelled
images; each compiled network is first checked bit for bit against the reference semantics on
some images. Measured accuracies are kept in the user's cache, so an interrupted run goes on.

The data folder holds resnet8.pt, calib.npz and eval.npz; examples/finetune_resnet8.py makes it.

    python benchmarks/resnet8.py --data build/resnet8 --random 20 --json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import codesign
from codesign.data import cache_dir
from codesign.errors import CodesignError, InputError, VerifyError
from codesign.flow.choose import Session
from codesign.flow.options import DesignOptions
from codesign.flow.prepare import prepare
from codesign.flow.progress import Progress
from codesign.ir.batch import with_batch
from codesign.ir.graph import Graph
from codesign.quant.sensitivity.cache import Cache, array_digest, graph_digest

FILES = ("resnet8.pt", "calib.npz", "eval.npz")
WITHIN = Decimal("0.02")
"""A random assignment of the same size is at most this share below the limit."""
CLOSE = 0.3
"""Points that w8a8 may lie from the float network."""
BATCH = 50
DRAWS = 100_000
MOST_DRAWS = 200 * DRAWS
Bits = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Result:
    """One network with its measured answers."""

    name: str
    size: int
    """Bytes of packed weights and biases."""
    right: Bits
    """For each image whether the answer was its label."""
    choices: Mapping[str, str] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Percent."""
        return 100.0 * float(self.right.mean())


class Bench:
    """One network with its data: designs, measures, remembers."""

    def __init__(self, data: Path, formats: Sequence[str], seed: int, progress: Progress) -> None:
        for name in FILES:
            if not (data / name).is_file():
                raise InputError(
                    f"{data / name}: no such file; make it with "
                    f"`python examples/finetune_resnet8.py --out {data}`"
                )
        self.progress = progress
        self.asked: dict[str, Any] = {
            "weights": data / "resnet8.pt",
            "calib": data / "calib.npz",
            "eval": data / "eval.npz",
            "formats": tuple(formats),
            "seed": seed,
        }
        self.session = Session(
            prepare(DesignOptions("zoo:resnet8", **self.asked), progress), progress
        )
        assert self.session.prepared.eval is not None
        self.x, self.y = self.session.prepared.eval
        self.cache = Cache(
            cache_dir() / "accuracy", repr((array_digest(self.x), array_digest(self.y)))
        )

    def size(self, choices: Mapping[str, str]) -> int:
        """Bytes of packed weights and biases."""
        return int(self.session.tables.total("size", choices))

    def uniform(self, name: str) -> dict[str, str]:
        """Every layer in one format."""
        return dict.fromkeys(self.session.tables.layers, name)

    def float(self) -> Result:
        """The prepared float network, run by torch."""
        graph = self.session.prepared.graph
        with self.progress.task("Accuracy of the float network") as step:
            right = self._remember(graph, "torch", lambda: _answers_torch(graph, self.x, step))
        constants = sum(
            graph.type(name).size
            for n in graph.layers()
            for name in n.inputs[1:]
            if name in graph.constants
        )
        return Result("float", 4 * constants, right)

    def measure(self, name: str, choices: Mapping[str, str]) -> Result:
        """The integer network of a choice, compiled for this machine."""
        graph = self.session.quantize(choices)
        with self.progress.task(f"Accuracy of {name}") as step:
            right = self._remember(graph, "host", lambda: _answers_host(graph, self.x, step))
        return Result(name, self.size(choices), right, dict(choices))

    def _remember(self, graph: Graph, how: str, compute: Any) -> Bits:
        def packed() -> str:
            right = compute() == self.y
            return np.packbits(right).tobytes().hex()

        text = self.cache.remember((how, graph_digest(graph)), packed)
        bits = np.frombuffer(bytes.fromhex(text), np.uint8)
        return np.unpackbits(bits, count=len(self.y)).astype(bool)

    def design(self, method: str, limit: Decimal, labelled: bool) -> codesign.Design:
        """The product's own answer: least loss by ``method`` at no more than ``limit`` bytes.

        The choice sees no label; ``labelled`` has the design measure and predict accuracy too.
        """
        asked = self.asked if labelled else {**self.asked, "eval": None}
        with tempfile.TemporaryDirectory() as out:  # always by the code as it is
            return codesign.design(
                "zoo:resnet8",
                out,
                progress=self.progress,
                max_size_kb=float(limit / 1000),
                objective="loss",
                sensitivity=method,
                **asked,
            )

    def same_size(self, limit: Decimal) -> tuple[Decimal, Decimal]:
        """Least and greatest size in bytes that count as the same as ``limit``."""
        return (1 - WITHIN) * limit, limit


def _answers_torch(graph: Graph, x: npt.NDArray[Any], step: Any) -> npt.NDArray[Any]:
    from codesign.quant.torch_exec import run_batches

    (name,) = graph.inputs
    pieces = [x[i : i + BATCH] for i in range(0, len(x), BATCH)]
    found = []
    for outputs in run_batches(graph, ({name: piece} for piece in pieces)):
        found.append(outputs[0].argmax(axis=1))
        step(len(found) * BATCH, len(x))
    return np.concatenate(found)


def _answers_host(graph: Graph, x: npt.NDArray[Any], step: Any) -> npt.NDArray[Any]:
    """Greatest output of each image; raises VerifyError if a bit differs from the reference."""
    from codesign.quant.torch_exec import run_torch
    from codesign.targets.host import HostTarget

    batch = math.gcd(BATCH, len(x))
    sized = with_batch(graph, batch)
    runner = HostTarget(threads=1).runner(sized)
    found = []
    for start in range(0, len(x), batch):
        (outputs,) = runner.run(x[start : start + batch])
        if start == 0:
            (expected,) = run_torch(sized, (x[:batch],))
            if not np.array_equal(outputs, expected):
                raise VerifyError(f"{graph.name}: the compiled network differs from the reference")
        found.append(outputs.argmax(axis=1))
        step(start + batch, len(x))
    return np.concatenate(found)


def random_assignments(
    sizes: Mapping[str, Mapping[str, int]],
    activations: Mapping[str, int | None],
    shared: Sequence[Sequence[str]],
    low: Decimal,
    high: Decimal,
    count: int,
    seed: int,
    without: Mapping[str, str],
) -> list[dict[str, str]]:
    """``count`` distinct choices of ``low`` to ``high`` bytes, uniform over all but ``without``.

    ``activations`` are the formats' activation bits, on which layers that ``shared`` names
    together agree. Raises InputError if so many are not found.
    """
    rng = np.random.default_rng(seed)
    layers, formats = list(sizes), list(activations)
    table = np.array([[sizes[layer][f] for f in formats] for layer in layers])
    bits = np.array([activations[f] or 32 for f in formats])
    groups = [[layers.index(layer) for layer in group] for group in shared]
    found: dict[tuple[int, ...], dict[str, str]] = {}
    for _ in range(0, MOST_DRAWS, DRAWS):
        drawn = rng.integers(0, len(formats), (DRAWS, len(layers)))
        total = table[np.arange(len(layers)), drawn].sum(axis=1)
        held = (total >= math.ceil(low)) & (total <= math.floor(high))
        for group in groups:
            held &= (bits[drawn[:, group]] == bits[drawn[:, group[:1]]]).all(axis=1)
        for row in drawn[held]:
            choices = {layer: formats[i] for layer, i in zip(layers, row)}
            if choices != without:
                found.setdefault(tuple(int(i) for i in row), choices)
            if len(found) == count:
                return list(found.values())
    raise InputError(
        f"--random {count}: found only {len(found)} assignments of {low:.0f} to {high:.0f} bytes; "
        "ask for fewer, or offer more --formats"
    )


def how_many(sizes: Mapping[str, Mapping[str, int]], low: Decimal, high: Decimal) -> int:
    """Assignments of ``low`` to ``high`` bytes, all of them (agreement on activations aside)."""
    ways = {0: 1}
    for row in sizes.values():
        longer: dict[int, int] = {}
        for total, count in ways.items():
            for size in row.values():
                longer[total + size] = longer.get(total + size, 0) + count
        ways = longer
    return sum(count for total, count in ways.items() if low <= total <= high)


def standard_error(one: Bits, other: Bits) -> float:
    """Of the difference of two accuracies on the same images, in points."""
    difference = one.astype(int) - other.astype(int)
    return 100.0 * float(difference.std()) / math.sqrt(len(one))


def verdict(
    base: Result, rows: Mapping[str, Result], rivals: Sequence[Result], proven: bool
) -> dict[str, bool]:
    """Each claim, held or not; ``rows`` has w8a8, w4a8 and chosen."""
    chosen = rows["chosen"].accuracy
    return {
        f"w8a8 within {CLOSE} points of float":
            abs(rows["w8a8"].accuracy - base.accuracy) <= CLOSE + 1e-9,
        "chosen design proven optimal": proven,
        "chosen beats uniform w4a8": chosen > rows["w4a8"].accuracy,
        f"chosen beats all {len(rivals)} random assignments":
            bool(rivals) and all(chosen > rival.accuracy for rival in rivals),
    }  # fmt: skip


def run(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Everything measured, as the report that is printed."""
    methods = options.methods.split(",")
    formats = tuple(options.formats.split(","))
    for needed in ("w8a8", "w4a8"):
        if needed not in formats:
            raise InputError(f"--formats {options.formats}: {needed} has to be among them")
    bench = Bench(options.data, formats, options.seed, progress)
    tables = bench.session.tables
    limit = Decimal(str(options.share)) * bench.size(bench.uniform("w8a8"))
    base = bench.float()
    rows = {f: bench.measure(f, bench.uniform(f)) for f in ("w8a8", "w4a8")}
    designs = {method: bench.design(method, limit, method == methods[0]) for method in methods}
    chosen = {
        method: bench.measure(f"chosen by {method}", design.choices)
        for method, design in designs.items()
    }
    main, rows["chosen"] = designs[methods[0]], chosen[methods[0]]
    if abs((main.accuracy.measured or 0.0) - rows["chosen"].accuracy) > 1e-9:
        raise VerifyError(
            f"the design measured {main.accuracy.measured} % by the reference semantics, "
            f"compiled {rows['chosen'].accuracy} %"
        )
    low, high = bench.same_size(limit)
    activations = {name: form.act_bits for name, form in tables.formats.items()}
    drawn = random_assignments(
        tables.size, activations, tables.shared, low, high,
        options.random, options.seed, main.choices,
    )  # fmt: skip
    rivals = [bench.measure(f"random {i + 1}", c) for i, c in enumerate(drawn)]
    claims = verdict(base, rows, rivals, main.certificate.status == "optimal")

    def entry(result: Result) -> dict[str, Any]:
        return {
            "accuracy": result.accuracy,
            "size": result.size,
            "share_of_w8a8": result.size / rows["w8a8"].size,
            "points_from_float": result.accuracy - base.accuracy,
            "chosen_is_better_by": rows["chosen"].accuracy - result.accuracy,
            "standard_error": standard_error(rows["chosen"].right, result.right),
            "choices": dict(result.choices),
        }

    return {
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
        "how": "measured: top-1 of the integer network compiled for this machine",
        "images": len(bench.y),
        "limit": float(limit),
        "formats": list(formats),
        "seed": options.seed,
        "results": {
            r.name: entry(r) for r in (base, rows["w8a8"], rows["w4a8"], *chosen.values(), *rivals)
        },
        "chosen": rows["chosen"].name,
        "loss": main.loss_kind,
        "predicted": main.accuracy.predicted,
        "certificate": vars(main.certificate),
        "random": {
            "count": len(rivals),
            "possible": how_many(tables.size, low, high),
            "at_least": float(low),
            "best": max(r.accuracy for r in rivals),
            "median": statistics.median(r.accuracy for r in rivals),
            "worst": min(r.accuracy for r in rivals),
        },
        "claims": claims,
        "held": all(claims.values()),
    }


def machine() -> str:
    """Processor and cores."""
    from codesign.targets.tvm_lower.machine import cpu_model

    return f"{cpu_model()}, {platform.machine()}, {os.cpu_count()} cores"


def show(report: dict[str, Any]) -> None:
    """The report as text."""
    print(f"{report['machine']}, {report['date']}; {report['images']} images; {report['how']}")
    print(
        f"{'network':22}{'bytes':>8}{'% w8a8':>8}{'top-1 %':>9}{'to float':>10}"
        f"{'chosen is better by':>25}"
    )
    for name, row in report["results"].items():
        better = (
            ""
            if name == report["chosen"]
            else (f"{row['chosen_is_better_by']:+.2f} ± {row['standard_error']:.2f}")
        )
        print(
            f"{name:22}{row['size']:8}{100 * row['share_of_w8a8']:8.1f}{row['accuracy']:9.2f}"
            f"{row['points_from_float']:+10.2f}{better:>25}"
        )
    picked, spread = report["results"][report["chosen"]]["choices"], report["random"]
    by_format = {f: [n for n, c in picked.items() if c == f] for f in report["formats"]}
    for name, layers in by_format.items():
        print(f"{name}: {', '.join(layers) or 'none'}")
    proof = report["certificate"]
    print(
        f"certificate: {proof['status']}, loss {proof['objective']:.6g}, bound "
        f"{proof['bound']:.6g}, {proof['solver']}; loss: {report['loss']}"
    )
    if report["predicted"] is not None:
        print(f"predicted accuracy of the chosen design: {report['predicted']:.2f} %")
    print(
        f"random: best {spread['best']:.2f}, median {spread['median']:.2f}, worst "
        f"{spread['worst']:.2f} %; {spread['at_least']:.0f} to {report['limit']:.0f} bytes, "
        f"{spread['possible']} assignments of that size exist, seed {report['seed']}"
    )
    for claim, held in report["claims"].items():
        print(f"{'yes' if held else 'NO ':3} {claim}")


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if every claim holds, 1 if not, 2 for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("build/resnet8"))
    parser.add_argument("--formats", default="w8a8,w4a8")
    parser.add_argument("--share", type=float, default=0.6, help="of the w8a8 size")
    parser.add_argument("--random", type=int, default=20, help="rivals of the same size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--methods", default="auto,hessian,noise,weight-only",
        help="sensitivity methods to design by; the claims are about the first",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    from codesign.cli.progress import RichProgress

    try:
        report = run(options, RichProgress())
    except CodesignError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)
    return 0 if report["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
