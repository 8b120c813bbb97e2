# SPDX-License-Identifier: Apache-2.0
"""Writing TensorIR as loops and vector accesses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tvm import ir, tirx
from tvm.script.ir_builder import tirx as build

from codesign.targets.tvm_lower.kernel import Expr, const

_TAKE = """
define i32 @codesign_take(ptr %next, i32 %steps) {
  %first = atomicrmw add ptr %next, i32 %steps monotonic
  ret i32 %first
}
"""
"""LLVM's code of what TensorIR cannot say: the next steps of a loop that threads share."""
_HIDE = """
define i32 @codesign_hide(i32 %value) alwaysinline {
  %same = call i32 asm "", "=r,0"(i32 %value)
  ret i32 %same
}
"""
"""A number that LLVM does not know: it takes no instruction."""
_POOL = """
@__TVMBackendParallelLaunch = external global ptr
declare i32 @codesign_launch(ptr, ptr, i32)

define i32 @codesign_pool() {
  store ptr @codesign_launch, ptr @__TVMBackendParallelLaunch
  ret i32 0
}
"""
"""Sends the parallel loops of a library to our own threads (``deploy/runner/threads.cc``)."""
_own_threads: ContextVar[bool] = ContextVar("own_threads", default=False)
_LINE = 16
"""int32 of a cache line."""


@contextmanager
def loop(extent: int, kind: str = "serial") -> Iterator[Expr]:
    """A loop over 0 .. extent - 1 (serial, parallel, vectorized, unroll); its variable."""
    if extent == 1:
        yield const(0, "int32")
        return
    with getattr(build, kind)(0, extent) as variable:
        yield variable


@contextmanager
def kept_loop(extent: int) -> Iterator[Expr]:
    """A loop that the compiler leaves as it is: of one whose extent it knows, it unrolls the steps
    and then wants registers for several at once, so that sums go to memory and back."""
    if extent == 1:
        yield const(0, "int32")
        return
    count = tirx.call_extern("int32", "codesign_hide", const(extent, "int32"))
    hide = build.attr(const(0, "int32"), "pragma_import_llvm", ir.StringImm(_HIDE))
    with hide, build.serial(0, count) as variable:
        yield variable


@contextmanager
def work(extent: int, threads: int, parts: int) -> Iterator[Expr]:
    """A loop over 0 .. extent - 1 that threads share; its variable.

    About ``parts`` pieces are handed out as threads come for them, not half to each of two from the
    start: cores are not equally fast at all times (other programs, a virtual machine's neighbours),
    and the slowest would set the pace.
    """
    if threads == 1 or extent == 1 or parts < 2:
        with loop(extent) as variable:
            yield variable
        return
    steps = -(-extent // parts)
    following = array(2 * _LINE, "int32")  # alone in its cache line, wherever that begins
    place = const(_LINE, "int32")
    build.buffer_store(following, const(0, "int32"), [place])
    address = tirx.address_of(tirx.BufferLoad(following, [place]))
    with (
        build.attr(const(0, "int32"), "pragma_import_llvm", ir.StringImm(_TAKE)),
        _launcher(),
        build.parallel(0, min(threads, -(-extent // steps))),
    ):
        mine = build.alloc_buffer((1,), "int32", scope="global")

        def take() -> None:
            call = tirx.call_extern("int32", "codesign_take", address, const(steps, "int32"))
            build.buffer_store(mine, call, [0])

        first = tirx.BufferLoad(mine, [0])
        take()
        with build.While(first < extent):
            count = const(steps, "int32")
            if extent % steps or steps == 1:  # TVM drops a loop of one step, misplaces its arrays
                count = tirx.Min(count, extent - first)
            with build.serial(0, count) as step:
                yield first + step
            take()


@contextmanager
def own_threads() -> Iterator[None]:
    """Kernels written inside use our own threads, not TVM's: ``codesign_launch`` must be linked
    into the library, or be loaded in the process that compiles in memory."""
    token = _own_threads.set(True)
    try:
        yield
    finally:
        _own_threads.reset(token)


@contextmanager
def _launcher() -> Iterator[None]:
    if not _own_threads.get():
        yield
        return
    with build.attr(const(0, "int32"), "pragma_import_llvm", ir.StringImm(_POOL)):
        build.evaluate(tirx.call_extern("int32", "codesign_pool"))
        yield


def with_own_threads(function: Any) -> Any:
    """A scheduled ``function`` whose parallel loops go to our own threads, inside ``own_threads``;
    else as it is."""
    if not _own_threads.get():
        return function
    call = tirx.Evaluate(tirx.call_extern("int32", "codesign_pool"))
    body = tirx.SeqStmt([call, function.body])
    zero = const(0, "int32")
    return function.with_body(
        tirx.AttrStmt(zero, "pragma_import_llvm", ir.StringImm(_POOL), body)
    )


@contextmanager
def when(condition: Expr) -> Iterator[None]:
    """Statements that run only if ``condition`` holds."""
    with build.If(condition), build.Then():
        yield


def shared(count: int, most: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """``count`` things in as few blocks of at most ``most`` as will do, as even as they go:
    (number, size) of the larger blocks, then of those smaller by one."""
    blocks = -(-count // most)
    size = -(-count // blocks)
    few = blocks * size - count
    return (blocks - few, size), (few, size - 1)


def blocks(count: int, most: int, body: Callable[[Expr, int], None]) -> None:
    """``body`` (first, size) for each block of ``shared``."""
    start = 0
    for number, size in shared(count, most):
        if number:
            with loop(number) as block:
                body(start + block * size, size)
        start += number * size


def either(
    index: Expr, whole: int, many: Callable[[], None], last: Callable[[], None]
) -> None:
    """``many`` for ``index`` below ``whole``, ``last`` from there on."""
    if whole == 0:
        last()
        return
    with build.If(index < whole):
        with build.Then():
            many()
        with build.Else():
            last()


def array(size: int, dtype: str) -> Any:
    """A local array of ``size`` elements. TVM puts it on the stack below one kB, where the
    compiler may keep it in registers, else in a workspace, which takes a call."""
    return build.alloc_buffer((size,), dtype, scope="global")


def load(buffer: Any, start: Expr, lanes: int) -> Expr:
    """``lanes`` neighbouring elements of a one-dimensional buffer."""
    if lanes == 1:
        return tirx.BufferLoad(buffer, [start])
    return tirx.BufferLoad(buffer, [tirx.Ramp(start, 1, lanes)])


def prefetch(buffer: Any, start: Expr) -> None:
    """Fetch the cache line of an element that is needed soon; it may lie behind the end."""
    address = tirx.address_of(tirx.BufferLoad(buffer, [start]))
    read, second_level, data = (const(value, "int32") for value in (0, 2, 1))
    build.evaluate(tirx.call_intrin("void", "tirx.prefetch", address, read, second_level, data))


def store(buffer: Any, start: Expr, value: Expr, lanes: int) -> None:
    """Write ``lanes`` neighbouring elements."""
    build.buffer_store(buffer, value, [tirx.Ramp(start, 1, lanes) if lanes > 1 else start])


def powers(count: int) -> list[tuple[int, int]]:
    """``count`` as starts and sizes that are powers of two, the largest first, at most 64."""
    parts, start = [], 0
    while start < count:
        size = min(64, 1 << ((count - start).bit_length() - 1))
        parts.append((start, size))
        start += size
    return parts


def zeros(dtype: str, lanes: int) -> Expr:
    """A vector of zeros."""
    return tirx.Broadcast(const(0, dtype), lanes)


def flat(buffer: Any) -> Any:
    """``buffer`` as one dimension."""
    size = 1
    for extent in buffer.shape:
        size *= int(extent)
    return build.decl_buffer((size,), buffer.dtype, data=buffer.data)
