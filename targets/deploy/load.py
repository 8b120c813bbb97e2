# SPDX-License-Identifier: Apache-2.0
"""A build folder in Python, on a device that has TVM: ``Network(folder).run(array)``.

Needs numpy and the TVM that the manifest names, nothing else of codesign.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


class BuildError(RuntimeError):
    """The folder is damaged, or was built for another machine or TVM."""


class Network:
    """The network of a build folder, loaded into this process."""

    def __init__(self, folder: str | Path | None = None, threads: int = 0) -> None:
        """``threads`` 0: one a core. Raises BuildError."""
        self.folder = Path(folder) if folder else Path(__file__).parent
        self.manifest = _manifest(self.folder)
        self.inputs = [_tensor(item) for item in self.manifest["inputs"]]
        self.outputs = [_tensor(item) for item in self.manifest["outputs"]]
        os.environ.setdefault("TVM_BIND_THREADS", "0")
        # idle threads yield so often before they sleep; TVM's 300,000 are minutes on busy cores
        os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "2000")
        import tvm
        import tvm_ffi
        from tvm import relax

        built = self.manifest["tvm"]
        if built.split(".post")[0] != tvm.__version__.split(".post")[0]:
            raise BuildError(f"built with TVM {built}, this is TVM {tvm.__version__}; "
                             f"pip install apache-tvm=={built}")
        self._tvm = tvm
        if threads:
            tvm.get_global_func("runtime.config_threadpool")(1, threads)
        # By a name of its own: an earlier build of this name would stay in its place.
        with tempfile.TemporaryDirectory() as scratch:
            alias = Path(scratch) / "network.so"
            alias.symlink_to((self.folder / "network.so").resolve())
            library = tvm_ffi.load_module(str(alias))
        library.get_function("codesign_threads", query_imports=True)(threads)
        self._main = relax.VirtualMachine(library, tvm.cpu())["main"]

    def run(self, *arrays: Any) -> tuple[Any, ...]:
        """The outputs, as NumPy arrays; ValueError if inputs do not fit."""
        results = self._main(*self._tensors(arrays))
        return tuple(
            np.array(results[i].numpy()).reshape(shape)
            for i, (_, shape, _) in enumerate(self.outputs)
        )

    def time(self, *arrays: Any, repeats: int = 50, warmup: int = 3) -> float:
        """Median milliseconds of a call."""
        tensors = self._tensors(arrays)
        samples = []
        for _ in range(warmup + repeats):
            start = time.perf_counter()
            self._main(*tensors)
            samples.append((time.perf_counter() - start) * 1e3)
        return statistics.median(samples[warmup:])

    def _tensors(self, arrays: tuple[Any, ...]) -> list[Any]:
        if len(arrays) != len(self.inputs):
            raise ValueError(f"the network takes {len(self.inputs)} inputs, got {len(arrays)}")
        for (name, shape, storage), array in zip(self.inputs, arrays):
            if array.shape != shape or str(array.dtype) != storage:
                raise ValueError(f"input {name!r} takes {storage}{list(shape)}, "
                                 f"got {array.dtype}{list(array.shape)}")
        return [self._tvm.runtime.tensor(np.ascontiguousarray(array)) for array in arrays]

    def test(self) -> int:
        """How many elements of the test vector's outputs differ beyond the tolerance."""
        inputs = [self._vector("input", i, item) for i, item in enumerate(self.inputs)]
        tolerance = float((self.folder / "test" / "tolerance").read_text())
        wrong = 0
        for i, (item, found) in enumerate(zip(self.outputs, self.run(*inputs))):
            expected = self._vector("output", i, item)
            if tolerance and item[2] == "float32":
                apart = np.abs(found - expected)
                wrong += int((~(apart <= tolerance * np.abs(expected).max())).sum())
            else:
                wrong += int((found != expected).sum())
        return wrong

    def _vector(self, side: str, index: int, item: tuple[str, tuple[int, ...], str]) -> Any:
        _, shape, storage = item
        path = self.folder / "test" / f"{side}{index}.bin"
        return np.fromfile(path, storage).reshape(shape)


def _tensor(item: dict[str, Any]) -> tuple[str, tuple[int, ...], str]:
    """Name, shape and NumPy type of ``u4[1,8,4,4]``."""
    storage, _, shape = item["type"].partition("[")
    sizes = tuple(int(n) for n in shape.rstrip("]").split(",") if n)
    return item["name"], sizes, item.get("storage", storage)


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        files, arch = manifest["files"], manifest["cpu"]["arch"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuildError(f"{path} cannot be read ({error}); build again") from error
    for name, facts in files.items():
        try:
            digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as error:
            raise BuildError(f"{folder / name} is missing; copy the folder again") from error
        if digest != facts["sha256"]:
            raise BuildError(f"{folder / name} is damaged; copy the folder again")
    if arch != platform.machine():
        raise BuildError(f"{folder} was built for {arch}, this is {platform.machine()}; "
                         "build for this machine")
    return manifest


if __name__ == "__main__":
    import sys

    different = Network(sys.argv[1] if len(sys.argv) > 1 else None).test()
    print(f"test vector: {different} elements of output differ")
    sys.exit(1 if different else 0)
