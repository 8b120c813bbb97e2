# SPDX-License-Identifier: Apache-2.0
"""The templates' kernels equal the interpreter bit for bit, whatever tile is chosen."""

from __future__ import annotations

import re

import numpy as np
import pytest

from codesign.ir import Graph, GraphBuilder, TensorType, interpret, ops
from codesign.ir.types import DType
from codesign.targets.host import HostRunner, HostTarget
from codesign.targets.layers import extract_layers, random_inputs, structure_key
from codesign.targets.tvm_lower.compile import compile_graph, in_memory, tvm_target
from codesign.targets.tvm_lower.groups import make_groups
from codesign.targets.tvm_lower.isa import instruction_set
from codesign.targets.tvm_lower.isa.base import Range
from codesign.targets.tvm_lower.lower import lower
from codesign.targets.tvm_lower.machine import host_machine, x86_machine
from codesign.targets.tvm_lower.templates import winograd_steps
from codesign.targets.tvm_lower.templates.choose import dots_for
from codesign.targets.tvm_lower.templates.epilogue import fused_requantize
from codesign.targets.tvm_lower.templates.space import candidates
from codesign.targets.tvm_lower.templates.workload import find_workload
from codesign.targets.tvm_lower.tiles import DirectTile, Tile, WinogradTile
from tests.targets.checks import extremes


def convolution(
    shape: tuple[int, int, int, int], outputs: int, size: int, stride: int = 1, groups: int = 1,
    padding: int = 1, data: str = "u8", weight: int = 8, residual: bool = False,
    shifts: tuple[int, int] = (24, 29),
) -> Graph:  # fmt: skip
    """conv2d, bias, requantize and perhaps a requantised residual, all at their extremes."""
    rng = np.random.default_rng([outputs, size, weight])
    b = GraphBuilder("conv")
    x = b.input("x", TensorType(shape, DType.parse(data)))
    limit = 2 ** (weight - 1) - 1
    kernel = (outputs, shape[1] // groups, size, size)
    w = np.where(rng.random(kernel) < 0.7, rng.choice([-limit, limit], kernel), 0)
    values = w.astype(np.int8)
    signed = DType("signed", weight)
    bias = rng.integers(-(2**16), 2**16, outputs).astype(np.int32)
    conv = b.add(
        ops.Conv2d((stride, stride), (padding,) * 4, (1, 1), groups),
        [x, b.constant(values, "w", signed), b.constant(bias, "bias")], "conv",
    )  # fmt: skip
    m = rng.integers(2**15, 2**16, outputs).astype(np.int32)
    e = rng.integers(*shifts, outputs).astype(np.int32)
    u8 = DType.parse("u8")
    y = b.add(ops.Requantize(u8 if not residual else DType.parse("s16"),
                             0 if not residual else -32768, 255 if not residual else 32767, 1),
              [conv, b.constant(m, "m"), b.constant(e, "e")], "y")  # fmt: skip
    if residual:
        side = b.input("side", TensorType(b.type(y).shape, u8))
        scaled = b.add(ops.Requantize(DType.parse("s16"), -32768, 32767, -1),
                       [side, b.constant(np.asarray(40000, np.int32)),
                        b.constant(np.array(15, np.int32))])  # fmt: skip
        y = b.add(ops.Clip(u8, 0, 255), [b.add(ops.Add(), [y, scaled])], "z")
    return b.finish([y])


CASES = {
    "3x3": convolution((1, 16, 9, 7), 24, 3),
    "3x3 residual": convolution((1, 16, 8, 8), 16, 3, residual=True),
    "3x3 signed": convolution((2, 16, 5, 6), 8, 3, data="s8"),
    "1x1": convolution((1, 24, 7, 7), 40, 1, padding=0),
    "1x1 stride 2": convolution((2, 24, 7, 9), 16, 1, stride=2, padding=0, data="s8"),
    "stem": convolution((1, 3, 13, 13), 16, 7, stride=2, padding=3),
    "two-bit weights, short shifts": convolution((1, 16, 5, 5), 16, 1, padding=0, weight=2,
                                                 shifts=(9, 16)),
    "shifts too short for vectors": convolution((1, 16, 5, 5), 16, 1, padding=0, shifts=(1, 5)),
    "depthwise, short shifts": convolution((1, 16, 6, 6), 16, 3, groups=16, weight=2,
                                           shifts=(9, 16)),
    "narrow weights": convolution((1, 20, 6, 6), 19, 3, weight=4),
    "narrow weights, signed": convolution((1, 64, 5, 5), 16, 3, weight=5, data="s8"),
    "depthwise": convolution((1, 24, 8, 9), 24, 3, groups=24),
    "depthwise 5x5 stride 2": convolution((2, 16, 9, 9), 16, 5, 2, groups=16, padding=2),
}


def tiles_of(graph: Graph) -> tuple[Tile, ...]:
    (group,) = make_groups(graph)
    workload = find_workload(graph, group)
    assert workload is not None
    machine = host_machine()
    isa = instruction_set(machine.isa)
    dots = dots_for(workload, isa, graph.constants[graph.nodes[group.head].inputs[1]])
    return candidates(workload, isa, dots, machine.threads)


def with_tile(graph: Graph, tile: Tile | None) -> HostRunner:
    module = in_memory(compile_graph(graph, host_machine(), lambda key: tile))
    kinds = [tuple((n, graph.type(n)) for n in names) for names in (graph.inputs, graph.outputs)]
    return HostRunner(module, kinds[0], kinds[1])


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_tile_is_exact(name: str) -> None:
    graph = CASES[name]
    tiles = tiles_of(graph)
    if host_machine().isa == "avx2":
        assert tiles
    # one of each kind, and tiles that do not divide the image
    chosen: dict[object, Tile | None] = {None: None}
    for tile in tiles:
        shape = getattr(tile, "high", 0), getattr(tile, "wide", 0)
        outer = getattr(tile, "channels_outer", 0) if shape[0] == shape[1] else 0
        key = (type(tile), getattr(tile, "dot", 0), outer, shape)
        chosen.setdefault(key, tile)
    if "depthwise" not in name:
        chosen["odd"] = DirectTile(5, 3, 0, False, True)
    inputs = [random_inputs(graph), *extremes(graph)]
    expected = [interpret.run(graph, *arrays) for arrays in inputs]
    for found in chosen.values():
        runner = with_tile(graph, found)
        for arrays, wanted in zip(inputs, expected):
            np.testing.assert_array_equal(runner.run(*arrays)[0], wanted[0], err_msg=str(found))


@pytest.mark.soak
@pytest.mark.parametrize("name", CASES)
def test_every_tile_is_exact(name: str) -> None:
    graph = CASES[name]
    inputs = extremes(graph)
    expected = [interpret.run(graph, *arrays) for arrays in inputs]
    for tile in tiles_of(graph):
        runner = with_tile(graph, tile)
        for arrays, wanted in zip(inputs, expected):
            np.testing.assert_array_equal(runner.run(*arrays)[0], wanted[0], err_msg=str(tile))


def test_saturating_products_are_not_used_where_they_saturate() -> None:
    dots = instruction_set("avx2").dots
    u8 = Range(0, 255)
    assert {d.data for d in dots(u8, Range(-127, 127))} == {"int16"}
    assert {d.data for d in dots(u8, Range(-65, 65))} == {"int16"}  # 2 · 255 · 65 is too much
    assert dots(u8, Range(-64, 64))[0].name == "vpmaddubsw"  # 32640 is not
    for limit in (63, 31, 15, 7, 3, 1):
        dot = dots(u8, Range(-limit, limit))[0]
        # the s16 sums of two products a step never pass the ends
        assert dot.name == "vpmaddubsw"
        assert dot.steps * 2 * 255 * limit <= 32767 < (dot.steps + 1) * 2 * 255 * limit
    assert dots(Range(0, 127), Range(-127, 127))[0].steps == 1
    assert dots(Range(-2000, 2000), Range(-2000, 2000))[0].name == "vpmaddwd"
    assert dots(Range(0, 2**16), Range(-1, 1)) == ()


@pytest.mark.parametrize(("name", "in_vectors"), [
    ("1x1", True), ("two-bit weights, short shifts", True), ("depthwise, short shifts", True),
    ("shifts too short for vectors", False),
])  # fmt: skip
def test_sums_are_scaled_in_vectors_where_they_stay_small(name: str, in_vectors: bool) -> None:
    graph = CASES[name]
    (group,) = (g for g in make_groups(graph) if g.head == "conv")
    assert (fused_requantize(graph, group) is not None) == in_vectors


def test_winograd_is_left_out_where_its_sums_might_not_fit() -> None:
    from codesign.targets.tvm_lower.templates.winograd import winograd_dots

    graph = convolution((1, 16, 8, 8), 8, 3)
    (group,) = make_groups(graph)
    workload = find_workload(graph, group)
    assert workload is not None
    isa = instruction_set("avx2")
    full = np.full((8, 1024, 3, 3), 127, np.int8)
    assert winograd_dots(workload, isa, full)
    # 4 · 255 · 127 · 9 · 2048 passes 2^31
    assert winograd_dots(workload, isa, np.full((8, 2048, 3, 3), 127, np.int8)) == ()
    # so does 64 · 255 · 127 · 9 · 128 of F(4x4), but not half as much
    assert winograd_dots(workload, isa, np.full((8, 128, 3, 3), 127, np.int8), 4, 4) == ()
    assert winograd_dots(workload, isa, np.full((8, 64, 3, 3), 127, np.int8), 4, 4)
    half = np.full((8, 128, 3, 3), 127, np.int8)
    half[:, 1::2] *= -1  # positive and negative weights count apart
    assert winograd_dots(workload, isa, half, 4, 4)


@pytest.mark.parametrize(("high", "wide"), [(2, 2), (2, 4), (4, 4)])
def test_winograds_weights_are_transformed_exactly(high: int, wide: int) -> None:
    from codesign.targets.tvm_lower.templates.winograd import transformed

    weights = np.random.default_rng(0).integers(-128, 128, (8, 6, 3, 3)).astype(np.int8)
    rows, columns = winograd_steps.STEPS[high].weights, winograd_steps.STEPS[wide].weights
    expected = rows @ weights.astype(np.int64) @ columns.T
    found = transformed(weights, high, wide)
    assert found.shape == (len(rows) * len(columns), 8, 6)
    assert np.array_equal(found, expected.transpose(2, 3, 0, 1).reshape(found.shape))


@pytest.mark.parametrize("results", [2, 4])
def test_winograds_functions_do_what_its_matrices_say(
    results: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd_steps, "times", lambda value, power: value * power)
    steps = winograd_steps.STEPS[results]
    rng = np.random.default_rng(results)
    image, weights = rng.integers(0, 256, steps.points), rng.integers(-127, 128, 3)
    moved = steps.input(list(image))
    assert moved == list(steps.inputs @ image)
    products = [int(a) * int(b) for a, b in zip(moved, steps.weights @ weights)]
    wanted = [int(image[r : r + 3] @ weights) for r in range(results)]
    assert steps.output(products) == [w * s for w, s in zip(wanted, steps.scales)]
    assert steps.even(products) == [w * max(steps.scales) for w in wanted]
    assert all(s == steps.odd << winograd_steps.shift_of(s) for s in steps.scales)


def test_a_tile_that_does_not_suit_gives_way_to_the_rules() -> None:
    graph = CASES["1x1"]
    runner = with_tile(graph, WinogradTile(4, 2))
    (x,) = random_inputs(graph)
    np.testing.assert_array_equal(runner.run(x)[0], interpret.run(graph, x)[0])


@pytest.mark.parametrize(("level", "instruction"), [
    ("cascadelake", "vpdpbusd"), ("haswell", "vpmaddwd"),
])  # fmt: skip
def test_other_levels_compile_to_their_dot_products(level: str, instruction: str) -> None:
    import tvm

    machine = x86_machine(level, threads=2)
    module = lower(CASES["1x1"], machine, as_stored=True)
    (name,) = [v.name_hint for v in module.functions if v.name_hint.startswith("k_")]
    built = tvm.compile(tvm.IRModule({name: module[name]}), tvm_target(machine))
    assembly = built.mod.inspect_source("s")
    assert len(re.findall(instruction, assembly)) >= 4


def test_layers_alone_are_keyed_as_inside_the_network() -> None:
    """The tuner measures extracted layers; the build must find their tiles."""
    seen: list[str] = []

    def tiles(key: str) -> None:
        seen.append(key)

    graph = CASES["3x3 residual"]
    lower(graph, host_machine(), tiles)
    (layer,) = extract_layers(graph).values()
    assert seen == [structure_key(layer)]


def test_all_cores_are_used() -> None:
    import tvm

    target = HostTarget()
    graph = CASES["3x3"]
    target.runner(graph).run(*random_inputs(graph))
    assert int(tvm.get_global_func("runtime.NumThreads")()) == host_machine().threads


@pytest.mark.parametrize("extent", [1, 7, 64, 101])
@pytest.mark.parametrize("parts", [2, 5, 64, 1000])
def test_shared_work_does_every_step_once(extent: int, parts: int) -> None:
    import tvm
    from tvm import tirx
    from tvm.script.ir_builder import IRBuilder
    from tvm.script.ir_builder import tirx as build

    from codesign.targets.tvm_lower.kernel import const
    from codesign.targets.tvm_lower.templates import write

    with IRBuilder() as builder:
        with build.prim_func(is_private=False):
            build.func_name("main")
            out = build.arg("out", build.buffer((extent + 1,), "int32"))
            with write.work(extent, 2, parts) as at:
                large = write.array(4096, "int32")  # in a workspace, taken and given back
                build.buffer_store(large, at, [const(0, "int32")])
                old = tirx.BufferLoad(out, [at])
                value = old + tirx.BufferLoad(large, [const(0, "int32")]) + 1
                build.buffer_store(out, value, [at])
        function = builder.get()
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    with tvm.transform.PassContext(config={"tirx.disable_storage_rewrite": True}):
        run = tvm.compile(module, tvm_target(host_machine())).jit()["main"]
    counts = tvm.runtime.tensor(np.zeros(extent + 1, np.int32))
    for _ in range(3):
        run(counts)
    expected = np.append(3 * np.arange(1, extent + 1, dtype=np.int32), 0)
    assert np.array_equal(counts.numpy(), expected)
