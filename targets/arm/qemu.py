# SPDX-License-Identifier: Apache-2.0
"""Running a build folder's runner as a process: natively, or under QEMU's user emulation."""

from __future__ import annotations

import os
import subprocess
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np

from codesign.errors import CodesignError, InputError, ToolNotFoundError, UnsupportedError
from codesign.ir.types import TensorType
from codesign.targets.base import Array, Runner, Timing
from codesign.targets.deploy.arch import Arch
from codesign.targets.tools import require_tool

Tensors = tuple[tuple[str, TensorType], ...]


def emulator(arch: Arch, cpu: str, plugin: str = "") -> list[str]:
    """The start of a command that runs a program of ``arch``; empty where it runs natively.

    ``plugin`` is a TCG plugin with its options. Raises ToolNotFoundError.
    """
    if arch.native and not plugin:
        return []
    command = [require_tool(f"qemu-{arch.name}"), "-cpu", cpu, "-L", str(sysroot(arch))]
    return command + (["-plugin", plugin] if plugin else [])


@cache
def sysroot(arch: Arch) -> Path:
    """The folder with ``lib/`` of the architecture's C library, from the cross compiler.

    ``QEMU_LD_PREFIX``, QEMU's own variable, comes first.
    """
    given = os.environ.get("QEMU_LD_PREFIX")
    if given:
        return Path(given)
    compiler = require_tool(arch.compiler)
    loader = f"ld-linux-{arch.name}.so.1"
    said = subprocess.run(
        [compiler, f"-print-file-name={loader}"], capture_output=True, text=True, check=False
    ).stdout.strip()
    if not os.path.isabs(said):
        raise ToolNotFoundError(
            f"{compiler} knows no {loader}, which programs need under QEMU; get it with: "
            f"apt-get install libc6-{arch.name.replace('aarch64', 'arm64')}-cross, or set "
            "QEMU_LD_PREFIX to a folder that holds the device's /lib"
        )
    return Path(said).resolve().parent.parent


class ProcessRunner(Runner):
    """A build folder's runner, kept running; inputs go in and outputs come out by pipe."""

    def __init__(
        self, directory: Path, command: Sequence[str], inputs: Tensors, outputs: Tensors,
        threads: int = 1,
    ) -> None:  # fmt: skip
        self.inputs, self.outputs = inputs, outputs
        self._what = f"{directory} under {Path(command[0]).name}" if command else str(directory)
        self._command = [
            *command, str(directory / "runner"), "--folder", str(directory), "--threads",
            str(threads), "stream",
        ]  # fmt: skip
        self._environment = runner_environment(threads)
        self._process: subprocess.Popen[bytes] | None = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, env=self._environment,
            )  # fmt: skip
            weakref.finalize(self, _end, self._process)
        return self._process

    def _run(self, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        results = []
        try:
            for array in arrays:
                process.stdin.write(array.tobytes())
            process.stdin.flush()
            for _, kind in self.outputs:
                size = kind.size * kind.dtype.numpy.itemsize
                data = process.stdout.read(size)
                if len(data) != size:
                    raise BrokenPipeError
                results.append(np.frombuffer(data, kind.dtype.numpy).reshape(kind.shape).copy())
        except BrokenPipeError:
            raise self._failure() from None
        return tuple(results)

    def _failure(self) -> CodesignError:
        process, self._process = self._process, None
        assert process is not None
        assert process.stderr is not None
        process.wait()
        said = process.stderr.read().decode(errors="replace").strip()[-1000:]
        signal = f"signal {-process.returncode}" if process.returncode < 0 else ""
        return InputError(
            f"{self._what} stopped: {said or signal or f'exit code {process.returncode}'}; "
            "build again, for a CPU with these instructions"
        )

    def time(self, arrays: Sequence[Array], repeats: int = 10, warmup: int = 3) -> Timing:
        """Raises UnsupportedError: the time of an emulator says nothing of the device."""
        raise UnsupportedError(
            f"{self._what}: only the device itself can be timed (`run.sh time` there, or "
            "--rpc); under QEMU instructions can be counted, see docs/arm.md"
        )


def runner_environment(threads: int) -> dict[str, str]:
    """TVM's threads spin while they wait, which an emulator pays for: one unless asked for."""
    return os.environ | {"TVM_NUM_THREADS": str(threads), "TVM_BIND_THREADS": "0"}


def _end(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()
    process.kill()
    process.wait()
