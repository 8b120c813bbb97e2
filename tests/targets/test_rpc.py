# SPDX-License-Identifier: Apache-2.0
"""Devices behind a tracker, proven on loopback: run, time, and go on after one vanished."""

from __future__ import annotations

import gc
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import codesign
from codesign.errors import InputError, ToolNotFoundError
from codesign.flow.report.data import gather
from codesign.frontend import load_network
from codesign.ir.graph import Graph
from codesign.ir.interpret import run
from codesign.passes import prepare
from codesign.quant import calibrate, load_format, quantize_graph
from codesign.targets import measured
from codesign.targets.base import Timing
from codesign.targets.host import HostTarget
from codesign.targets.layers import random_inputs
from codesign.targets.measured import MeasuredDatabase
from codesign.targets.rpc import Device, RemoteTarget
from codesign.targets.rpc.serve import warning
from tests.support.served import KEY, Served


@pytest.fixture(scope="module")
def integer() -> Graph:
    graph = prepare().run(load_network("zoo:digits").graph).graph
    ranges = calibrate(graph, [random_inputs(graph)[0]])
    formats = {node.name: load_format("w8a8") for node in graph.layers()}
    return quantize_graph(graph, ranges, formats).graph


def test_a_build_runs_and_is_timed_there(served: Served, integer: Graph, tmp_path: Path) -> None:
    assert re.fullmatch(r"server on 127\.0\.0\.1:\d+", served.said)
    target = RemoteTarget(HostTarget(), served.device, tmp_path / "measured.sqlite")
    target.build(integer, tmp_path / "build")
    runner = target.load(tmp_path / "build")
    inputs = random_inputs(integer)
    assert np.array_equal(runner.run(*inputs)[0], run(integer, *inputs)[0])
    assert runner.time(inputs, repeats=3).samples == 3
    timings = target.layer_latency(integer)
    assert set(timings) == {node.name for node in integer.layers()}
    # a session that was lost is opened again, though cycles of objects still hold the old one
    cycle: list[Any] = [served.device.session()]
    cycle.append(cycle)
    del cycle
    gc.disable()
    try:
        served.device.forget()
        assert np.array_equal(runner.run(*inputs)[0], run(integer, *inputs)[0])
    finally:
        gc.enable()


def test_the_command_measures_there(served: Served, tmp_path: Path) -> None:
    codesign.design("zoo:digits", tmp_path / "out", max_size_kb=15)
    found = codesign.measure(tmp_path / "out", rpc=served.device.address, rpc_key=KEY)
    assert found.machine == f"remote device 'loopback' at {served.device.address}"
    assert found.network_ms is not None
    assert found.network_ms > 0
    assert gather(tmp_path / "out")["latency_kind"] == "measured on a remote device"


def test_vanished_device_loses_nothing_and_work_resumes(
    served: Served, integer: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "measured.sqlite"
    target = RemoteTarget(HostTarget(), served.device, database)
    real = measured._measure
    count = 0

    def dying(target: Any, layer: Graph) -> Timing:
        nonlocal count
        count += 1
        if count == 3:
            served.kill()
        return real(target, layer)

    monkeypatch.setattr(measured, "_measure", dying)
    with pytest.raises(ToolNotFoundError, match=r"device|tracker"):
        target.layer_latency(integer)
    assert len(MeasuredDatabase(database)) == 2  # what was measured is kept
    served.start()
    assert set(target.layer_latency(integer)) == {node.name for node in integer.layers()}
    assert count == 3 + len(MeasuredDatabase(database)) - 2  # only the rest was measured


def test_what_is_missing_is_named(tracker: int) -> None:
    with pytest.raises(ToolNotFoundError, match=r"has no device 'rpi9' \(registered: .*serve"):
        Device("127.0.0.1", tracker, "rpi9").session()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ToolNotFoundError, match="no RPC tracker answers at 127"):
        Device("127.0.0.1", port, "rpi4").session()


@pytest.mark.parametrize(
    ("address", "key", "message"),
    [
        ("board", "rpi4", "expected the tracker's HOST:PORT"),
        ("board:0", "rpi4", "expected the tracker's HOST:PORT"),
        ("board:9190", None, "name the device with --rpc-key"),
    ],
)
def test_wrong_addresses(address: str, key: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Device.parse(address, key)


def test_a_key_alone_is_no_device(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="also give --rpc"):
        codesign.design("zoo:digits", tmp_path / "out", rpc_key="rpi4")


def test_only_loopback_is_silent() -> None:
    assert warning("127.0.0.1") is None
    assert "asks for no password" in (warning("0.0.0.0") or "")
