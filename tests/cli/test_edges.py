# SPDX-License-Identifier: Apache-2.0
"""What scripts run into: one JSON document, pipes that close, user code that misbehaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import codesign
from codesign.cli import main
from codesign.errors import InputError
from tests.cli.test_errors import PROBLEM

Capture = pytest.CaptureFixture[str]


def test_an_infeasible_problem_prints_one_document(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "p.json").write_text(json.dumps({**PROBLEM, "limits": {"size": 1}}))
    assert main(["solve", str(tmp_path / "p.json"), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["status"] == "infeasible"


@pytest.mark.parametrize("arguments", [["list", "passes"], ["inspect", "zoo:digits"]])
def test_a_reader_that_stops_is_no_failure(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)  # as in `codesign list passes | true`
    process = subprocess.run(
        [sys.executable, "-m", "codesign", *arguments],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write)
    assert process.returncode == 0
    assert "Traceback" not in process.stderr
    assert "BrokenPipe" not in process.stderr


def test_help_and_version_end_well(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert main(["design", "--help"]) == 0
    assert codesign.__version__ in capsys.readouterr().out


def save_array(folder: Path) -> None:
    np.save(folder / "x.npy", np.zeros((2, 1, 8, 8), np.float32))


def save_number(folder: Path) -> None:
    np.savez(folder / "x.npz", x=np.float32(1))


@pytest.mark.parametrize(
    ("arguments", "make", "message"),
    [
        ("--calib {tmp}/x.npy", save_array,
         "{tmp}/x.npy holds a single array; write it with np.savez(FILE, x=...)"),
        ("--eval {tmp}/x.npy", save_array,
         "{tmp}/x.npy holds a single array; write it with np.savez(FILE, x=..., y=...)"),
        ("--calib {tmp}/x.npz", save_number,
         "calibration file {tmp}/x.npz: array 'x' is a single number; expected one row a sample"),
        ("--seed -1", lambda folder: None,
         "Invalid value for '--seed': -1 is not in the range x>=0."),
    ],
)  # fmt: skip
def test_odd_data_and_seeds(
    arguments: str, make: Callable[[Path], None], message: str, tmp_path: Path, capsys: Capture
) -> None:
    make(tmp_path)
    given = arguments.replace("{tmp}", str(tmp_path)).split()
    assert main(["design", "zoo:digits", "--out", str(tmp_path / "out"), *given]) == 2
    error = capsys.readouterr().err.rpartition("codesign: error: ")[2]
    assert error == message.replace("{tmp}", str(tmp_path)) + "\n"


def test_a_factory_may_print_and_may_not_exit(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_edge_nets.py").write_text(
        "import sys, torch\n"
        "print('loading')\n"
        "def talks():\n"
        "    print('making it')\n"
        "    return torch.nn.Linear(3, 2), torch.zeros(1, 3)\n"
        "def leaves():\n"
        "    sys.exit(7)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "my_edge_nets:talks", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["macs"] == 6
    assert main(["inspect", "my_edge_nets:leaves"]) == 2
    assert capsys.readouterr().err.endswith(
        "codesign: error: network 'my_edge_nets:leaves': leaves() raised SystemExit: 7\n"
    )


def test_the_api_has_the_verbs_of_the_command_line() -> None:
    from codesign.cli.app import app

    for verb in app.commands:
        assert callable(getattr(codesign, verb)), verb
        assert verb in codesign.__all__


def test_list_refuses_unknown_kinds() -> None:
    with pytest.raises(InputError) as caught:
        codesign.list("pass")
    assert str(caught.value) == (
        "cannot list 'pass'; expected one of passes, targets, solvers, formats"
    )


def test_an_output_in_no_folder_is_refused(tmp_path: Path, capsys: Capture) -> None:
    from codesign.frontend import load_network
    from codesign.ir.text import print_graph

    (tmp_path / "a.ir").write_text(print_graph(load_network("zoo:digits").graph))
    out = tmp_path / "none" / "b.ir"
    assert main(["opt", str(tmp_path / "a.ir"), "-o", str(out)]) == 2
    assert capsys.readouterr().err == (
        f"codesign: error: {out}: cannot be written (No such file or directory: folder "
        f"{out.parent}); create the folder, change its permissions or choose another\n"
    )


def test_an_integer_network_is_no_start(tmp_path: Path, capsys: Capture) -> None:
    assert main(["design", "zoo:digits", "--out", str(tmp_path)]) == 0
    network = tmp_path / "integer.ir"
    assert main(["design", str(network), "--out", str(tmp_path / "again")]) == 2
    assert capsys.readouterr().err.endswith(
        f"codesign: error: {network}: layer 'conv1' has s4 weights already; give the float "
        "network, or one quantized with QDQ pairs\n"
    )
    assert main(["verify", str(tmp_path)]) == 0
    assert (
        f"- tvm-host     skipped  not built yet; make it with `codesign build {tmp_path}`"
        in capsys.readouterr().out
    )
