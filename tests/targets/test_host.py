# SPDX-License-Identifier: Apache-2.0
"""The host target: build folders, loading, running, timing, and what goes wrong with them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from codesign.errors import InputError, UnsupportedError
from codesign.ir import F32, GraphBuilder, TensorType, interpret, ops
from codesign.ir.graph import Array, Graph
from codesign.ir.types import DType
from codesign.quant import load_format
from codesign.targets import TARGETS
from codesign.targets.files import MANIFEST, build_folder
from codesign.targets.host import LIBRARY, HostTarget
from codesign.targets.pool import SPINS
from tests.targets.checks import integers, kind


def network() -> Graph:
    """Two inputs, two results of different formats."""
    b = GraphBuilder("two")
    x = b.input("x", TensorType((2, 3, 6, 6), F32))
    y = b.input("y", kind("u4[2,8,4,4]"))
    q = b.add(ops.Quantize(DType.parse("s8")), [x, b.constant(np.array(0.05, np.float32))])
    w, bias = b.constant(integers("s8", 8, 3, 3, 3)), b.constant(np.zeros(8, np.int32))
    conv = b.add(ops.Conv2d(), [q, w, bias])
    m, e = b.constant(np.array(40000, np.int32)), b.constant(np.array(22, np.int32))
    u4 = DType.parse("u4")
    narrow = b.add(ops.Requantize(u4, 0, 15), [conv, m, e])
    total = b.add(ops.Add(), [narrow, y])
    out = b.add(ops.Dequantize(), [total, b.constant(np.array(0.1, np.float32))])
    return b.finish([out, narrow])


def arrays() -> tuple[Array, Array]:
    """Inputs of ``network``."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2, 3, 6, 6)).astype(np.float32)
    return x, rng.integers(0, 16, (2, 8, 4, 4)).astype(np.uint8)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build of ``network``."""
    out = tmp_path_factory.mktemp("host") / "build"
    result = HostTarget().build(network(), out)
    assert result.directory == out
    files = sorted(p for p in out.rglob("*") if p.is_file())
    assert result.files == tuple(p.relative_to(out).as_posix() for p in files)
    assert {MANIFEST, LIBRARY, "run.sh", "runner"} < set(result.files)
    assert result.size_bytes == sum(p.stat().st_size for p in files)
    return out


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    """A copy of the build that a test may damage."""
    return Path(shutil.copytree(built, tmp_path / "build"))


def test_registry() -> None:
    target = TARGETS.load("host")()
    assert (target.name, target.kind, target.unavailable()) == ("host", "cpu", None)
    assert target.formats[0] == "w8a8"
    assert "float" in target.formats


def test_round_trip(built: Path) -> None:
    graph, inputs = network(), arrays()
    runner = HostTarget().load(built)
    assert runner.inputs == tuple((n, graph.type(n)) for n in graph.inputs)
    assert runner.outputs == tuple((n, graph.type(n)) for n in graph.outputs)
    for found, expected in zip(runner.run(*inputs), interpret.run(graph, *inputs), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_results_are_kept(built: Path) -> None:
    """A result is the caller's own: a later run does not write into it."""
    runner = HostTarget().load(built)
    x, y = arrays()
    first = runner.run(x, y)
    before = [result.copy() for result in first]
    runner.run(x * 2, y)
    for result, copy in zip(first, before, strict=True):
        np.testing.assert_array_equal(result, copy)


def test_fresh_process(built: Path, tmp_path: Path) -> None:
    x, y = arrays()
    np.savez(tmp_path / "in.npz", x=x, y=y)
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from codesign.targets.host import HostTarget\n"
        "build, folder = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "data = np.load(folder / 'in.npz')\n"
        "a, b = HostTarget(threads=1).load(build).run(data['x'], data['y'])\n"
        "np.savez(folder / 'out.npz', a=a, b=b)\n"
    )
    subprocess.run([sys.executable, "-c", code, built, tmp_path], check=True)
    out = np.load(tmp_path / "out.npz")
    a, b = interpret.run(network(), x, y)
    np.testing.assert_array_equal(out["a"], a)
    np.testing.assert_array_equal(out["b"], b)


@pytest.mark.parametrize("own", [None, "7"])
def test_idle_threads_of_tvm_soon_sleep(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    """Its pool's default, 300,000 yields, keeps a process from ending while others are busy."""
    x, y = arrays()
    np.savez(tmp_path / "in.npz", x=x, y=y)
    monkeypatch.delenv("TVM_THREAD_POOL_SPIN_COUNT", raising=False)
    if own is not None:
        monkeypatch.setenv("TVM_THREAD_POOL_SPIN_COUNT", own)
    code = (
        "import os, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from codesign.targets.host import HostTarget\n"
        "data = np.load(Path(sys.argv[2]) / 'in.npz')\n"
        "HostTarget(threads=2).load(Path(sys.argv[1])).run(data['x'], data['y'])\n"
        "print(os.environ['TVM_THREAD_POOL_SPIN_COUNT'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, built, tmp_path], check=True, capture_output=True, text=True
    )
    assert int(done.stdout) == int(own or SPINS) < 10_000


def test_running_leaves_all_cores_to_later_processes(built: Path, tmp_path: Path) -> None:
    x, y = arrays()
    np.savez(tmp_path / "in.npz", x=x, y=y)
    code = (
        "import os, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from codesign.targets.host import HostTarget\n"
        "before = os.sched_getaffinity(0)\n"
        "data = np.load(Path(sys.argv[2]) / 'in.npz')\n"
        "HostTarget().load(Path(sys.argv[1])).run(data['x'], data['y'])\n"
        "assert os.sched_getaffinity(0) == before, os.sched_getaffinity(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, built, tmp_path], check=True)


def test_build_imports_no_accelerator_intrinsics(tmp_path: Path) -> None:
    """They take over a minute to parse."""
    code = (
        "import sys\n"
        "from tests.targets.test_host import network\n"
        "from codesign.targets.host import HostTarget\n"
        "HostTarget().runner(network())\n"
        "print([m for m in sys.modules if m.startswith('tvm.s_tir.tensor_intrin')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_import_is_light() -> None:
    code = (
        "import sys\n"
        "from codesign.targets import TARGETS\n"
        "TARGETS.load('host')().unavailable()\n"
        "print([m for m in ('tvm', 'torch') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_timing(built: Path) -> None:
    timing = HostTarget().load(built).time(arrays(), repeats=5, warmup=2)
    assert timing.samples == 5
    assert 0 < timing.min_ms <= timing.median_ms
    with pytest.raises(InputError, match=r"^timing takes repeats >= 1 and warmup >= 0, got 0, 3$"):
        HostTarget().load(built).time(arrays(), repeats=0)


def test_used_from_many_threads(built: Path) -> None:
    """Callers' threads take turns; none sees another's result."""
    runner = HostTarget().load(built)
    x, y = arrays()
    inputs = [(x * scale, y) for scale in (1, 2, 3, 4)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda pair: runner.run(*pair), inputs * 25))
    for pair, found in zip(inputs * 25, results, strict=True):
        for one, other in zip(found, interpret.run(network(), *pair), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_no_bit(built: Path, threads: int) -> None:
    expected = interpret.run(network(), *arrays())
    for found, wanted in zip(HostTarget(threads).load(built).run(*arrays()), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_wrong_inputs(built: Path) -> None:
    runner = HostTarget().load(built)
    x, y = arrays()
    with pytest.raises(InputError, match=r"^the network takes 2 inputs \(x, y\), got 1$"):
        runner.run(x)
    message = "input 'x' takes float32[2, 3, 6, 6] (f32[2,3,6,6]), got float64[2, 3, 6, 6]"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        runner.run(x.astype(np.float64), y)
    message = "input 'y' takes 0..15 (u4), got values 0..16"
    y[0, 0, 0, 0], y[0, 0, 0, 1] = 0, 16
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        runner.run(x, y)


def test_damaged_library(copied: Path) -> None:
    path = copied / LIBRARY
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    message = (
        f"{path} is not the file that was built: its checksum differs from the manifest's "
        f"({len(data)} bytes, built with {len(data)}); build again"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        HostTarget().load(copied)


def test_missing_library(copied: Path) -> None:
    (copied / LIBRARY).unlink()
    message = (
        f"{copied / LIBRARY} is missing from the build (No such file or directory); build again"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        HostTarget().load(copied)


def test_no_build(tmp_path: Path) -> None:
    message = f"{tmp_path} holds no build: no manifest.json in it; run `codesign build` first"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        HostTarget().load(tmp_path)
    gone = tmp_path / "gone"
    message = f"{gone} holds no build: there is no such folder; run `codesign build` first"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        HostTarget().load(gone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other/1"},
         "{m} is no codesign-host-build/1 manifest (its format is 'other/1'); build again"),
        ({"files": 3}, "{m} lists no files with checksums; build again"),
        ({"inputs": [{"name": "x", "type": "f31[1]"}]},
         "{d}: the manifest has no valid inputs and outputs (no number format has kind float and "
         "31 bits); build again"),
        ({"tvm": "0.1"}, "{d} was built with TVM 0.1, this is TVM 0.27.0.post1; build again"),
        ({"cpu": {"arch": "x86_64", "mcpu": "new", "features": ["avx2", "avx9"]}},
         "{d} was built for another CPU (x86_64 new), which this one lacks: avx9; "
         "build again here"),
    ],
)  # fmt: skip
def test_wrong_manifest(copied: Path, change: dict[str, object], message: str) -> None:
    path = copied / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    wanted = message.format(m=path, d=copied)
    with pytest.raises(InputError, match=f"^{re.escape(wanted)}$"):
        HostTarget().load(copied)


def test_torn_manifest(copied: Path) -> None:
    path = copied / MANIFEST
    path.write_text(path.read_text()[:50])
    with pytest.raises(InputError, match=f"^cannot read {re.escape(str(path))}: .*; build again$"):
        HostTarget().load(copied)


def test_rebuild_replaces(copied: Path) -> None:
    (copied / "stale").write_text("left by an older build")
    HostTarget().build(network(), copied)
    assert not (copied / "stale").exists()
    assert (copied / LIBRARY).is_file()
    assert [p.name for p in copied.parent.iterdir()] == [copied.name]


def test_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    message = (
        f"cannot write the build folder {tmp_path}: it holds other files and no manifest.json; "
        "empty it or choose another"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        HostTarget().build(network(), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_unwritable(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    message = f"cannot write the build folder {file}: a file of that name is there"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        HostTarget().build(network(), file)
    message = f"cannot write the build folder {file / 'sub' / 'build'}: {file} is a file"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        HostTarget().build(network(), file / "sub" / "build")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with build_folder(tmp_path / "build") as folder:
            os.symlink("/dev/full", folder / "file")
            (folder / "file").write_text("x" * 100000)

    message = (
        f"cannot write the build folder {tmp_path / 'build'}: No space left on device; "
        "choose another with --out or free it"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_failed_build_leaves_the_old_one(copied: Path) -> None:
    before = (copied / LIBRARY).read_bytes()

    def fail() -> None:
        with build_folder(copied) as folder:
            (folder / LIBRARY).write_bytes(b"half")
            raise RuntimeError("the compiler died")

    with pytest.raises(RuntimeError, match=r"^the compiler died$"):
        fail()
    assert (copied / LIBRARY).read_bytes() == before
    assert [p.name for p in copied.parent.iterdir()] == [copied.name]


def test_unsupported_are_listed_together() -> None:
    @dataclass(frozen=True)
    class Sort(ops.Op):
        name: ClassVar[str] = "sort"

        def infer(self, args: object) -> TensorType:
            return TensorType((2, 2))

    b = GraphBuilder("odd")
    x = b.input("x", TensorType((2, 2)))
    y = b.add(Sort(), [x], "first", "model.sort1")
    q = b.input("q", kind("s40[3]"))
    b.add(ops.Clip(DType.parse("s8"), 0, 1), [q], "wide")
    graph = b.finish([b.add(Sort(), [y], "second")])
    message = (
        "target 'host' cannot take 3 of the 5 operators of 'odd':\n"
        "  first (sort) from 'model.sort1': there is no kernel for operator 'sort'\n"
        "  wide (clip): integers wider than 32 bits have no kernel\n"
        "  second (sort): there is no kernel for operator 'sort'"
    )
    with pytest.raises(UnsupportedError, match=f"^{re.escape(message)}$"):
        HostTarget().runner(graph)


def test_same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from codesign.targets.tvm_lower.machine import x86_machine

    w8a8, w4a2, floating = (load_format(text) for text in ("w8a8", "w4a2", "float"))
    target = HostTarget()
    where = {"level": "cascadelake"}
    monkeypatch.setattr(HostTarget, "machine", lambda self: x86_machine(where["level"]))
    assert target.same_code(w8a8, w4a2)  # vpdpbusd for all
    where["level"] = "haswell"
    assert not target.same_code(w8a8, w4a2)  # vpmaddubsw is exact for narrow formats only
    assert target.same_code(load_format("w8a4"), load_format("w8a4"))
    assert target.same_code(floating, floating)
    assert not target.same_code(w8a8, floating)
    assert target.latency_bound_ms(10**9) > 0
