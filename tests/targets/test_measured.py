# SPDX-License-Identifier: Apache-2.0
"""Layers measured alone: extraction, deduplication, and a database that survives its users."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from codesign.errors import InputError
from codesign.ir import Graph, GraphBuilder, TensorType, interpret, ops
from codesign.ir.types import DType
from codesign.targets.base import Timing
from codesign.targets.host import HostTarget
from codesign.targets.layers import extract_layer, extract_layers, random_inputs, structure_key
from codesign.targets.measured import MeasuredDatabase, measure_layers
from tests.targets.checks import assert_exact, integers, kind


def block(bits: int = 8, seed: int = 0) -> Graph:
    """Three layers; the first two have one structure, the third adds a residual."""
    b = GraphBuilder("block")
    u, s16 = DType("unsigned", bits), DType.parse("s16")
    x = b.input("x", TensorType((1, 8, 6, 6), u))

    def constants(seed: int) -> list[str]:
        m = integers("s8", 8, seed=seed).astype(np.int32) + 40000
        return [b.constant(m), b.constant(np.full(8, 24, np.int32))]

    def conv(value: str, name: str, seed: int) -> str:
        w = b.constant(integers("s8", 8, 8, 3, 3, seed=seed))
        bias = b.constant(integers("s16", 8, seed=seed).astype(np.int32))
        return b.add(ops.Conv2d(padding=(1, 1, 1, 1)), [value, w, bias], name)

    for i in range(2):
        y = conv(x, f"conv{i}", seed + i)
        x = b.add(ops.Requantize(u, 0, u.max - i, 1), [y, *constants(i)], f"out{i}")
    total = b.add(ops.Requantize(s16, -32768, 32767, 1), [conv(x, "conv2", seed), *constants(3)])
    half = [b.constant(np.array(1 << 15, np.int32)), b.constant(np.array(12, np.int32))]
    residual = b.add(ops.Requantize(s16, -32768, 32767), [x, *half])
    added = b.add(ops.Add(), [total, residual])
    return b.finish([b.add(ops.Clip(u, 0, u.max), [added], "end")])


def test_extracted_layers_make_the_network() -> None:
    graph = block()
    layers = extract_layers(graph)
    assert list(layers) == ["conv0", "conv1", "conv2"]
    x = random_inputs(graph)[0]
    value = x
    for name in ("conv0", "conv1"):
        (value,) = interpret.run(layers[name], value)
    assert len(layers["conv2"].inputs) == 1  # the residual is the layer's own input
    (found,) = interpret.run(layers["conv2"], value)
    np.testing.assert_array_equal(found, interpret.run(graph, x)[0])
    for layer in layers.values():
        assert_exact(layer)


def test_extract_by_name() -> None:
    assert extract_layer(block(), "conv1") == extract_layers(block())["conv1"]
    with pytest.raises(InputError, match=r"^block has no layer 'end'$"):
        extract_layer(block(), "end")


def test_structure_key() -> None:
    layers = extract_layers(block())
    assert structure_key(layers["conv0"]) == structure_key(layers["conv1"])
    assert structure_key(layers["conv0"]) != structure_key(layers["conv2"])
    narrow = extract_layers(block(4))
    assert structure_key(narrow["conv0"]) != structure_key(layers["conv0"])

    def stored(dtype: DType) -> str:
        return str(dtype.numpy)

    assert structure_key(narrow["conv0"], stored) == structure_key(layers["conv0"], stored)


def test_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builds: list[str] = []
    compile_layer = HostTarget.layer_runner

    def counted(self: HostTarget, graph: Graph) -> object:
        builds.append(graph.name)
        return compile_layer(self, graph)

    monkeypatch.setattr(HostTarget, "layer_runner", counted)
    target = HostTarget(database=tmp_path / "db" / "measured.sqlite")
    seen: list[tuple[str, int, int]] = []
    first = measure_layers(target, block(), target.database, lambda *step: seen.append(step))
    assert seen == [("conv0", 0, 3), ("conv1", 1, 3), ("conv2", 2, 3)]
    assert builds == ["conv0", "conv2"]
    assert first["conv0"] == first["conv1"]
    assert all(timing.samples == 20 and timing.min_ms > 0 for timing in first.values())
    # Other weights: the same code, nothing is measured again.
    assert target.layer_latency(block(seed=3)) == first
    assert builds == ["conv0", "conv2"]
    other = HostTarget(threads=1, database=target.database)
    other.layer_latency(block())
    assert builds == ["conv0", "conv2"] * 2


def test_database(tmp_path: Path) -> None:
    database = MeasuredDatabase(tmp_path / "m.sqlite")
    assert database.get("k", "m") is None
    timing = Timing((1.5, 0.1, 1 / 3))
    database.put("k", "m", "conv", timing)
    assert database.get("k", "m") == timing
    assert database.get("k", "other") is None
    database.put("k", "m", "conv", Timing((2.0,)))
    assert database.get("k", "m") == Timing((2.0,))
    assert len(database) == 1


def test_damaged_file_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    path.write_bytes(b"torn" * 1000)
    database = MeasuredDatabase(path)
    database.put("k", "m", "conv", Timing((1.0,)))
    assert database.get("k", "m") == Timing((1.0,))
    (kept,) = tmp_path.glob("m.sqlite.damaged-*")
    assert kept.read_bytes() == b"torn" * 1000


def test_damaged_row_is_measured_again(tmp_path: Path) -> None:
    database = MeasuredDatabase(tmp_path / "m.sqlite")
    database.put("k", "m", "conv", Timing((1.0,)))
    with sqlite3.connect(database.path) as connection:
        connection.execute("UPDATE measured SET samples_ms = '[1.0, '")
    connection.close()
    assert database.get("k", "m") is None


def test_unusable_path(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    path = file / "m.sqlite"
    message = f"cannot open the database of measured layers {path}: "
    with pytest.raises(InputError, match=f"^{re.escape(message)}.*; name another or free"):
        MeasuredDatabase(path).get("k", "m")


def test_concurrent_writers(tmp_path: Path) -> None:
    """Four processes write 50 entries each into a file none of them has made yet."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from codesign.targets.base import Timing\n"
        "from codesign.targets.measured import MeasuredDatabase\n"
        "database = MeasuredDatabase(Path(sys.argv[1]))\n"
        "for i in range(50):\n"
        "    database.put(f'{sys.argv[2]}-{i}', 'm', 'conv', Timing((float(i),)))\n"
    )
    path = tmp_path / "m.sqlite"
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(n)]) for n in range(4)
    ]
    assert [process.wait() for process in running] == [0] * 4
    database = MeasuredDatabase(path)
    assert len(database) == 200
    assert database.get("3-49", "m") == Timing((49.0,))


def test_killed_writer(tmp_path: Path) -> None:
    """What was committed before the kill is there, and the file goes on working."""
    code = (
        "import os, sqlite3, sys\n"
        "from pathlib import Path\n"
        "from codesign.targets.base import Timing\n"
        "from codesign.targets.measured import MeasuredDatabase\n"
        "database = MeasuredDatabase(Path(sys.argv[1]))\n"
        "database.put('done', 'm', 'conv', Timing((1.0,)))\n"
        "connection = sqlite3.connect(sys.argv[1])\n"
        "connection.execute('BEGIN IMMEDIATE')\n"
        "connection.execute(\"INSERT INTO measured VALUES ('torn', 'm', '[1', 'x', 0)\")\n"
        "os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "m.sqlite"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    database = MeasuredDatabase(path)
    assert database.get("done", "m") == Timing((1.0,))
    assert database.get("torn", "m") is None
    database.put("next", "m", "conv", Timing((2.0,)))
    assert len(database) == 2


def test_float_layers() -> None:
    b = GraphBuilder("float")
    x = b.input("x", kind("f32[1,4,6,6]"))
    w = b.constant(np.ones((8, 4, 3, 3), np.float32))
    conv = b.add(ops.Conv2d(bias=False, activation="relu"), [x, w], "conv")
    layers = extract_layers(b.finish([conv]))
    assert [n.op.name for n in layers["conv"].nodes.values()] == ["input", "constant", "conv2d"]
