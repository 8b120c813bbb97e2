# SPDX-License-Identifier: Apache-2.0
"""The tuner's worker for a device: it compiles candidates, and runs and times them there.

``DeviceWorker`` starts it. A candidate that ends the device's process is tried once more in a new
session; if no session can be had, the device is gone.
"""

from __future__ import annotations

import functools
import hashlib
import json
import pickle
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codesign.errors import ToolNotFoundError
from codesign.targets.rpc.device import Device, Session, first_line
from codesign.targets.tuning.protocol import (
    Ahead,
    Ask,
    FunctionRequest,
    Probe,
    Reply,
    Request,
)
from codesign.targets.tuning.worker import digest_of, in_turns, loose_in, said, serve
from codesign.targets.tvm_lower.tiles import Tile, TraceTile
from codesign.targets.tvm_lower.trace import Array, same_results

_SAMPLE_SECONDS = 2e-3
"""A sample is this long: starting it takes TVM's clock on the device some microseconds."""
_TRIES = 2
_KEPT = 60
"""Libraries of candidates that are kept here."""


@dataclass(frozen=True)
class Library:
    """A candidate as a file."""

    path: Path
    arguments: str
    """What it is called with, by a key: the same for all candidates of a kernel."""
    arrays: tuple[Array, ...]
    result: tuple[tuple[int, ...], str] | None
    """Shape and stored type of a function's last argument; None for a network of one layer."""


@dataclass(frozen=True)
class _Loaded:
    """A candidate in a session."""

    results: tuple[Array, ...]
    timed: Callable[[], float]
    """Milliseconds a call."""

    def sample(self) -> float:
        return self.timed()


class Bench:
    """Compiles with ``compiler``, and measures on ``device``."""

    def __init__(self, device: Device, compiler: str, folder: Path) -> None:
        self.device, self.compiler, self.folder = device, compiler, folder
        self.libraries: OrderedDict[tuple[str, Tile | None], Library] = OrderedDict()

    def answer(self, request: Ask) -> Reply:
        """What became of a request."""
        try:
            if isinstance(request, Probe):
                self.device.session()
                return Reply((), "")
            if isinstance(request, Ahead):
                return self._ahead(request)
            return self._measure(request)
        except ToolNotFoundError as error:
            return Reply((), "", str(error), gone=True)
        except Exception as error:  # a tile that cannot be built is a result, too
            return Reply((), "", said(error))

    def _ahead(self, request: Ahead) -> Reply:
        def one(tile: Tile) -> None:
            try:
                self._function(request, tile)
            except Exception:  # said when it is measured
                return

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, request.tiles))
        return Reply((), "")

    def _measure(self, request: Request | FunctionRequest) -> Reply:
        made: Callable[[Any, Tile | None], Library] = (
            self._layer if isinstance(request, Request) else self._function
        )
        one = made(request, request.tile)
        other = None if request.against is None else made(request, request.against)
        why = ""
        for _ in range(_TRIES):
            session = self.device.session()
            try:
                return self._timed(session, request, one, other)
            except Exception as error:  # TVM raises whatever its socket raised
                why = first_line(error)
            del session
            self.device.forget()
        self.device.session()  # else the device is gone, and no candidate to blame
        return Reply((), "", f"crashed: the device's process ended ({why[:200]})")

    def _timed(
        self, session: Session, request: Request | FunctionRequest, one: Library,
        other: Library | None,
    ) -> Reply:  # fmt: skip
        first = _loaded(session, one)
        second = None if other is None else _loaded(session, other)
        digest = digest_of(first.results)
        if isinstance(request, FunctionRequest):
            if second is not None and not same_results(first.results, second.results):
                return Reply((), "", "wrong result")
            digest = ""  # compared already
        samples, others = in_turns(first, second, request.repeats)
        return Reply(samples, digest, against_ms=others)

    def _layer(self, request: Request, tile: Tile | None) -> Library:
        from codesign.targets.layers import random_inputs
        from codesign.targets.tvm_lower.compile import compile_graph
        from codesign.targets.tvm_lower.kernel import NHWC

        key = hashlib.sha256(pickle.dumps((request.graph, request.machine))).hexdigest()
        if (found := self._kept(key, tile)) is not None:
            return found
        executable = compile_graph(request.graph, request.machine, lambda _: tile, as_stored=True)
        arrays = tuple(
            array.transpose(NHWC).copy() if array.ndim == 4 else array
            for array in random_inputs(request.graph)
        )
        return self._keep(key, tile, executable, arrays, None)

    def _function(self, request: FunctionRequest | Ahead, tile: Tile | None) -> Library:
        from codesign.targets.tvm_lower.compile import compile_function

        key = str(request.file)
        if (found := self._kept(key, tile)) is not None:
            return found
        trace = tile if isinstance(tile, TraceTile) else None
        executable = compile_function(loose_in(request.file), request.machine, trace)
        arrays = _arguments(request.file)
        return self._keep(key, tile, executable, arrays, loose_in(request.file).result)

    def _kept(self, key: str, tile: Tile | None) -> Library | None:
        found = self.libraries.get((key, tile))
        if found is not None:
            self.libraries.move_to_end((key, tile))
        return found

    def _keep(
        self, key: str, tile: Tile | None, executable: Any, arrays: tuple[Array, ...],
        result: tuple[tuple[int, ...], str] | None,
    ) -> Library:  # fmt: skip
        from codesign.targets.tvm_lower.compile import export

        name = hashlib.sha256(repr((key, tile)).encode()).hexdigest()[:32]
        library = Library(self.folder / f"{name}.so", key, arrays, result)
        export(executable, library.path, self.compiler)
        self.libraries[key, tile] = library
        while len(self.libraries) > _KEPT:
            _, old = self.libraries.popitem(last=False)
            old.path.unlink(missing_ok=True)
        return library


@functools.cache
def _arguments(file: Path) -> tuple[Array, ...]:
    return loose_in(file).arrays()


def _loaded(session: Session, library: Library) -> _Loaded:
    key = "candidate", library.path
    if key not in session.held:
        make = _network if library.result is None else _function
        session.held[key] = make(session, library)
    found: _Loaded = session.held[key]
    return found


def _tensors(session: Session, library: Library) -> tuple[Any, ...]:
    """What a candidate is called with, on the device."""
    import tvm

    key = "arguments", library.arguments
    if key not in session.held:
        device, arrays = session.rpc.cpu(), list(library.arrays)
        if library.result is not None:
            shape, dtype = library.result
            arrays.append(np.zeros(shape, dtype))
        session.held[key] = tuple(tvm.runtime.tensor(array, device) for array in arrays)
    found: tuple[Any, ...] = session.held[key]
    return found


def _network(session: Session, library: Library) -> _Loaded:
    from tvm import relax

    device = session.rpc.cpu()
    vm = relax.VirtualMachine(session.load(library.path), device)
    vm.set_input("main", *_tensors(session, library))
    vm.invoke_stateful("main")
    parts = vm.get_outputs("main")
    results = parts if isinstance(parts, Sequence) or hasattr(parts, "__len__") else [parts]
    arrays = tuple(np.array(part.numpy()) for part in results)

    def clock(calls: int) -> Callable[[], float]:
        timed = vm.time_evaluator("invoke_stateful", device, number=calls)
        return lambda: float(timed("main").mean)

    return _Loaded(arrays, _paced(clock))


def _function(session: Session, library: Library) -> _Loaded:
    device = session.rpc.cpu()
    module, tensors = session.load(library.path), _tensors(session, library)
    module["main"](*tensors)
    arrays = (np.array(tensors[-1].numpy()),)

    def clock(calls: int) -> Callable[[], float]:
        timed = module.time_evaluator("main", device, number=calls)
        return lambda: float(timed(*tensors).mean)

    return _Loaded(arrays, _paced(clock))


def _paced(clock: Callable[[int], Callable[[], float]]) -> Callable[[], float]:
    """Milliseconds a call, in samples of about the same length."""
    one = clock(1)()
    timed = clock(max(1, round(_SAMPLE_SECONDS / max(one, 1e-6))))
    return lambda: timed() * 1e3


def main() -> None:
    """Serve until standard input ends; the device and the compiler are arguments."""
    device = Device(**json.loads(sys.argv[1]))
    with tempfile.TemporaryDirectory(prefix="codesign-bench-") as folder:
        serve(Bench(device, sys.argv[2], Path(folder)).answer)


if __name__ == "__main__":
    main()
