# SPDX-License-Identifier: Apache-2.0
"""The process that builds and times candidates; ``runner`` starts it and survives it.

Requests come as pickles on standard input, one reply each goes to the descriptor that standard
output was at the start; anything that code prints goes to standard error. Everything is built in
memory, several candidates at once where they are known ahead.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from codesign.targets.pool import calm_pool
from codesign.targets.tuning.protocol import Ahead, Ask, FunctionRequest, Probe, Reply, Request
from codesign.targets.tvm_lower.tiles import Tile, TraceTile

if TYPE_CHECKING:
    from codesign.targets.tvm_lower.trace import Array, Loose

_SAMPLE_SECONDS = 1e-3
_SLOW = 1.3
"""Candidates that take so much longer than what they are held against are not timed to the end."""
_LOOKS = (1, 4)
"""Samples after which that is asked."""
_KEPT = 40
"""Compiled kernels that are kept: what others are timed against is not built anew."""
_built: OrderedDict[tuple[str, Tile | None], _Built] = OrderedDict()


class Sampled(Protocol):
    """A kernel that can be timed."""

    def sample(self) -> float:
        """Milliseconds a call, over about a millisecond."""


@dataclass(frozen=True)
class _Built:
    """A kernel ready to be called."""

    main: Callable[..., Any]
    tensors: tuple[Any, ...]
    results: tuple[Array, ...]
    calls: int
    """Calls of about a millisecond together."""

    @property
    def digest(self) -> str:
        """Of the results."""
        return digest_of(self.results)

    def sample(self) -> float:
        """Milliseconds a call."""
        start = time.perf_counter()
        for _ in range(self.calls):
            self.main(*self.tensors)
        return (time.perf_counter() - start) / self.calls * 1e3


def measure(request: Request | FunctionRequest) -> Reply:
    """Build, run once for the digest, then time calls of about a millisecond a sample."""
    one = _build(request, request.tile)
    other = None if request.against is None else _build(request, request.against)
    digest = one.digest
    if isinstance(request, FunctionRequest):
        from codesign.targets.tvm_lower.trace import same_results

        if other is not None and not same_results(one.results, other.results):
            return Reply((), "", "wrong result")
        digest = ""  # compared already
    samples, others = in_turns(one, other, request.repeats)
    return Reply(samples, digest, against_ms=others)


def in_turns(
    one: Sampled, other: Sampled | None, repeats: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Samples of both in turns; fewer than ``repeats`` if ``one`` is much slower."""
    samples: list[float] = []
    others: list[float] = []
    for done in range(repeats):
        if done in _LOOKS and min(samples) > _SLOW * min(others, default=float("inf")):
            break
        samples.append(one.sample())
        if other is not None:
            others.append(other.sample())
    return tuple(samples), tuple(others)


def _build(request: Request | FunctionRequest, tile: Tile | None) -> _Built:
    if isinstance(request, Request):
        return _build_layer(request, tile)
    return _build_function(request, tile)


def _build_layer(request: Request, tile: Tile | None) -> _Built:
    key = hashlib.sha256(pickle.dumps((request.graph, request.machine))).hexdigest(), tile
    return _kept(key) or _keep(key, _layer(request, tile))


def _layer(request: Request, tile: Tile | None) -> _Built:
    import tvm
    from tvm import relax

    from codesign.targets.layers import random_inputs
    from codesign.targets.tvm_lower.compile import compile_graph, in_memory
    from codesign.targets.tvm_lower.kernel import NHWC

    executable = compile_graph(request.graph, request.machine, lambda key: tile, as_stored=True)
    main = relax.VirtualMachine(in_memory(executable), tvm.cpu())["main"]
    arrays = [
        array.transpose(NHWC).copy() if array.ndim == 4 else array
        for array in random_inputs(request.graph)
    ]
    tensors = tuple(tvm.runtime.tensor(array) for array in arrays)
    return _ready(main, tensors, lambda: main(*tensors))


def _build_function(request: FunctionRequest, tile: Tile | None) -> _Built:
    key = str(request.file), tile
    found = _kept(key)
    if found is None:
        found = _keep(key, _called(request.file, _compiled(request, tile)))
    elif not found.results:  # compiled ahead
        found = _keep(key, _called(request.file, found.main))
    return found


def _compiled(request: FunctionRequest | Ahead, tile: Tile | None) -> Callable[..., Any]:
    from codesign.targets.tvm_lower.compile import compile_function, in_memory

    trace = tile if isinstance(tile, TraceTile) else None
    executable = compile_function(loose_in(request.file), request.machine, trace)
    main: Callable[..., Any] = in_memory(executable)["main"]
    return main


def _called(file: Path, main: Callable[..., Any]) -> _Built:
    import tvm

    arguments = _arguments(file)
    out = tvm.runtime.tensor(_result(file))

    def call() -> tuple[Any, ...]:
        main(*arguments, out)
        return (out,)

    return _ready(main, (*arguments, out), call)


def _ready(
    main: Callable[..., Any], tensors: tuple[Any, ...], call: Callable[[], Any]
) -> _Built:
    results = tuple(result.numpy().copy() for result in call())
    start = time.perf_counter()
    main(*tensors)
    calls = max(1, round(_SAMPLE_SECONDS / max(time.perf_counter() - start, 1e-6)))
    return _Built(main, tensors, results, calls)


def digest_of(results: tuple[Array, ...]) -> str:
    """SHA-256 of the bytes."""
    digest = hashlib.sha256()
    for result in results:
        digest.update(result.tobytes())
    return digest.hexdigest()


@functools.cache
def loose_in(file: Path) -> Loose:
    """The kernel in a request's file."""
    found: Loose = pickle.loads(file.read_bytes())
    return found


@functools.cache
def _arguments(file: Path) -> tuple[Any, ...]:
    import tvm

    return tuple(tvm.runtime.tensor(array) for array in loose_in(file).arrays())


def _result(file: Path) -> Array:
    """Room for the result, the function's last argument."""
    import numpy as np

    shape, dtype = loose_in(file).result
    return np.zeros(shape, dtype)


def ahead(request: Ahead) -> Reply:
    """Compile candidates in several threads; one that cannot be compiled says so when it is
    measured."""

    def one(tile: Tile) -> None:
        key = str(request.file), tile
        if key in _built:
            return
        try:
            main = _compiled(request, tile)
        except Exception:
            return
        _built[key] = _Built(main, (), (), 1)

    with ThreadPoolExecutor(max(1, request.machine.threads)) as pool:
        list(pool.map(one, request.tiles))
    return Reply((), "")


def _kept(key: tuple[str, Tile | None]) -> _Built | None:
    if key in _built:
        _built.move_to_end(key)
    return _built.get(key)


def _keep(key: tuple[str, Tile | None], one: _Built) -> _Built:
    _built[key] = one
    _built.move_to_end(key)
    while len(_built) > _KEPT:
        _built.popitem(last=False)
    return one


def _answer(request: Ask) -> Reply:
    if isinstance(request, Probe):
        return Reply((), "")
    try:
        return ahead(request) if isinstance(request, Ahead) else measure(request)
    except Exception as error:  # a tile that cannot be built is a result, too
        return Reply((), "", said(error))


def said(error: Exception) -> str:
    """A candidate's error in a line."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[-1:]}"


def serve(answer: Callable[[Ask], Reply]) -> None:
    """Answer requests until standard input ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    calm_pool()
    requests: Any = sys.stdin.buffer
    while True:
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        os.environ.setdefault("TVM_NUM_THREADS", str(request.machine.threads))
        pickle.dump(answer(request), replies)
        replies.flush()


def main() -> None:
    """Serve until standard input ends."""
    serve(_answer)


if __name__ == "__main__":
    main()
