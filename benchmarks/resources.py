# SPDX-License-Identifier: Apache-2.0
"""Resource model against synthesis: draw accelerators by seed, synthesise, fit, report errors.

    python benchmarks/resources.py --family xc7 --train 12 --held-out 30     synthesises what is new
    python benchmarks/resources.py --fit                                     fits from the kept file
    python benchmarks/resources.py                                           errors of the model

Results of synthesis are kept in ``codesign/cost/synthesised.json``, one entry a unit (engine,
drain, buffer, memory side), so that fit and errors are reproducible without yosys. ``--whole N``
synthesises N whole accelerators, which the sums of units are held against.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

from codesign.space.accelerator import Accelerator, Buffer, Engine
from codesign.space.device import MultiplierKind

FILE = Path(__file__).parent.parent / "codesign" / "cost" / "synthesised.json"
HARD: dict[str, MultiplierKind] = {"xcup": "dsp48e2", "xc7": "dsp48e1", "ecp5": "mult18"}
MOST_LANES = 128


def draw(family: str, seed: int) -> Accelerator:
    """A small accelerator of the space, for a family of parts."""
    rng = random.Random(f"{family}/{seed}")
    hard = HARD[family]
    while True:
        pi, po, px = rng.choice((4, 8, 16, 24)), rng.choice((8, 8, 16, 24)), rng.choice((1, 2, 3, 4))
        if pi * po * px <= MOST_LANES:
            break
    wb, ab = rng.choice(((8, 8), (8, 8), (8, 8), (4, 8), (4, 4)))
    kind = "lut" if (wb, ab) == (4, 4) and rng.random() < 0.5 else hard
    dense = Engine(
        "dense", pi, po, px, Buffer(512), Buffer(512), Buffer(512), wb, ab, kind,
        double=ab == 8 and rng.random() < 0.3, post=rng.choice((8, 8, 16)),
    )  # fmt: skip
    lanes = rng.choice(((8, 1), (8, 2), (16, 1), (16, 2)))
    lut = lanes == (8, 1) and rng.random() < 0.3
    other = Engine(
        "depthwise", 1, *lanes, Buffer(512), Buffer(1024), multiplier="lut" if lut else hard, post=4
    )
    return Accelerator(dense, other, rng.choice((64, 64, 128)))


def read() -> dict[str, Any]:
    """The kept results."""
    if FILE.is_file():
        data: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
        return data
    return {"tool": "", "units": {}, "accelerators": {}, "whole": {}}


def write(data: dict[str, Any]) -> None:
    FILE.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def synthesise_new(family: str, seeds: range, at_once: int = 3) -> None:
    """Add what is not kept yet of some accelerators, ``at_once`` of them in one run of yosys."""
    from codesign.targets.fpga.build.synth import yosys_version
    from codesign.targets.fpga.build.units import synthesise_units, unit_parts

    for first in range(seeds.start, seeds.stop, at_once):
        part = {s: unit_parts(draw(family, s)) for s in range(first, min(first + at_once, seeds.stop))}
        known = read()["units"].get(family, {})
        missing = {
            name: make for parts in part.values() for name, (_, make) in parts.items()
            if name not in known
        }  # fmt: skip
        start = time.perf_counter()
        found = synthesise_units(missing, family) if missing else {}  # type: ignore[arg-type]
        data = read()
        data["tool"] = yosys_version()
        data["units"].setdefault(family, {}).update(found)
        for seed, parts in part.items():
            data["accelerators"].setdefault(family, {})[str(seed)] = {n: c for n, (c, _) in parts.items()}
        write(data)
        print(f"{family} {list(part)}: {len(missing)} units new, "
              f"{time.perf_counter() - start:.0f} s", flush=True)  # fmt: skip


if __name__ == "__main__":
    import sys
    fam, a, b = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    synthesise_new(fam, range(a, b))
