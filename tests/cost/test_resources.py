# SPDX-License-Identifier: Apache-2.0
"""Resource model: block RAM as the hardware lists it, DSP by hand, LUTs against synthesis."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from codesign.cost.logic import LogicModel, Sizes, logic_model, mux, tree_bits
from codesign.cost.resources import (
    PAIRS,
    PARAMETERS,
    RESIDUALS,
    TAPS,
    Resources,
    engine_rams,
    ramb18,
    resources,
    way_out_rams,
)
from codesign.errors import InputError
from codesign.space.accelerator import Accelerator, Buffer, Engine
from codesign.space.device import load_device
from codesign.targets.fpga.hw.buffers import shapes
from codesign.targets.fpga.hw.requantise import table_shape
from codesign.targets.fpga.hw.results import entry_layout

ROOT = Path(__file__).resolve().parents[2]


def engine(rng: np.random.Generator, kind: str) -> Engine:
    """Any engine that hardware is made for."""

    def one(*values: int) -> int:
        return int(rng.choice(values))

    activation_bits = one(4, 8)
    buffers = [Buffer(one(256, 512, 1024, 2048, 4096)) for _ in range(3)]
    return Engine(
        "dense" if kind == "dense" else "depthwise",
        one(4, 8, 16, 24, 32) if kind == "dense" else 1,
        one(8, 16, 24, 48), one(1, 2, 3, 7), buffers[0], buffers[1],
        buffers[2] if kind == "dense" else Buffer(0), one(4, 8), activation_bits,
        double=kind == "dense" and activation_bits == 8 and bool(one(0, 1)), post=one(4, 8, 16),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["dense", "depthwise"])
def test_block_ram_is_that_of_the_hardware_s_own_list(kind: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        e = engine(rng, kind)
        listed = [*shapes(e), table_shape(e)]
        wanted = sum(m.count * int(ramb18(m.width, m.depth)) for m in listed)
        words = e.weight.depth * e.weight.banks, e.activation.depth * e.activation.banks
        found = engine_rams(Sizes.of(e, "xc7"), *words, e.accumulator.depth)
        assert int(found) + int(way_out_rams("xc7", e.post)) == wanted
        fixed = {m.name: (m.width, m.depth) for m in listed}
        assert (fixed["param"], fixed["tap"], fixed["residual"]) == (PARAMETERS, TAPS, RESIDUALS)
        assert {m.name: m.count for m in listed}["param"] == PAIRS


def test_the_queue_of_results_is_block_ram_on_an_ecp5() -> None:
    for post, pixels in ((4, 1), (8, 1), (16, 2)):
        more = int(way_out_rams("ecp5", post)) - int(way_out_rams("xc7", post))
        assert more == int(ramb18(entry_layout(pixels).size, 512))


def test_by_hand() -> None:
    dense = Engine("dense", 4, 8, 2, Buffer(512), Buffer(512), Buffer(512), post=8)
    device = load_device("ultra96")
    found = resources(Accelerator(dense, None, 64), device)
    # 64 products in pairs, 8 x 1 in pairs of one, two a requantiser of 8 + 4
    assert found.dsp == 32 + 8 + 2 * 12
    # weights 256 x 1024: 15; activations 2 x 32 x 1024: 2 each; sums 4 x 256 x 512: 8 each;
    # the other's 64 x 512 and 64 x 2048; 14 for parameters and taps of each; tables
    assert found.ramb18 == 15 + 2 * 2 + 4 * 8 + 2 + 8 + 2 * 14 + 12
    assert found.excess(device) == {}
    assert Resources(400, 1, 1, 500).excess(device) == {"dsp": 40, "ramb18": 68}


def test_depthwise_engine_pairs_pixels() -> None:
    device = load_device("ultra96")
    small = Engine("dense", 8, 8, 1, Buffer(512), Buffer(512), Buffer(512), post=8)
    none = 32 + 2 * 8
    for px, dsp in ((1, 8), (2, 8), (3, 16)):
        other = Engine("depthwise", 1, 8, px, Buffer(512), Buffer(512), post=4)
        assert resources(Accelerator(small, other, 64), device).dsp == none + dsp + 8
    lut = Engine("depthwise", 1, 8, 1, Buffer(512), Buffer(512), post=4, multiplier="lut")
    assert resources(Accelerator(small, lut, 64), device).dsp == none + 8


def test_without_hard_multipliers_there_are_none_in_the_requantisers_either() -> None:
    device = load_device("ultra96")
    dense = Engine("dense", 8, 8, 1, Buffer(512), Buffer(512), Buffer(512), 4, 4, "lut")
    other = Engine("depthwise", 1, 8, 1, Buffer(512), Buffer(512), post=4, multiplier="lut")
    soft = resources(Accelerator(dense, other, 64), device)
    assert soft.dsp == 0
    hard = resources(Accelerator(dense, None, 64), device)
    assert hard.dsp == 0  # what stands in for a missing engine multiplies as the dense one does


def test_features_by_hand() -> None:
    assert int(tree_bits(4, 16)) == 2 * 17 + 18
    assert int(tree_bits(3, 8)) == 9 + 10
    assert [int(mux("xc7", n)) for n in (1, 2, 4, 5)] == [0, 1, 1, 2]
    assert [int(mux("ecp5", n)) for n in (1, 2, 4)] == [0, 1, 3]


def test_arrays_price_as_numbers_do() -> None:
    rng = np.random.default_rng(5)
    model = logic_model("xcup")
    pairs = [(engine(rng, "dense"), engine(rng, "depthwise")) for _ in range(20)]
    sizes = [[Sizes.of(e, "xcup") for e in pair] for pair in pairs]
    names = [n for n in Sizes.__dataclass_fields__ if n != "dense"]
    columns = [
        Sizes(s[0].dense, **{n: np.array([getattr(x, n) for x in s]) for n in names})
        for s in zip(*sizes, strict=True)
    ]
    for what in ("lut", "ff"):
        together = model.total(what, columns[0], columns[1], 64, 1)
        alone = [int(model.total(what, a, b, 64, 1)) for a, b in sizes]
        assert together.tolist() == alone


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(InputError, match="no resource model of family 'ice40'"):
        logic_model("ice40")
    assert isinstance(logic_model("ecp5"), LogicModel)


def test_a_whole_accelerator_that_was_synthesised() -> None:
    """yosys 0.23, synth_xilinx for xc7: 64 DSP48E1, 15,014 LUT, 19,448 FF, 95 RAMB18; whole, while
    coefficients come from units."""
    dense = Engine("dense", 8, 8, 1, Buffer(512), Buffer(512), Buffer(256), post=8,
                   multiplier="dsp48e1")  # fmt: skip
    other = Engine("depthwise", 1, 8, 1, Buffer(256), Buffer(512), post=4, multiplier="dsp48e1")
    found = resources(Accelerator(dense, other, 64), load_device("pynq-z2"))
    assert (found.dsp, found.ramb18) == (64, 95)
    assert abs(found.lut / 15_014 - 1) < 0.05
    assert abs(found.ff / 19_448 - 1) < 0.05


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """``benchmarks/resources.py``."""
    spec = importlib.util.spec_from_file_location("r", ROOT / "benchmarks" / "resources.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_model_against_the_kept_syntheses(script: ModuleType) -> None:
    """Each accelerator under coefficients fitted to the others."""
    data = json.loads(script.FILE.read_text())
    count = 0
    for family in data["accelerators"]:
        for row in script.errors(data, family):
            count += 1
            for name in ("dsp", "ramb18"):
                assert row[name][0] == row[name][1], row
            assert abs(row["lut"][0] / row["lut"][1] - 1) <= 0.10, row
    assert count >= 3


def test_held_out_accelerators(script: ModuleType) -> None:
    """Whole syntheses that nothing is fitted to."""
    held = json.loads(script.FILE.read_text())["held"]["xcup"]
    device = load_device(script.PARTS["xcup"])
    assert len(held) >= 30
    for seed, use in held.items():
        found = resources(script.draw_held("xcup", int(seed)), device)
        assert (found.dsp, found.ramb18) == (use["dsp"], use["ramb18"]), seed
        assert abs(found.lut / use["lut"] - 1) <= 0.10, seed
