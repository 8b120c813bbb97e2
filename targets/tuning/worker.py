# SPDX-License-Identifier: Apache-2.0
"""The process that builds and times candidates; ``runner`` starts it and survives it.

Requests come as pickles on standard input, one reply each goes to the descriptor that standard
output was at the start; anything that code prints goes to standard error.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from codesign.targets.tuning.protocol import Reply, Request
from codesign.targets.tvm_lower.tiles import Tile

_SAMPLE_SECONDS = 1e-3
_KEPT = 24
"""Compiled kernels that are kept: what others are timed against is not built anew."""
_built: OrderedDict[tuple[str, Tile | None], _Built] = OrderedDict()


@dataclass(frozen=True)
class _Built:
    """A kernel ready to be called."""

    main: Callable[..., Any]
    tensors: tuple[Any, ...]
    digest: str
    calls: int
    """Calls of about a millisecond together."""

    def sample(self) -> float:
        """Milliseconds a call."""
        start = time.perf_counter()
        for _ in range(self.calls):
            self.main(*self.tensors)
        return (time.perf_counter() - start) / self.calls * 1e3


def measure(request: Request) -> Reply:
    """Build, run once for the digest, then time calls of about a millisecond a sample."""
    one = _build(request, request.tile)
    other = None if request.against is None else _build(request, request.against)
    samples, others = [], []
    for _ in range(request.repeats):
        samples.append(one.sample())
        if other is not None:
            others.append(other.sample())
    return Reply(tuple(samples), one.digest, against_ms=tuple(others))


def _build(request: Request, tile: Tile | None) -> _Built:
    import hashlib

    import tvm
    from tvm import relax

    from codesign.targets.layers import random_inputs
    from codesign.targets.tvm_lower.compile import compile_graph, in_memory
    from codesign.targets.tvm_lower.kernel import NHWC

    key = hashlib.sha256(pickle.dumps((request.graph, request.machine))).hexdigest(), tile
    if key in _built:
        _built.move_to_end(key)
        return _built[key]
    executable = compile_graph(request.graph, request.machine, lambda key: tile, as_stored=True)
    main = relax.VirtualMachine(in_memory(executable), tvm.cpu())["main"]
    arrays = [
        array.transpose(NHWC).copy() if array.ndim == 4 else array
        for array in random_inputs(request.graph)
    ]
    tensors = tuple(tvm.runtime.tensor(array) for array in arrays)
    digest = hashlib.sha256()
    for result in main(*tensors):
        digest.update(result.numpy().tobytes())
    start = time.perf_counter()
    main(*tensors)
    calls = max(1, round(_SAMPLE_SECONDS / max(time.perf_counter() - start, 1e-6)))
    _built[key] = _Built(main, tensors, digest.hexdigest(), calls)
    if len(_built) > _KEPT:
        _built.popitem(last=False)
    return _built[key]


def _answer(request: Request) -> Reply:
    try:
        return measure(request)
    except Exception as error:  # a tile that cannot be built is a result, too
        return Reply((), "", f"{type(error).__name__}: {str(error).strip().splitlines()[-1:]}")


def main() -> None:
    """Serve until standard input ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.environ["TVM_BIND_THREADS"] = "0"
    requests: Any = sys.stdin.buffer
    while True:
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        os.environ.setdefault("TVM_NUM_THREADS", str(request.machine.threads))
        pickle.dump(_answer(request), replies)
        replies.flush()


if __name__ == "__main__":
    main()
