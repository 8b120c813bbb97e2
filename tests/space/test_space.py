# SPDX-License-Identifier: Apache-2.0
"""Devices, accelerators and their generation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from codesign.cost.fill import Filler
from codesign.cost.resources import resources
from codesign.cost.tables import unpack
from codesign.errors import InfeasibleError, InputError
from codesign.space.accelerator import Accelerator, Buffer, Engine
from codesign.space.device import devices, load_device, parse_devices
from codesign.space.generate import (
    AXES,
    RESOURCES,
    DenseKind,
    SpaceOptions,
    _nothing,
    generate,
)
from codesign.space.workload import LayerShape

SMALL = SpaceOptions(
    depthwise=(False, True), depthwise_lut_lanes=(),
    inputs=(8, 16), outputs=(8, 16), pixels=(1, 2), kinds=(DenseKind(), DenseKind(4, 4, lut=True)),
    weight_depths=(512, 1024), activation_depths=(512, 2048), accumulator_depths=(512, 1024),
    depthwise_lanes=((8, 2),), depthwise_activation_depths=(1024, 2048),
)  # fmt: skip
TOML = """
name = "x"
part = "x1"
family = "xc7"
lut = 1
ff = 1
dsp = 1
ramb18 = 1
uram = 0
multiplier = "dsp48e1"
clock_hz = 1
source = "s"
[boards.b]
dram_bytes_per_second = 1
dram_efficiency_percent = 1
dram_latency_cycles = 1
ports = [64]
source = "t"
"""


def test_packaged_devices() -> None:
    parts = {device.name: device for device in devices().values()}
    counts = {name: (d.lut, d.dsp, d.ramb18) for name, d in parts.items()}
    # methods: xc7z020 53,200 / 220 / 280 RAMB18, ZU3EG 70,560 / 360 / 432, ZU5EV 117,120 / 1,248 /
    # 288, ZU9EG 274,080 / 2,520 / 1,824, ECP5-85F 83,640 / 156 / 208
    assert counts["xc7z020"] == (53200, 220, 280)
    assert counts["zu3eg"] == (70560, 360, 432)
    assert counts["zu5ev"] == (117120, 1248, 288)
    assert counts["zu9eg"] == (274080, 2520, 1824)
    assert counts["ecp5-85f"] == (83640, 156, 208)
    assert all(device.source for device in devices().values())
    assert {"ultra96", "kv260", "zcu102", "pynq-z2", "zedboard", "arty-a7-100", "ulx3s-85f"} == set(
        devices()
    )


def test_dram_rate_is_exact() -> None:
    # 250 MHz against 4.264 GB/s at 70 %: 250e6 / 2984.8e6
    assert load_device("ultra96").dram_rate == (625, 7462)
    assert load_device("ultra96").with_clock(125_000_000).dram_latency_cycles == 30


def test_device_messages() -> None:
    with pytest.raises(InputError, match=r"^unknown device 'ultra69'; did you mean 'ultra96'\?"):
        load_device("ultra69")
    for old, new, message in (
        ("lut = 1\n", "", "device file f: lut is missing"),
        ("lut = 1\n", "lut = 0\n", "device file f: lut is 0; expected more than 0"),
        ("lut = 1\n", "lut = true\n", "device file f: lut is True; expected int"),
        ('"dsp48e1"', '"x"', "device file f: multiplier 'x'; expected one of dsp48e2, dsp48e1, "
         "mult18, lut"),
        ("ports = [64]", "", "device file f: boards.b.ports is missing"),
        ("uram = 0\n", "uram = 0\nmore = 1\n", "device file f: unknown key more (known: name, "
         "part, family, lut, ff, dsp, ramb18, uram, multiplier, clock_hz, source)"),
    ):  # fmt: skip
        with pytest.raises(InputError) as raised:
            parse_devices(TOML.replace(old, new), "f")
        assert str(raised.value) == message


def test_generated_accelerators_fit_and_differ() -> None:
    device = load_device("pynq-z2")
    space = generate(device, SMALL, drop_dominated=False)
    assert space.generated == len(space)
    assert len(set(space.names)) == len(space)
    for place in range(0, len(space), 37):
        accelerator = space.accelerator(place)
        use = resources(accelerator, device)
        assert not use.excess(device)
        assert all(getattr(use, name) == space.use[name][place] for name in RESOURCES)
        assert Accelerator.from_data(accelerator.to_data()) == accelerator


def test_ten_thousand_accelerators_on_the_boards_of_the_benchmark() -> None:
    for board in ("ultra96", "pynq-z2"):
        assert generate(load_device(board)).generated >= 10_000


def test_dominated_ones_are_never_better() -> None:
    device = load_device("pynq-z2")
    everything = generate(device, SMALL, drop_dominated=False)
    kept = generate(device, SMALL)
    assert len(kept) < len(everything) == kept.generated
    shapes = [
        LayerShape("dense", 40, 70, 1, (3, 3), (1, 1), (1, 1), (14, 14), (14, 14), True),
        LayerShape("dense", 200, 30, 1, (1, 1), (1, 1), (1, 1), (7, 7), (7, 7)),
        LayerShape("depthwise", 50, 50, 50, (3, 3), (2, 2), (1, 1), (14, 14), (7, 7)),
    ]
    fills = Filler(everything), Filler(kept)
    bases = [np.stack([s.base, s.dw_base], axis=1) for s in (everything, kept)]
    for shape in shapes:
        for bits in ((8, 8), (4, 4)):
            costs = [unpack(f.layer(shape, bits), "cycles")[0] for f in fills]
            for place in range(0, len(everything), 11):
                same = (bases[1] == bases[0][place]).all(axis=1)
                for axis in AXES:
                    same &= kept.axes[axis] >= everything.axes[axis][place]
                assert same.any()
                assert costs[1][same].min() <= costs[0][place]


def test_budget_and_what_does_not_fit() -> None:
    device = load_device("pynq-z2")
    space = generate(device, SMALL, {"dsp": 100})
    assert len(space) > 0
    assert space.use["dsp"].max() <= 100
    with pytest.raises(InputError) as raised:
        generate(device, SMALL, {"dps": 100})
    assert str(raised.value) == "unknown resource 'dps' (known: dsp, lut, ff, ramb18)"
    with pytest.raises(InfeasibleError) as raised_too:
        generate(device, SMALL, {"ramb18": 3})
    assert str(raised_too.value) == (
        "no accelerator of the grid fits xc7z020: the smallest needs ramb18 83 of 3; "
        "the part has enough: allow that much"
    )
    small = replace(device, name="small", ramb18=60)
    with pytest.raises(InfeasibleError) as raised_too:
        generate(small, SMALL)
    assert str(raised_too.value).startswith(
        "no accelerator of the grid fits small: the smallest needs ramb18 83 of 60; "
        "boards that have it: "
    )
    assert "pynq-z2" in str(raised_too.value)


def test_limits_that_hold_alone_and_not_together_are_named() -> None:
    device = load_device("pynq-z2")
    space = generate(device, SMALL, drop_dominated=False)
    dsp, lut = (int(space.use[name].min()) for name in ("dsp", "lut"))
    few = space.use["dsp"] <= dsp
    assert space.use["lut"][few].min() > lut  # fewest blocks and fewest LUTs are not one's
    with pytest.raises(InfeasibleError) as raised:
        generate(device, SMALL, {"dsp": dsp, "lut": lut})
    at_lut = int(space.use["dsp"][space.use["lut"] <= lut].min())
    at_dsp = int(space.use["lut"][few].min())
    assert str(raised.value) == (
        "no accelerator of the grid fits xc7z020: each limit can hold alone, not all at once; "
        f"dsp <= {dsp} is feasible from {at_lut}, the others kept; "
        f"lut <= {lut} is feasible from {at_dsp}, the others kept; "
        "the part has enough: allow that much"
    )


def test_limits_of_which_several_must_be_raised() -> None:
    """By hand: two accelerators, each over two limits, so that no single one is in the way."""
    device = load_device("pynq-z2")
    use = {"dsp": (9, 2, 4), "lut": (9, 4, 2), "ff": (1, 9, 9), "ramb18": (1, 1, 1)}
    caps = {"dsp": 2, "lut": 2, "ff": 1, "ramb18": 1}
    said = _nothing(device, caps, {name: np.array(values) for name, values in use.items()})
    assert said.endswith(
        "can hold alone, not all at once; allow more of several, or take a larger part"
    )


def test_engine_messages() -> None:
    buffers = (Buffer(1), Buffer(1), Buffer(1))
    for arguments, message in (
        (("dense", 0, 1, 1, *buffers), "engine pi is 0; expected at least 1"),
        (("depthwise", 2, 1, 1, *buffers), "a depthwise engine has pi = 1, got 2"),
        (("sparse", 1, 1, 1, *buffers), "engine kind 'sparse'; expected 'dense' or 'depthwise'"),
        (("dense", 1, 1, 1, *buffers, 9), "engine weight_bits is 9; expected 2 to 8"),
    ):
        with pytest.raises(InputError) as raised:
            Engine(*arguments)
        assert str(raised.value) == message
    engine = Engine("dense", 1, 1, 1, *buffers)
    with pytest.raises(InputError) as raised:
        Accelerator(engine, None, 48)
    assert str(raised.value) == "port_bits is 48; expected a power of two from 8 on"
    with pytest.raises(InputError) as raised:
        Accelerator.from_data({"dense": None})
    assert str(raised.value) == "accelerator data: missing or unknown field 'depthwise'"
