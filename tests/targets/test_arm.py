# SPDX-License-Identifier: Apache-2.0
"""ARM boards: cross builds run under QEMU, bit for bit; boards as files; what goes wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from codesign.errors import InputError, ToolNotFoundError, UnsupportedError
from codesign.ir import F32, Graph, GraphBuilder, TensorType, interpret, ops
from codesign.ir.types import DType
from codesign.targets import TARGETS
from codesign.targets.arm.board import FOLDER_VARIABLE, Board, builtin_boards, read_board
from codesign.targets.arm.qemu import emulator, runner_environment
from codesign.targets.arm.target import ArmTarget
from codesign.targets.deploy import compile as runner_compile
from codesign.targets.deploy import runtime
from codesign.targets.deploy.arch import get_arch
from codesign.targets.files import MANIFEST
from codesign.targets.host import HostTarget
from codesign.targets.layers import random_inputs
from tests.targets.checks import integers

BOARDS = ("cortex-a55", "rpi3", "rpi4", "rpi5", "zynq-ps-a53")


def network() -> Graph:
    """A small network of every kind of layer: convolution, depthwise, residual, linear."""
    b = GraphBuilder("small")
    x = b.input("x", TensorType((1, 3, 9, 9), F32))
    q = b.add(ops.Quantize(DType.parse("s8")), [x, b.constant(np.array(0.05, np.float32))])

    def layer(op: ops.Op, value: str, weights: tuple[int, ...], name: str) -> str:
        w, bias = b.constant(integers("s8", *weights)), b.constant(np.zeros(weights[0], np.int32))
        total = b.add(op, [value, w, bias], name)
        m = b.constant(np.arange(40000, 40000 + weights[0], dtype=np.int32))
        shift = b.constant(np.full(weights[0], 24, np.int32))
        return b.add(ops.Requantize(DType.parse("u8"), 0, 255, 1), [total, m, shift])

    first = layer(ops.Conv2d(padding=(1, 1, 1, 1)), q, (16, 3, 3, 3), "first")
    deep = layer(ops.Conv2d(padding=(1, 1, 1, 1), groups=16), first, (16, 1, 3, 3), "deep")
    point = layer(ops.Conv2d(), deep, (16, 16, 1, 1), "point")
    flat = b.add(ops.Reshape((1, 16 * 81)), [point])
    last = layer(ops.Linear(), flat, (10, 16 * 81), "last")
    out = b.add(ops.Dequantize(), [last, b.constant(np.array(0.1, np.float32))])
    return b.finish([out, point])


def target(name: str, threads: int = 1) -> ArmTarget:
    found = TARGETS.load(name)(threads=threads)
    assert isinstance(found, ArmTarget)
    return found


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """``network`` for a plain NEON board and for one with dot products."""
    found = {}
    for name in ("rpi4", "rpi5"):
        found[name] = tmp_path_factory.mktemp("arm") / name
        target(name).build(network(), found[name])
    return found


def runner(folder: Path, cpu: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The runner of a folder, in a process of its own."""
    command = [*emulator(get_arch("aarch64"), cpu), str(folder / "runner"), *words]
    environment = runner_environment(1)
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_boards_come_with_the_package() -> None:
    assert tuple(builtin_boards()) == BOARDS
    for name in BOARDS:
        assert target(name).name == name
        assert target(name).unavailable() is None
        assert dict(target(name).board.sources).keys() == {"cpu", "features", "memory"}
        assert TARGETS.owner(name) == "codesign"
    assert {"host", *BOARDS} <= set(TARGETS)


@pytest.mark.parametrize("name", ["rpi4", "rpi5"])
@pytest.mark.parametrize("threads", [1, 3])
def test_results_are_exact_under_qemu(builds: dict[str, Path], name: str, threads: int) -> None:
    graph = network()
    loaded = target(name, threads).load(builds[name])
    assert loaded.inputs == tuple((n, graph.type(n)) for n in graph.inputs)
    for seed in range(3):
        x = random_inputs(graph, seed)
        for found, expected in zip(loaded.run(*x), interpret.run(graph, *x), strict=True):
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


def test_a_board_runs_the_code_of_an_older_one(builds: dict[str, Path]) -> None:
    x = random_inputs(network())
    found = target("rpi5").load(builds["rpi4"]).run(*x)
    np.testing.assert_array_equal(found[0], interpret.run(network(), *x)[0])


def test_code_for_a_newer_board_is_refused(builds: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"built for cortex-a76 .* dotprod, which rpi3 lacks"):
        target("rpi3").load(builds["rpi5"])
    done = runner(builds["rpi5"], "cortex-a53", "test")
    assert done.returncode == 1
    assert "this CPU has no dotprod, which the network was built for" in done.stderr


def test_an_emulator_is_not_timed(builds: dict[str, Path]) -> None:
    loaded = target("rpi4").load(builds["rpi4"])
    with pytest.raises(UnsupportedError, match="only the device itself can be timed"):
        loaded.time(random_inputs(network()))


def test_the_runner_alone(builds: dict[str, Path], tmp_path: Path) -> None:
    folder = builds["rpi4"]
    done = runner(folder, "cortex-a72", "test", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 of " in done.stdout
    info = runner(folder, "cortex-a72", "info").stdout
    assert info.splitlines()[0] == "input x f32 [1,3,9,9] as float32, 972 bytes"
    assert "median" in runner(folder, "cortex-a72", "time", "3").stdout
    assert runner(folder, "cortex-a72").returncode == 2
    x = random_inputs(network(), 5)
    x[0].tofile(tmp_path / "x.bin")
    done = runner(folder, "cortex-a72", "run", str(tmp_path / "y"), str(tmp_path / "x.bin"))
    assert done.returncode == 0, done.stderr
    expected = interpret.run(network(), *x)
    assert (tmp_path / "y0").read_bytes() == expected[0].tobytes()
    assert (tmp_path / "y1").read_bytes() == expected[1].tobytes()
    (tmp_path / "x.bin").write_bytes(b"short")
    done = runner(folder, "cortex-a72", "run", str(tmp_path / "y"), str(tmp_path / "x.bin"))
    assert "not of 972 bytes" in done.stderr


def test_a_wrong_test_vector_is_noticed(builds: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(builds["rpi4"], tmp_path / "build"))
    output = folder / "test" / "output1.bin"
    output.write_bytes(bytes(b ^ 1 for b in output.read_bytes()))
    done = runner(folder, "cortex-a72", "test")
    assert done.returncode == 1
    assert f"{16 * 81} of " in done.stdout
    assert "DIFFER" in done.stdout


def test_host_folder_runs_without_python(tmp_path: Path) -> None:
    """The same sources, natively; ``run.sh`` refuses a damaged folder."""
    graph, folder = network(), tmp_path / "build"
    HostTarget().build(graph, folder)
    bare = {"PATH": "/usr/bin:/bin"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", str(folder / "run.sh"), *words]
        return subprocess.run(command, capture_output=True, text=True, env=bare, check=False)

    done = run()
    assert done.returncode == 0, done.stderr
    assert "0 of " in done.stdout
    assert "median" in done.stdout
    loader = [sys.executable, str(folder / "codesign_load.py")]
    done = subprocess.run(loader, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "test vector: 0 elements of output differ\n")
    with (folder / "lib" / "libcodesign.so").open("ab") as file:
        file.write(b"\0")
    assert "run.sh: files are damaged" in run("test").stderr
    done = subprocess.run(loader, capture_output=True, text=True, check=False)
    assert "libcodesign.so is damaged; copy the folder again" in done.stderr


def test_what_fails_beside_the_lowering_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(arch: object) -> None:
        raise InputError("no room for the runner")

    monkeypatch.setattr(runner_compile, "runner_files", fails)
    done = []
    with (
        pytest.raises(InputError, match="no room for the runner"),
        runner_compile.compiling(get_arch("x86_64")),
    ):
        done.append("lowered")
    assert done == ["lowered"]


def test_wrong_architecture(builds: dict[str, Path], tmp_path: Path) -> None:
    """A library of another architecture is named as such, not as a missing file."""
    folder = Path(shutil.copytree(builds["rpi4"], tmp_path / "build"))
    (folder / "runner").unlink()
    mine = runner_compile.runner_files(get_arch("x86_64"))
    shutil.copy(mine["runner"], folder / "runner")
    shutil.copy(mine["libcodesign.so"], folder / "lib")
    for path in runtime.runtime_libraries(get_arch("x86_64")).values():
        shutil.copy(path, folder / "lib")
    done = subprocess.run([folder / "runner", "test"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "network.so was built for aarch64, this program runs on x86_64" in done.stderr
    loader = [sys.executable, str(builds["rpi4"] / "codesign_load.py")]
    done = subprocess.run(loader, capture_output=True, text=True, check=False)
    assert "was built for aarch64, this is x86_64; build for this machine" in done.stderr


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "network.so").write_bytes(b"x"), "network.so is not the file that was"),
        (lambda f: (f / "lib" / "libtvm_ffi.so").unlink(), "libtvm_ffi.so is missing from the"),
        (lambda f: (f / MANIFEST).write_text("{"), "cannot read .*manifest.json"),
        (lambda f: (f / MANIFEST).unlink(), "no manifest.json in it"),
        (
            lambda f: (f / MANIFEST).write_text(
                (f / MANIFEST).read_text().replace("f32[1,3,9,9]", "f32[")
            ),
            "the manifest has no valid inputs",
        ),
    ],
)
def test_damaged_folder(builds, tmp_path, damage, message) -> None:  # type: ignore[no-untyped-def]
    folder = Path(shutil.copytree(builds["rpi4"], tmp_path / "build"))
    damage(folder)
    with pytest.raises(InputError, match=message):
        target("rpi4").load(folder)


def test_the_runner_names_a_crash(builds: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(builds["rpi4"], tmp_path / "build"))
    loaded = target("rpi4").load(folder)
    (folder / "network.txt").write_text("nonsense")
    with pytest.raises(InputError, match="no description of a network; build again"):
        loaded.run(*random_inputs(network()))


def test_missing_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolNotFoundError, match="apt-get install g\\+\\+-aarch64-linux-gnu"):
        target("rpi4").build(network(), tmp_path / "build")
    assert "aarch64-c++ not found" in (target("rpi4").unavailable() or "")
    assert not (tmp_path / "build").exists()


def test_missing_emulator(
    builds: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolNotFoundError, match="apt-get install qemu-user") as error:
        target("rpi4").load(builds["rpi4"])
    assert error.value.exit_code == 4


def test_missing_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No wheel, no network: what to do is said, and nothing is left behind."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(ToolNotFoundError, match="could not be downloaded") as error:
        runtime.runtime_libraries(get_arch("aarch64"))
    assert "--platform manylinux_2_28_aarch64" in str(error.value)
    assert runtime.WHEELS_VARIABLE in str(error.value)
    monkeypatch.setenv(runtime.WHEELS_VARIABLE, str(tmp_path))
    with pytest.raises(ToolNotFoundError, match="holds no wheel apache_tvm"):
        runtime.runtime_libraries(get_arch("aarch64"))
    assert not list((tmp_path / "cache" / "codesign").rglob("*.so"))


def test_damaged_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(runtime.WHEELS_VARIABLE, str(tmp_path))
    for package in ("apache-tvm", "apache-tvm-ffi"):
        name = f"{package.replace('-', '_')}-{version(package)}-py3-none-any_aarch64.whl"
        (tmp_path / name).write_bytes(b"no zip")
    with pytest.raises(InputError, match="is damaged or no TVM wheel"):
        runtime.runtime_libraries(get_arch("aarch64"))


OWN = """
format = "codesign-board/1"
name = "mine"
description = "my own board"
[cpu]
arch = "aarch64"
mcpu = "cortex-a35"
features = []
cores = 2
clock_mhz = 1000
l2_kib = 256
[memory]
gb_per_s = 2.5
[emulation]
qemu_cpu = "cortex-a35"
"""


def test_own_board(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(OWN)
    board = Board("mine", "my own board", "aarch64", "cortex-a35", (), 2, 1000, 256, 2.5,
                  "cortex-a35")  # fmt: skip
    assert TARGETS.load(str(path))().board == board
    assert str(path) in TARGETS
    assert "mine" not in TARGETS
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert "mine" in list(TARGETS)
    assert TARGETS.load("mine")().board == board
    assert TARGETS.owner("mine") == str(path)
    path.write_text(OWN.replace('"mine"', '"rpi4"'))
    with pytest.raises(InputError, match="'rpi4' is taken by a target of codesign"):
        TARGETS.load(str(path))
    (tmp_path / "rpi4.toml").write_text(OWN)
    with pytest.raises(InputError, match="'rpi4' is defined twice: by codesign and by"):
        TARGETS.load("rpi4")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "none"))
    with pytest.raises(InputError, match="is no folder; correct or unset it"):
        list(TARGETS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("codesign-board/1", "other/2", "format: expected 'codesign-board/1', got 'other/2'"),
        ('name = "mine"', 'name = "My Board"', "name: expected lower-case letters"),
        ("features = []", 'features = ["sve"]', "cpu.features: expected a list of these: dotprod"),
        ("cores = 2", "cores = 2.5", "cpu.cores: expected a whole number, got 2.5"),
        ("clock_mhz = 1000", 'clock_mhz = "1 GHz"', "cpu.clock_mhz: expected a number above 0"),
        ("clock_mhz = 1000", "", "cpu.clock_mhz is missing; see docs/arm.md"),
        ('arch = "aarch64"', 'arch = "riscv64"', "cpu.arch: architecture 'riscv64' has no depl"),
        ("gb_per_s = 2.5", "gb_per_s = 0", "memory.gb_per_s: expected a number above 0, got 0"),
        ("[memory]", "[memory", "is no TOML"),
    ],
)
def test_wrong_board(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(OWN.replace(old, new))
    with pytest.raises(InputError, match=message.replace("[", "\\[").replace("(", "\\(")):
        read_board(path)


def test_no_such_board() -> None:
    with pytest.raises(InputError, match=r"board file none\.toml: no such file"):
        TARGETS.load("none.toml")


def test_latency_is_modelled() -> None:
    board = target("rpi4")
    assert board.latency_kind == "modelled"
    found = board.layer_latency(network())
    assert list(found) == ["first", "deep", "point", "last"]
    for name, macs in (("first", 16 * 27 * 81), ("last", 16 * 81 * 10)):
        assert found[name].median_ms >= board.latency_bound_ms(macs)
