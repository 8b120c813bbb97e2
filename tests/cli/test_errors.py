# SPDX-License-Identifier: Apache-2.0
"""Bad input: each case with its exit code and its exact message; nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from codesign.cli import main
from codesign.cli.app import app

Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Case:
    """A command line and what it must answer; ``{tmp}`` is the test's folder."""

    name: str
    arguments: str
    code: int
    message: str
    make: Callable[[Path], None] = lambda folder: None


def save_onnx(path: Path, nodes: list[onnx.NodeProto], weight: np.ndarray | None = None,
              shape: tuple[int, ...] = (1, 3, 8, 8)) -> None:  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [] if weight is None else [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    onnx.save(model, str(path))


CONV = [helper.make_node("Conv", ["x", "w"], ["y"], name="conv")]
WEIGHT = np.ones((4, 3, 3, 3), np.float32)


def truncated(folder: Path) -> None:
    save_onnx(folder / "cut.onnx", CONV, WEIGHT)
    path = folder / "cut.onnx"
    path.write_bytes(path.read_bytes()[:200])


def unknown_operators(folder: Path) -> None:
    nodes = [
        helper.make_node("Det", ["x"], ["a"], name="first"),
        helper.make_node("NonZero", ["a"], ["y"], name="second"),
    ]
    save_onnx(folder / "odd.onnx", nodes)


def nan_weights(folder: Path) -> None:
    weight = WEIGHT.copy()
    weight[1, 2, 0, 0] = np.nan
    save_onnx(folder / "nan.onnx", CONV, weight)


def zero_size(folder: Path) -> None:
    save_onnx(folder / "empty.onnx", CONV, WEIGHT, (1, 3, 0, 8))


def calib(folder: Path, x: np.ndarray) -> None:
    np.savez(folder / "calib.npz", x=x)


def nan_data(folder: Path) -> None:
    x = np.zeros((2, 1, 8, 8), np.float32)
    x[1, 0, 3, 4] = np.nan
    calib(folder, x)


DESIGN = "design zoo:digits --out {tmp}/out"

CASES = [
    Case("missing network", "design {tmp}/none.onnx --out {tmp}/out", 2,
         "network file '{tmp}/none.onnx' not found"),
    Case("unknown kind of network", "inspect resnet", 2,
         "network 'resnet' is not of a known kind; expected FILE.onnx, FILE.pt2, "
         "FILE.tflite, FILE.ir, zoo:NAME or package.module:factory"),
    Case("unknown zoo network", "inspect zoo:resnet19", 2, "did you mean 'resnet1"),
    Case("truncated ONNX", "inspect {tmp}/cut.onnx", 2,
         "network file '{tmp}/cut.onnx' is damaged or no ONNX file: it cannot be parsed; copy or "
         "export it again\n", truncated),
    Case("unknown operators", "inspect {tmp}/odd.onnx", 2,
         "network 'odd': 2 operators are not supported:\n"
         "  Det at 'first': the IR has no such operator; rewrite it with others\n"
         "  NonZero at 'second': the IR has no such operator; rewrite it with others\n",
         unknown_operators),
    Case("NaN weights", "inspect {tmp}/nan.onnx", 2,
         "network 'nan': tensor 'w' of layer 'conv' holds NaN or infinite values (1 of 108); "
         "retrain or repair the weights\n", nan_weights),
    Case("zero-size dimension", "inspect {tmp}/empty.onnx", 2,
         "network 'empty': input 'x' has an empty dimension: [1, 3, 0, 8]\n", zero_size),
    Case("wrong calibration shape", DESIGN + " --calib {tmp}/calib.npz", 2,
         "calibration file {tmp}/calib.npz, batch 0: input 'x' of digits takes [N, 1, 8, 8], "
         "got float32[2, 3, 8, 8]", lambda d: calib(d, np.zeros((2, 3, 8, 8), np.float32))),
    Case("NaN calibration data", DESIGN + " --calib {tmp}/calib.npz", 2,
         "calibration file {tmp}/calib.npz: array 'x' holds 1 values that are NaN or infinite, "
         "the first at [1, 0, 3, 4]", nan_data),
    Case("empty calibration data", DESIGN + " --calib {tmp}/calib.npz", 2,
         "calibration file {tmp}/calib.npz: array 'x' has no samples",
         lambda d: calib(d, np.zeros((0, 1, 8, 8), np.float32))),
    Case("missing calibration file", DESIGN + " --calib {tmp}/no.npz", 2,
         "--calib {tmp}/no.npz: no such file"),
    Case("impossible budget", DESIGN + " --max-size-kb 1", 3,
         "infeasible: this limit cannot hold: size <= 1000 (feasible from 12016, the others kept) "
         "(latency in ms, size in bytes; formats offered: w8a8, w4a8)"),
    Case("unknown target", DESIGN + " --target hosts", 2,
         "unknown target 'hosts'; did you mean 'host'? (known: "),
    Case("unwritable folder", "design zoo:digits --out {tmp}/file/out", 2,
         "output folder {tmp}/file/out: cannot be written (Not a directory); choose another with "
         "--out or change its permissions", lambda d: (d / "file").touch()),
    Case("unknown format", DESIGN + " --formats w8a8,int4", 2, "unknown number format 'int4'"),
    Case("unknown solver", DESIGN + " --solver gurobi", 2, "unknown solver 'gurobi'"),
    Case("unknown option", DESIGN + " --speed 9", 2, "No such option '--speed'"),
    Case("no design", "build {tmp}", 2,
         "{tmp}/design.json: no such file; make it with `codesign design NETWORK --out DIR`"),
    Case("missing text IR", "opt {tmp}/a.ir", 2, "{tmp}/a.ir: no such file"),
    Case("unknown pass", "opt {tmp}/a.ir --passes fuze", 2, "did you mean 'fuse'?"),
    Case("missing problem", "solve {tmp}/p.json", 2, "{tmp}/p.json"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_answered(case: Case, tmp_path: Path, capsys: Capture) -> None:
    case.make(tmp_path)
    before = {p.name for p in tmp_path.iterdir()}
    arguments = case.arguments.replace("{tmp}", str(tmp_path)).split()
    code = main(arguments)
    error = capsys.readouterr().err.rpartition("codesign: error: ")[2]
    assert case.message.replace("{tmp}", str(tmp_path)) in error
    assert code == case.code
    left = {p.name for p in tmp_path.rglob("*")} - before
    assert left <= {"out"}, "a failed command left files behind"


def test_errors_are_json_on_request(tmp_path: Path, capsys: Capture) -> None:
    code = main(["build", str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out) == {
        "error": f"{tmp_path}/design.json: no such file; make it with "
        "`codesign design NETWORK --out DIR`",
        "exit_code": code,
    }


PROBLEM = {
    "format": "codesign-problem/1",
    "name": "p",
    "choices": {"a": ["x", "y"], "b": ["x", "y"]},
    "metrics": {
        "loss": {"a": {"x": 0.5, "y": 0.1}, "b": {"x": 0.2, "y": 0.1}},
        "size": {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}},
    },
    "minimize": "loss",
    "limits": {"size": 3},
}


def test_solve_writes_the_solution(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "p.json").write_text(json.dumps(PROBLEM))
    assert main(["solve", str(tmp_path / "p.json"), "-o", str(tmp_path / "s.json")]) == 0
    solution = json.loads((tmp_path / "s.json").read_text())
    assert solution["format"] == "codesign-solution/1"
    assert solution["choices"] == {"a": "y", "b": "x"}
    assert (solution["status"], solution["objective"], solution["gap"]) == ("optimal", 0.3, 0.0)


def test_an_infeasible_problem_is_an_answer_with_code_3(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "p.json").write_text(json.dumps({**PROBLEM, "limits": {"size": 1}}))
    assert main(["solve", str(tmp_path / "p.json"), "-o", str(tmp_path / "s.json")]) == 3
    assert capsys.readouterr().err == (
        f"Solving {tmp_path}/p.json …\n"
        "codesign: error: infeasible: this limit cannot hold: size <= 1 (feasible from 2, the "
        "others kept)\n"
    )
    assert json.loads((tmp_path / "s.json").read_text())["status"] == "infeasible"


@pytest.mark.parametrize("kind", ["passes", "targets", "solvers", "formats"])
def test_list_names_everything_with_availability(kind: str, capsys: Capture) -> None:
    assert main(["list", kind, "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["entries"]
    assert entries
    for entry in entries:
        assert entry["available"] == (entry["why_not"] == "")
        assert entry["description"]


def test_inspect_counts_what_is_published(capsys: Capture) -> None:
    assert main(["inspect", "zoo:resnet8", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["macs"] == 12_501_632
    assert data["unsupported"] == []


def test_opt_reads_what_inspect_prints(tmp_path: Path, capsys: Capture) -> None:
    from codesign.frontend import load_network
    from codesign.ir.text import parse_graph, print_graph

    file = tmp_path / "digits.ir"
    file.write_text(print_graph(load_network("zoo:digits").graph))
    assert main(["opt", str(file), "--passes", "fold-batch-norm,fuse,eliminate-dead-code"]) == 0
    found = parse_graph(capsys.readouterr().out)
    assert not [n for n in found.nodes.values() if n.op.name in ("batch_norm", "activation")]
    assert main(["opt", str(file), "--passes", ""]) == 0
    assert parse_graph(capsys.readouterr().out) == parse_graph(file.read_text())


@pytest.mark.parametrize("command", sorted(app.commands))
def test_every_command_takes_the_shared_options(command: str) -> None:
    names = {name for param in app.commands[command].params for name in param.opts}
    assert {"--calib", "--eval", "--seed", "--time-limit", "--jobs", "--json"} <= names
