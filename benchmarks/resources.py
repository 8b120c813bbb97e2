# SPDX-License-Identifier: Apache-2.0
"""Resource model against synthesis: draw accelerators by seed, synthesise, fit, report errors.

    python benchmarks/resources.py --family xcup --synthesise 0:42   synthesises what is not kept
    python benchmarks/resources.py --family xcup --whole 3           a whole accelerator, as a check
    python benchmarks/resources.py --fit                             fits the coefficients anew
    python benchmarks/resources.py --held 0:10                       held out, synthesised whole
    python benchmarks/resources.py --mapped 0:12                     DSP and block RAM, held out
    python benchmarks/resources.py                                   errors of the model

Errors are those of each accelerator under coefficients fitted to all others. Results of synthesis
are kept in ``codesign/cost/synthesised.json``, an entry a unit (``targets/fpga/build/units.py``),
so that fit and errors need no yosys; the coefficients stand in ``codesign/cost/logic.json``. A unit
takes 5 to 60 seconds of processor time, a whole small accelerator three to four minutes.

DSPs and block RAMs need no synthesis of logic (``targets/fpga/build/mapped.py``): ``--mapped``
checks them on whole accelerators of another draw, with every depth of the space, in seconds each;
none of them is used in a fit. A kept result carries a checksum of the RTLIL that it came from.
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
PARTS = {"xcup": "zu3eg", "xc7": "xc7z020", "ecp5": "ecp5-85f"}
SAME = {"xc7": "xcup", "xcup": "xc7"}
"""Families of the same LUTs: one stands for the other where nothing was synthesised."""
LOGIC = FILE.with_name("logic.json")
MOST_LANES = 128
PULL = 0.1
"""A coefficient's distance from the prior by its own size weighs as much as such a relative error
of a unit."""
WHOLE = {"lut": 0.941, "ff": 0.995}
"""Whole accelerator to the sum of its units: of 8 x 8 x 1 with depthwise 8 x 1 on xc7."""


def draw(family: str, seed: int) -> Accelerator:
    """A small accelerator of the space, for a family of parts."""
    rng = random.Random(f"{family}/{seed}")
    hard = HARD[family]
    while True:
        pi, po = rng.choice((4, 8, 16, 24)), rng.choice((8, 8, 16, 24))
        px = rng.choice((1, 2, 3, 4))
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


def draw_held(family: str, seed: int) -> Accelerator:
    """An accelerator of at most ``MOST_LANES`` lanes with any other parameter of the space that the
    solver searches on the family's board: none of ``draw``'s fixed depths."""
    from codesign.space.device import load_device
    from codesign.space.generate import SpaceOptions

    rng, o = random.Random(f"held {family}/{seed}"), SpaceOptions()
    device, hard = load_device(PARTS[family]), HARD[family]
    while True:
        pi, po, px = (rng.choice(v) for v in (o.inputs, o.outputs, o.pixels))
        if pi * po * px <= MOST_LANES:
            break
    kind = rng.choice(o.kinds)
    weight, activation, sums = (
        Buffer(rng.choice(d))
        for d in (o.weight_depths, o.activation_depths, o.accumulator_depths)
    )
    dense = Engine(
        "dense", pi, po, px, weight, activation, sums, kind.weight_bits,
        kind.activation_bits, "lut" if kind.lut else hard,
        double=kind.activation_bits == 8 and rng.random() < 0.4, post=rng.choice(o.post),
    )  # fmt: skip
    lanes = rng.choice([n for n in o.depthwise_lanes if n[0] * n[1] <= 64])
    soft = lanes in o.depthwise_lut_lanes and rng.random() < 0.5
    other = Engine(
        "depthwise", 1, *lanes, Buffer(o.depthwise_weight_depth),
        Buffer(rng.choice(o.depthwise_activation_depths)), multiplier="lut" if soft else hard,
        post=o.depthwise_post if lanes[0] * lanes[1] <= 32 else o.depthwise_wide_post,
    )  # fmt: skip
    return Accelerator(dense, other, rng.choice(device.ports))


def map_held(family: str, seeds: range) -> None:
    """Add DSPs and block RAMs of held-out accelerators, whole ones; memories that several share are
    mapped once."""
    from amaranth.back import rtlil

    from codesign.targets.fpga.build.mapped import content, hard_blocks, parts_of
    from codesign.targets.fpga.build.synth import yosys_version
    from codesign.targets.fpga.hw.top import NAME, Top

    start = time.perf_counter()
    parts, sums = [], []
    for seed in seeds:
        top = Top(draw_held(family, seed))
        text = rtlil.convert(top, name=NAME, ports=top.ports, emit_src=False)
        parts.append(parts_of(text, NAME))
        sums.append(content(text))
    found = hard_blocks(parts, family)  # type: ignore[arg-type]
    data = read()
    data["tool"] = yosys_version()
    rows = data.setdefault("mapped", {}).setdefault(family, {})
    for seed, use, rtl in zip(seeds, found, sums):
        rows[str(seed)] = {"dsp": use.dsp, "ramb18": use.ramb18, "rtl": rtl}
    write(data)
    print(f"{family} {seeds}: {time.perf_counter() - start:.0f} s", flush=True)


def show_held(data: dict[str, Any], family: str) -> None:
    """DSP and block RAM of the model against those of held-out accelerators."""
    from codesign.cost.resources import resources
    from codesign.space.device import load_device

    device, wrong = load_device(PARTS[family]), 0
    rows = dict(data.get("mapped", {}).get(family, {})) | data.get("held", {}).get(family, {})
    lanes, off = [], []
    for seed, use in rows.items():
        accelerator = draw_held(family, int(seed))
        lanes.append(accelerator.dense.lanes)
        model = resources(accelerator, device)
        both = [(getattr(model, name), use[name]) for name in ("dsp", "ramb18")]
        if any(a != b for a, b in both):
            wrong += 1
            print(f"{family} {seed} {accelerator.name}: DSP, RAMB18 (model, yosys) {both}")
        if "lut" in use:
            error = {k: 100 * (getattr(model, k) / use[k] - 1) for k in ("lut", "ff")}
            off.append(error)
            print(f"{family} {seed} {accelerator.name}, held out, synthesised whole: LUT "
                  f"{model.lut:,} modelled, {use['lut']:,} synthesised, {error['lut']:+.1f} %; FF "
                  f"{error['ff']:+.1f} %")  # fmt: skip
    for seed, use in data["whole"].get(family, {}).items():
        if seed not in data["accelerators"].get(family, {}):  # not fitted to
            model = resources(draw(family, int(seed)), device)
            pairs = {k: (getattr(model, k), use[k]) for k in ("dsp", "ramb18", "lut", "ff")}
            error = {k: 100 * (pairs[k][0] / pairs[k][1] - 1) for k in ("lut", "ff")}
            print(f"{family} {seed} {draw(family, int(seed)).name}, held out, synthesised whole "
                  f"(model, yosys): {pairs}; LUT {error['lut']:+.1f} %, FF {error['ff']:+.1f} %")
    if rows:
        print(f"{family}: DSP and RAMB18 exact on {len(rows) - wrong} of {len(rows)} held-out "
              f"whole accelerators of {min(lanes)} to {max(lanes)} dense lanes")  # fmt: skip
    if off:
        near = sum(abs(e["lut"]) <= 10 for e in off)
        print(f"{family}: LUT within 10 % on {near} of {len(off)} held-out accelerators, "
              f"{min(e['lut'] for e in off):+.1f} to {max(e['lut'] for e in off):+.1f} %; FF "
              f"{min(e['ff'] for e in off):+.1f} to {max(e['ff'] for e in off):+.1f} %")


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
        some = range(first, min(first + at_once, seeds.stop))
        part = {s: unit_parts(draw(family, s)) for s in some}
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
            counted = {name: count for name, (count, _) in parts.items()}
            data["accelerators"].setdefault(family, {})[str(seed)] = counted
        write(data)
        print(f"{family} {list(part)}: {len(missing)} units new, "
              f"{time.perf_counter() - start:.0f} s", flush=True)  # fmt: skip


def synthesise_whole(family: str, seed: int, kind: str = "whole") -> None:
    """Synthesise one whole accelerator: of ``draw``, to hold the sum of its units against
    ("whole"), or of ``draw_held``, to hold the model against ("held")."""
    from amaranth.back import rtlil

    from codesign.targets.fpga.build.mapped import content
    from codesign.targets.fpga.build.synth import synthesise
    from codesign.targets.fpga.hw.top import NAME, Top

    top = Top((draw_held if kind == "held" else draw)(family, seed))
    text = rtlil.convert(top, name=NAME, ports=top.ports, emit_src=False)
    found = synthesise(text, NAME, family)  # type: ignore[arg-type]
    data = read()
    data.setdefault(kind, {}).setdefault(family, {})[str(seed)] = {
        name: getattr(found, name) for name in ("dsp", "lut", "ff", "ramb18")
    } | {"rtl": content(text)}
    write(data)
    print(f"{family} {seed}, whole: {found.seconds:.0f} s", flush=True)


def composed(data: dict[str, Any], family: str, seed: str) -> dict[str, int] | None:
    """Sum over the units of an accelerator; None where one is not there."""
    total = dict.fromkeys(("dsp", "lut", "ff", "ramb18"), 0)
    for unit, count in data["accelerators"][family][seed].items():
        use = data["units"].get(family, {}).get(unit)
        if use is None:
            return None
        for name in total:
            total[name] += count * use[name]
    return total


LUT_PRIOR: dict[str, dict[str, float]] = {
    "dense": {
        "one": 600, "memory": 60, "rotate": 1, "operand": 1.5, "operand_double": 2, "tree": 1,
        "tree_double": 1, "sum": 2, "sum_double": 2, "product_double": 8, "narrow": 2, "product": 1,
    },
    "drain": {"one": 1700, "post": 230, "choice": 0.8, "soft": 1000},
    "depthwise": {
        "one": 2000, "post": 240, "memory": 60, "rotate": 1, "output": 115, "product": 1,
        "soft": 1000,
    },
    "sums": {"one": 18, "word": 2},
    "loader": {"one": 1000, "wide": 300, "granules": 0.1, "memories": 5},
    "system": {"one": 3700, "wide": 700},
    "activation": {"one": 10, "memory": 5, "lane": 1, "wide": 1, "nibbles": 1, "word": 1},
    "weight": {"one": 5, "word": 0.01},
}  # fmt: skip
"""What the structure and one accelerator, 8 x 8 x 1 with depthwise 8 x 1 on xc7, say of LUTs; few
synthesised units leave a coefficient near it. "soft", a requantiser's product of 32 x 16 bits in
LUTs: eight of 8 x 8, 114 each, and their sums."""
FF_PRIOR: dict[str, dict[str, float]] = {
    "dense": {
        "one": 380, "memory": 40, "rotate": 0, "operand": 2, "operand_double": 2, "tree": 1,
        "tree_double": 1, "sum": 2, "sum_double": 1, "product_double": 0, "narrow": 0,
        "product": 0.5,
    },
    "drain": {"one": 1249, "post": 260, "choice": 0, "soft": 100},
    "depthwise": {
        "one": 1100, "post": 260, "memory": 60, "rotate": 0, "output": 90, "product": 0.5,
        "soft": 100,
    },
    "sums": {"one": 2, "word": 3},
    "loader": {"one": 700, "wide": 200, "granules": 0.1, "memories": 5},
    "system": {"one": 5217, "wide": 900},
    "activation": {"one": 78, "memory": 1, "lane": 0, "wide": 1, "nibbles": 0, "word": 1},
    "weight": {"one": 11, "word": 2},
}  # fmt: skip
"""The same of FFs."""
FOUR = {"lut": 1.7, "ff": 1.3}
"""An ECP5's LUT4 and FF to those of a Xilinx part: of the digits network's ULX3S design."""


def prior_of(family: str, what: str) -> dict[str, dict[str, float]]:
    """Coefficients before any unit is looked at."""
    scale = FOUR[what] if family == "ecp5" else 1.0
    table = LUT_PRIOR if what == "lut" else FF_PRIOR
    return {kind: {n: scale * v for n, v in row.items()} for kind, row in table.items()}


def rows_of(data: dict[str, Any], family: str, seed: int) -> dict[str, list[tuple[Any, Any]]]:
    """Kind of unit to (features, synthesised use) of the units of one accelerator."""
    from codesign.cost import logic
    from codesign.space.accelerator import built_depthwise
    from codesign.targets.fpga.build.units import CANONICAL, unit_parts

    accelerator = draw(family, seed)
    dense, other = (
        logic.Sizes.of(e, family) for e in (accelerator.dense, built_depthwise(accelerator))
    )
    wide = int(accelerator.port_bits >= 128)
    hard = int(any(e.multiplier != "lut" for e in accelerator.engines))
    use = data["units"][family]
    names = list(unit_parts(accelerator))

    def named(kind: str) -> list[str]:
        return [n for n in names if n.split()[0] == kind]

    given = {
        "dense": [logic.dense_features(family, dense)],
        "drain": [logic.drain_features(family, dense, hard)],
        "depthwise": [logic.depthwise_features(family, other, hard)],
        "sums": [logic.sums_features(family, dense)],
        "weight": [logic.weight_features(family, s) for s in (dense, other)],
        "activation": [logic.activation_features(family, s, wide) for s in (dense, other)],
    }
    found = {
        kind: [(f, use[n]) for f, n in zip(features, named(kind)) if n in use]
        for kind, features in given.items()
    }
    loaders = named("loader")
    base = [logic.Sizes.of(e, family) for e in (CANONICAL.dense, built_depthwise(CANONICAL))]
    engines = {loaders[0]: (base[0], base[1]), loaders[-1]: (dense, other)}
    found["loader"] = [
        (logic.loader_features(family, a, b, wide), use[n])
        for n, (a, b) in engines.items() if n in use
    ]
    side = named("system")[0]
    if all(n in use for n in (side, loaders[0], "param", "tap")):
        rest = {
            k: use[side][k] - use[loaders[0]][k] + 2 * (use["param"][k] + use["tap"][k])
            for k in ("lut", "ff")
        }
        found["system"] = [(logic.system_features(family, wide), rest)]
    return found


def fit(
    data: dict[str, Any], family: str, what: str, without: int | None = None
) -> dict[str, dict[str, float]]:
    """Coefficients by least squares of relative errors, none negative, drawn to the prior where
    units say little; ``without`` one accelerator."""
    import numpy as np
    from scipy.optimize import nnls  # type: ignore[import-untyped]

    rows: dict[str, list[tuple[Any, float]]] = {}
    for seed in map(int, data["accelerators"].get(family, {})):
        if seed != without:
            for kind, units in rows_of(data, family, seed).items():
                rows.setdefault(kind, []).extend((f, use[what]) for f, use in units)
    found = {}
    for kind, prior in prior_of(family, what).items():
        names = list(prior)
        given = rows.get(kind, [])
        a = [[float(f[n]) / max(v, 20.0) for n in names] for f, v in given]
        b = [v / max(v, 20.0) for _, v in given]
        for place, name in enumerate(names):
            weight = PULL / max(prior[name], 1e-3)
            a.append([weight if k == place else 0.0 for k in range(len(names))])
            b.append(weight * prior[name])
        values, _ = nnls(np.array(a), np.array(b))
        found[kind] = {n: float(f"{v:.5g}") for n, v in zip(names, values) if v > 1e-9}
    ratios = [
        row[what] / total[what]
        for seed, row in data["whole"].get(family, {}).items()
        if seed in data["accelerators"].get(family, {})
        and (total := composed(data, family, seed)) is not None
    ]
    found["whole"] = {"one": float(f"{np.mean(ratios) if ratios else WHOLE[what]:.4g}")}
    return found


def errors(data: dict[str, Any], family: str) -> list[dict[str, Any]]:
    """Model against synthesis of every accelerator that is there unit by unit, each held out: the
    coefficients are fitted to the others."""
    from codesign.cost.logic import LogicModel
    from codesign.cost.resources import resources
    from codesign.space.device import load_device

    device = load_device(PARTS[family])
    found = []
    for seed in data["accelerators"].get(family, {}):
        truth = composed(data, family, seed)
        if truth is None:
            continue
        tables = {what: fit(data, family, what, int(seed)) for what in ("lut", "ff")}
        for what, table in tables.items():
            truth[what] = round(truth[what] * table["whole"]["one"])
        model = resources(draw(family, int(seed)), device, LogicModel(family, **tables))
        found.append({
            "seed": int(seed), "name": draw(family, int(seed)).name,
            "whole": data["whole"].get(family, {}).get(seed),
            **{k: (getattr(model, k), v) for k, v in truth.items()},
        })  # fmt: skip
    return found


def show(data: dict[str, Any], family: str) -> None:
    """A line an accelerator, then the worst."""
    rows = errors(data, family)
    for row in rows:
        share = {k: 100 * (row[k][0] / row[k][1] - 1) for k in ("lut", "ff")}
        row |= {f"{k}_error": v for k, v in share.items()}
        whole = "" if row["whole"] is None else f"; whole {row['whole']}"
        print(f"{family} {row['seed']:3d} {row['name']}: "
              f"DSP {row['dsp']}, RAMB18 {row['ramb18']}, LUT {row['lut']} {share['lut']:+.1f} %, "
              f"FF {row['ff']} {share['ff']:+.1f} %{whole}")  # fmt: skip
    exact = sum(row[k][0] == row[k][1] for row in rows for k in ("dsp", "ramb18"))
    worst = {k: max(abs(row[f"{k}_error"]) for row in rows) for k in ("lut", "ff")}
    print(f"{family}: {len(rows)} accelerators, each held out; DSP and RAMB18 exact in {exact} of "
          f"{2 * len(rows)}; LUT within {worst['lut']:.1f} %, FF within {worst['ff']:.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description="Resource model against synthesis.")
    parser.add_argument("--family", choices=HARD, action="append")
    parser.add_argument("--synthesise", metavar="FROM:TO", help="seeds")
    parser.add_argument("--whole", type=int, metavar="SEED")
    parser.add_argument("--held", metavar="FROM:TO", help="seeds of held-out accelerators, whole")
    parser.add_argument("--mapped", metavar="FROM:TO", help="seeds of held-out accelerators")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    families = given.family or list(HARD)
    for family in families:
        if given.synthesise:
            first, last = map(int, given.synthesise.split(":"))
            synthesise_new(family, range(first, last))
        if given.whole is not None:
            synthesise_whole(family, given.whole)
        if given.held:
            first, last = map(int, given.held.split(":"))
            known = read().get("held", {}).get(family, {})
            for seed in range(first, last):
                if str(seed) not in known:
                    synthesise_whole(family, seed, "held")
        if given.mapped:
            first, last = map(int, given.mapped.split(":"))
            map_held(family, range(first, last))
    data = read()
    if given.fit:
        model = json.loads(LOGIC.read_text(encoding="utf-8"))
        for family in families:
            source = family if data["accelerators"].get(family) else SAME.get(family, family)
            model[family] = {what: fit(data, source, what) for what in ("lut", "ff")}
        LOGIC.write_text(json.dumps(model, indent=1) + "\n", encoding="utf-8")
    if given.json:
        print(json.dumps({f: errors(data, f) for f in families}))
        return
    for family in families:
        if data["accelerators"].get(family):
            show(data, family)
        show_held(data, family)


if __name__ == "__main__":
    main()
