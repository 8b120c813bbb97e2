# SPDX-License-Identifier: Apache-2.0
"""Default schedules: threads over the outer loops, vectors over the inner one, registers tiled.

They are chosen from the shapes alone; finding the best tile is the autotuner's matter.
"""

from __future__ import annotations

from typing import Any

from tvm import IRModule
from tvm.s_tir import Schedule

from codesign.targets.tvm_lower.anchor import Anchor
from codesign.targets.tvm_lower.machine import Machine

_SERIAL_WORK = 1 << 15
"""Elementary steps below which starting threads costs more than it saves."""
_SERIAL_MACS_VNNI = 1 << 20
_POOR = 1.2
"""Sums a load below which a register tile waits for memory."""
_MANY_WEIGHTS = 1 << 19
"""Bytes of weights beyond which one block of channels after another is taken through the image."""
_ACCUMULATORS = 24
"""Registers of AVX-512 that hold sums; the rest hold operands."""


def schedule(function: Any, anchor: Anchor | None, machine: Machine) -> Any:
    """``function`` (stages ``pad``, ``pack``, ``total``, ``out``, …) with its loops arranged."""
    sch = Schedule(IRModule({"main": function}))
    names = [
        sch.get(block).name_hint for block in sch.get_child_blocks(sch.get_sblock("root"))
    ]
    fused = anchor is not None and anchor.direct is not None
    if anchor is not None and "total" in names and fused and anchor.kind == "blocked":
        _blocked(sch, anchor, machine)
        names = [n for n in names if n not in ("total", "out")]
    elif anchor is not None and "total" in names and fused and anchor.kind == "window":
        _window(sch, anchor, machine)
        names = [n for n in names if n not in ("total", "out")]
    elif anchor is not None and "total" in names and anchor.kind == "blocked":
        _sums(sch, anchor, machine)
        names.remove("total")
    for name in names:
        _alone(sch, sch.get_sblock(name), machine)
    return sch.mod["main"]


def _divisor(n: int, most: int) -> int:
    """The greatest divisor of n that is at most ``most``."""
    return next(d for d in range(min(n, most), 0, -1) if n % d == 0)


def _lanes(n: int) -> int:
    """Elements of a vector, at most 64: a power of two where that fills registers, since LLVM takes
    vectors of 48 apart."""
    power = n & -n
    return min(power, 64) if power >= 8 else _divisor(n, 64)


def _extent(sch: Any, loop: Any) -> int:
    return int(sch.get(loop).extent)


def _tile(columns: int, blocks: int, vectors: int, registers: int) -> tuple[int, int]:
    """Columns and channel blocks whose sums are kept in registers: most sums for what is loaded.

    A block takes ``vectors`` registers; ``registers`` hold sums, some more where tiles that
    divide the columns would else be poor.
    """
    def sums_a_load(tile: tuple[int, int]) -> float:
        return tile[0] * tile[1] * vectors / (tile[0] + tile[1] * vectors)

    def best(most: int) -> tuple[int, int]:
        return max(
            (
                (w, b)
                for w in range(1, min(columns, 14) + 1) if columns % w == 0
                for b in (1, 2, 4) if blocks % b == 0 and w * b <= max(1, most // vectors)
            ),
            key=lambda tile: (sums_a_load(tile), tile[1]),
        )  # fmt: skip

    tile = best(registers)
    return tile if sums_a_load(tile) >= _POOR else best(registers + 2)


def _registers(anchor: Anchor, machine: Machine) -> tuple[int, int]:
    """Registers that a channel block of 32-bit sums takes, and how many may hold sums.

    With all sixteen registers of x86 LLVM sends sums to memory and back.
    """
    if anchor.vnni or "avx512f" in machine.features:
        return max(1, anchor.lanes // 16), _ACCUMULATORS
    if machine.arch == "x86_64":
        return max(1, anchor.lanes // (8 if "avx2" in machine.features else 4)), 12
    vectors = max(1, anchor.lanes // 4)
    return vectors, 30 - vectors


def _blocked(sch: Any, anchor: Anchor, machine: Machine) -> None:
    """A product whose results are finished tile by tile, while the sums are in registers."""
    total, out = sch.get_sblock("total"), sch.get_sblock("out")
    loops = sch.get_loops(out)
    assert anchor.direct is not None
    if anchor.direct.groups_first:
        *outer, g, w, b, v = loops
    else:
        *outer, w, g, b, v = loops
    tile_w, tile_b = _tile(_extent(sch, w), _extent(sch, b), *_registers(anchor, machine))
    w0, w1 = sch.split(w, [None, tile_w])
    b0, b1 = sch.split(b, [None, tile_b])
    n, h = outer
    pixels = _extent(sch, n) * _extent(sch, h) * _extent(sch, w0) * tile_w
    if anchor.work // pixels * 4 > _MANY_WEIGHTS:  # else every row would read them all
        sch.reorder(n, g, b0, h, w0, w1, b1, v)
        threads = sch.fuse(n, g, b0, h)
    else:
        sch.reorder(n, h, g, b0, w0, w1, b1, v)
        threads = sch.fuse(n, h, g, b0)
    sch.compute_at(total, w0, preserve_unit_loops=True)
    least = _SERIAL_MACS_VNNI if anchor.vnni else _SERIAL_WORK
    if anchor.work >= least and _extent(sch, threads) > 1:
        sch.parallel(threads)
    sch.unroll(w1)
    sch.unroll(b1)
    sch.vectorize(v)
    _inner_product(sch, total, anchor)


def _inner_product(sch: Any, total: Any, anchor: Anchor) -> None:
    """Order the loops of the sums: reductions outside, the register tile inside."""
    loops = sch.get_loops(total)
    reductions = 4 if anchor.vnni else 3
    n, h, g, w, b, v = loops[-6 - reductions : -reductions]
    i, j, k = loops[-reductions:][:3]
    if anchor.vnni:
        q = loops[-1]
        sch.reorder(n, h, g, i, j, k, w, b, v, q)
    else:
        sch.reorder(n, h, g, i, j, k, w, b, v)
        sch.vectorize(v)
    sch.unroll(w)
    sch.unroll(b)
    init = sch.decompose_reduction(total, i)
    sch.vectorize(sch.get_loops(init)[-1])
    if anchor.vnni:
        sch.tensorize(v, _vnni())


def _vnni() -> str:
    """Name of the tensor intrinsic, registered now: parsing it takes a second."""
    from codesign.targets.tvm_lower import vnni

    return vnni.NAME


def _sums(sch: Any, anchor: Anchor, machine: Machine) -> None:
    """The sums of a product alone, for results that do not fill the channel blocks."""
    total = sch.get_sblock("total")
    n, h, g, w, b, v, *_ = sch.get_loops(total)
    tile_w, tile_b = _tile(_extent(sch, w), _extent(sch, b), *_registers(anchor, machine))
    w0, w1 = sch.split(w, [None, tile_w])
    b0, b1 = sch.split(b, [None, tile_b])
    sch.reorder(n, h, g, b0, w0, w1, b1, v)
    reductions = sch.get_loops(total)[8:]
    sch.reorder(*reductions[:3], w1, b1, v)
    threads = sch.fuse(n, h, g, b0)
    least = _SERIAL_MACS_VNNI if anchor.vnni else _SERIAL_WORK
    if anchor.work >= least and _extent(sch, threads) > 1:
        sch.parallel(threads)
    sch.unroll(w1)
    sch.unroll(b1)
    if not anchor.vnni:
        sch.vectorize(v)
    init = sch.decompose_reduction(total, reductions[0])
    sch.vectorize(sch.get_loops(init)[-1])
    if anchor.vnni:
        sch.tensorize(v, _vnni())


def _window(sch: Any, anchor: Anchor, machine: Machine) -> None:
    """Depthwise convolution and pooling: channels in the vectors, the window innermost."""
    total, out = sch.get_sblock("total"), sch.get_sblock("out")
    n, h, w, c = sch.get_loops(out)
    lanes = _lanes(_extent(sch, c))
    tile = _divisor(_extent(sch, w), max(1, 8 * 16 // max(16, lanes)))
    c0, c1 = sch.split(c, [None, lanes])
    w0, w1 = sch.split(w, [None, tile])
    sch.reorder(n, h, c0, w0, w1, c1)
    threads = sch.fuse(n, h, c0)
    sch.compute_at(total, w0, preserve_unit_loops=True)
    if anchor.work >= _SERIAL_WORK and _extent(sch, threads) > 1:
        sch.parallel(threads)
    *_, nn, hh, ww, cc, i, j = sch.get_loops(total)
    sch.reorder(nn, hh, i, j, ww, cc)
    if lanes > 1:
        sch.vectorize(c1)
        sch.vectorize(cc)
    sch.unroll(w1)
    sch.unroll(ww)
    init = sch.decompose_reduction(total, i)
    if lanes > 1:
        sch.vectorize(sch.get_loops(init)[-1])


def _alone(sch: Any, block: Any, machine: Machine) -> None:
    """A stage of its own: outer loops shared by the threads, the last one in vectors."""
    loops = sch.get_loops(block)
    kinds = [str(var.iter_type) for var in sch.get(block).iter_vars]
    reduction = "2" in kinds or "CommReduce" in kinds
    spatial = [loop for loop, kind in zip(loops, kinds) if kind in ("0", "DataPar")]
    steps = 1
    for loop in loops:
        steps *= _extent(sch, loop)
    if reduction:
        if steps >= _SERIAL_WORK and len(spatial) > 0:
            threads = sch.fuse(*spatial) if len(spatial) > 1 else spatial[0]
            if _extent(sch, threads) > 1:
                sch.parallel(threads)
        return
    inner = loops[-1]
    lanes = _lanes(_extent(sch, inner))
    if lanes >= 8 and lanes % 8 == 0:
        outer, vector = sch.split(inner, [None, lanes])
        sch.vectorize(vector)
        rest = [*loops[:-1], outer]
    else:
        rest = loops[:-1]
    if not rest:
        return
    threads = sch.fuse(*rest) if len(rest) > 1 else rest[0]
    if steps >= _SERIAL_WORK and _extent(sch, threads) > 1:
        sch.parallel(threads)
