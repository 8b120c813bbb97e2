# SPDX-License-Identifier: Apache-2.0
"""ONNX models to the IR: the same results as onnxruntime, operator by operator and whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from codesign.errors import InputError, UnsupportedError
from codesign.frontend import from_onnx
from codesign.ir import ops
from codesign.ir.graph import Array
from tests.frontend.compare import (
    check,
    check_onnx,
    outputs,
    to_onnx,
    to_onnx_by_trace,
)  # fmt: skip
from tests.support.networks import random_network

F, I = TensorProto.FLOAT, TensorProto.INT64  # noqa: E741
RNG = np.random.default_rng(0)


def weights(*shape: int) -> Array:
    """Normal float32 numbers."""
    return RNG.standard_normal(shape).astype(np.float32)


def model(
    nodes: list[onnx.NodeProto],
    shape: tuple[int | str | None, ...],
    opset: int = 18,
    kind: int = F,
    **constants: Any,
) -> onnx.ModelProto:
    """A model from input x to the last node's result, called y."""
    stored = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(
        nodes, "test", [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", F, None)], stored,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def node(kind: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    """A node; ``inputs`` are names with spaces between, ``-`` for one that is left out."""
    names = ["" if n == "-" else n for n in inputs.split()]
    return helper.make_node(kind, names, output.split(), f"{kind}_of_{output}", **attributes)


IMAGE = (2, 4, 7, 9)
CASES: dict[str, tuple[list[onnx.NodeProto], dict[str, Any]]] = {
    "conv same upper": (
        [node("Conv", "x w b", auto_pad="SAME_UPPER", strides=[2, 2])],
        {"w": weights(6, 4, 3, 4), "b": weights(6)},
    ),
    "conv same lower": ([node("Conv", "x w", auto_pad="SAME_LOWER")], {"w": weights(6, 4, 4, 2)}),
    "conv valid": ([node("Conv", "x w", auto_pad="VALID", group=2)], {"w": weights(6, 2, 3, 3)}),
    "conv pads": (
        [node("Conv", "x w", pads=[0, 1, 2, 3], dilations=[2, 1])], {"w": weights(6, 4, 3, 3)}
    ),
    "batch norm": (
        [node("BatchNormalization", "x g b m v", epsilon=1e-3)],
        {"g": weights(4), "b": weights(4), "m": weights(4), "v": np.abs(weights(4))},
    ),
    "max pool same": ([node("MaxPool", "x", kernel_shape=[2, 3], auto_pad="SAME_UPPER")], {}),
    "max pool dilated": (
        [node("MaxPool", "x", kernel_shape=[3, 2], dilations=[2, 3], pads=[1, 0, 2, 1])], {}
    ),
    "avg pool": (
        [node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 0, 1, 2], strides=[2, 2])], {}
    ),
    "avg pool counting pads": (
        [node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)],
        {},
    ),
    "avg pool ceil": (
        [node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)], {}
    ),
    "global avg": ([node("GlobalAveragePool", "x")], {}),
    "global max": ([node("GlobalMaxPool", "x")], {}),
    "reduce mean": ([node("ReduceMean", "x a", keepdims=0)], {"a": [1, -1]}),
    "reduce max": ([node("ReduceMax", "x a")], {"a": [2]}),
    "reduce sum": ([node("ReduceSum", "x")], {}),
    "reduce nothing": ([node("ReduceSum", "x", noop_with_empty_axes=1)], {}),
    "clip": ([node("Clip", "x l h")], {"l": np.float32(-0.5), "h": np.float32(0.75)}),
    "clip above": ([node("Clip", "x - h")], {"h": np.float32(0.5)}),
    "clip to infinity": ([node("Clip", "x l h")], {"l": np.float32(0), "h": np.float32(np.inf)}),
    "relu6": ([node("Clip", "x l h")], {"l": np.float32(0), "h": np.float32(6)}),
    "max": ([node("Max", "c x")], {"c": np.float32(0.25)}),
    "min": ([node("Min", "x c")], {"c": np.float32(0.25)}),
    "hard sigmoid": ([node("HardSigmoid", "x")], {}),
    "hard sigmoid, other": ([node("HardSigmoid", "x", alpha=0.3, beta=0.2)], {}),
    "hard swish": ([node("HardSwish", "x")], {}),
    "leaky": ([node("LeakyRelu", "x", alpha=0.2)], {}),
    "prelu": ([node("PRelu", "x c")], {"c": np.float32(0.25)}),
    "sub, div": ([node("Sub", "x c", "d"), node("Div", "d e")], {"c": weights(4, 1, 1), "e": 3.0}),
    "constant minus": ([node("Sub", "c x", "d"), node("Sub", "x d")], {"c": weights(9)}),
    "pow, neg": ([node("Pow", "x c", "p"), node("Neg", "p")], {"c": np.float32(3)}),
    "sum": ([node("Sum", "x c x")], {"c": weights(1, 4, 1, 1)}),
    "softmax": ([node("Softmax", "x", axis=1)], {}),
    "layer norm": (
        [node("LayerNormalization", "x g b", axis=-2)], {"g": weights(7, 9), "b": weights(7, 9)}
    ),
    "matmul": ([node("MatMul", "x w", "p"), node("Add", "p b")],
               {"w": weights(9, 5), "b": weights(5)}),
    "matmul on the left": ([node("MatMul", "w x")], {"w": weights(5, 7)}),
    "gemm": (
        [node("Flatten", "x", "f", axis=2), node("Gemm", "f w b")],
        {"w": weights(63, 5), "b": weights(1, 5)},
    ),
    "gemm transposed": (
        [node("Flatten", "x", "f", axis=-2), node("Gemm", "f w b", transB=1)],
        {"w": weights(5, 63), "b": np.float32(0.5)},
    ),
    "shape arithmetic": (
        [
            node("Shape", "x", "s"), node("Gather", "s zero", "n"), node("Unsqueeze", "n ax", "n1"),
            node("Concat", "n1 minus", "to", axis=0), node("Reshape", "x to"),
        ],
        {"zero": 0, "ax": [0], "minus": [-1]},
    ),
    "cast chain": (
        [
            node("Shape", "x", "s", start=2), node("Cast", "s", "f", to=F),
            node("Mul", "f two", "g"), node("Cast", "g", "h", to=I),
            node("Concat", "nc h", "sizes", axis=0), node("Resize", "x - - sizes"),
        ],
        {"two": np.float32(2), "nc": [2, 4]},
    ),
    "reshape with zero": ([node("Reshape", "x to")], {"to": [0, 0, -1]}),
    "squeeze": ([node("Unsqueeze", "x a", "u"), node("Squeeze", "u b")], {"a": [0, -1], "b": [0]}),
    "squeeze all": ([node("Slice", "x o p q", "s"), node("Squeeze", "s")],
                    {"o": [0], "p": [1], "q": [1]}),
    "transpose": ([node("Transpose", "x")], {}),
    "expand": ([node("Slice", "x o p q", "s"), node("Expand", "s to")],
               {"o": [0], "p": [1], "q": [2], "to": [3, 1]}),
    "split": ([node("Split", "x s", "a b", axis=2), node("Concat", "b a", axis=-2)], {"s": [3, 4]}),
    "split in equal parts": (
        [node("Split", "x", "a b", axis=3, num_outputs=2), node("Concat", "b a", axis=3)], {}
    ),
    "slice": ([node("Slice", "x o p q r")],
              {"o": [-5, 0], "p": [99, -1], "q": [3, 1], "r": [2, 1]}),
    "gather": ([node("Gather", "x c", axis=1)], {"c": -1}),
    "gather a run": ([node("Gather", "x c", axis=3)], {"c": [2, 3, 4]}),
    "pad": ([node("Pad", "x p v")], {"p": [0, 0, 1, 2, 0, 0, 3, 0], "v": np.float32(1.5)}),
    "pad axes": ([node("Pad", "x p - a", mode="reflect")], {"p": [1, 2, 3, 1], "a": [2, -1]}),
    "pad edge, cut": ([node("Pad", "x p", mode="edge")], {"p": [0, 0, 1, -2, 0, 0, 0, 3]}),
    "depth to space": ([node("DepthToSpace", "x", blocksize=2)], {}),
    "depth to space CRD": ([node("DepthToSpace", "x", blocksize=2, mode="CRD")], {}),
    "dropout, identity": ([node("Dropout", "x", "d"), node("Identity", "d")], {}),
    "gelu of erf": (
        [
            node("Div", "x root", "d"), node("Erf", "d", "e"), node("Add", "e one", "f"),
            node("Mul", "x f", "g"), node("Mul", "g half"),
        ],
        {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)},
    ),
    "gelu of erf, otherwise": (
        [
            node("Mul", "x root", "d"), node("Erf", "d", "e"), node("Add", "one e", "f"),
            node("Mul", "half x", "h"), node("Mul", "f h"),
        ],
        {"root": np.float32(0.5**0.5), "one": np.float32(1), "half": np.float32(0.5)},
    ),
    "gelu of erf, halved first": (
        [
            node("Mul", "x root", "d"), node("Erf", "d", "e"), node("Add", "one e", "f"),
            node("Mul", "half f", "h"), node("Mul", "h x"),
        ],
        {"root": np.float32(0.5**0.5), "one": np.float32(1), "half": np.float32(0.5)},
    ),
    "layer norm in pieces": (
        [
            node("ReduceMean", "x ax", "m"), node("Sub", "x m", "d"), node("Pow", "d two", "q"),
            node("ReduceMean", "q ax", "v"), node("Add", "v eps", "w"), node("Sqrt", "w", "s"),
            node("Div", "d s", "n"), node("Mul", "n g", "o"), node("Add", "o b"),
        ],
        {"ax": [-1], "two": np.float32(2), "eps": np.float32(1e-3), "g": weights(9),
         "b": weights(9)},
    ),
}  # fmt: skip
for _mode in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
    CASES[f"linear {_mode}"] = (
        [node("Resize", "x - - s", mode="linear", coordinate_transformation_mode=_mode)],
        {"s": [2, 4, 10, 5]},
    )
    for _round in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil"):
        CASES[f"nearest {_mode} {_round}"] = (
            [node("Resize", "x - s", mode="nearest", nearest_mode=_round,
                  coordinate_transformation_mode=_mode)],
            {"s": np.array([1, 1, 2, 3], np.float32)},
        )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operators(name: str) -> None:
    nodes, constants = CASES[name]
    typed = {
        k: np.asarray(v, np.int64) if np.asarray(v).dtype.kind == "i" else np.asarray(v, np.float32)
        for k, v in constants.items()
    }
    check_onnx(model(nodes, IMAGE, 18, F, **typed), weights(*IMAGE))


def test_patterns_become_one_operator() -> None:
    for name in ("gelu of erf", "gelu of erf, otherwise", "gelu of erf, halved first"):
        graph = from_onnx(model(CASES[name][0], IMAGE, **CASES[name][1]))
        assert [type(n.op) for n in graph.nodes.values()] == [ops.Input, ops.Activation]
    case = CASES["layer norm in pieces"]
    graph = from_onnx(model(case[0], IMAGE, **case[1]))
    assert [type(n.op) for n in graph.nodes.values() if n.inputs] == [ops.LayerNorm]
    case = CASES["matmul"]
    graph = from_onnx(model(case[0], IMAGE, **case[1]))
    assert [n.op for n in graph.nodes.values() if n.inputs] == [ops.Linear(bias=True)]


def test_gelu_operator() -> None:
    for approximate in ("none", "tanh"):
        nodes = [node("Gelu", "x", approximate=approximate)]
        check_onnx(model(nodes, IMAGE, 20), weights(*IMAGE))


@pytest.mark.parametrize("opset", [13, 15, 17])
def test_older_operator_sets(opset: int) -> None:
    """Networks of the older exporter against torch (onnxruntime refuses some of its models)."""
    for seed in range(6):
        module, inputs = random_network(100 * opset + seed, quantizable_only=True)
        graph = from_onnx(to_onnx_by_trace(module, inputs, opset))
        check(graph, [inputs[0].numpy()], outputs(module, inputs))


def _generated(seed: int) -> None:
    module, inputs = random_network(seed, quantizable_only=seed % 2 == 0, undisputed=True)
    graph = check_onnx(to_onnx(module, inputs), inputs[0].numpy())
    check(graph, [inputs[0].numpy()], outputs(module, inputs))


@pytest.mark.parametrize("seed", range(6))
def test_generated_networks(seed: int) -> None:
    _generated(seed)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_500_generated_networks() -> None:
    for seed in range(2000, 2500):
        _generated(seed)


def test_names_are_module_paths() -> None:
    from tests.frontend.test_torch import Block, image

    graph = check_onnx(to_onnx(Block().eval(), (image(1, 4, 5, 5),)), image(1, 4, 5, 5).numpy())
    names = [n.name for n in graph.nodes.values() if n.inputs]
    sources = [graph.nodes[name].source for name in names]
    # the exporter folds the batch norm into the convolution and keeps the former's place
    assert (names, sources) == (["bn1", "add", "relu"], ["bn1", "add", "relu"])


def test_all_unsupported_operators_are_listed_at_once() -> None:
    nodes = [
        node("Mish", "x", "a"), node("Relu", "a", "b"), node("Erf", "b", "c"),
        node("CumSum", "x ax", "d"), node("Erf", "x", "e"),
        node("Resize", "x - s", "g", mode="cubic"), node("Add", "c g"),
    ]  # fmt: skip
    broken = model(nodes, IMAGE, 18, ax=np.int64(1), s=np.array([1, 1, 2, 2], np.float32))
    broken.graph.node.append(helper.make_node("Fast", ["y"], ["z"], domain="my.ops"))
    broken.opset_import.append(helper.make_opsetid("my.ops", 1))
    with pytest.raises(UnsupportedError) as caught:
        from_onnx(broken, name="odd")
    assert str(caught.value) == (
        "network 'odd': 5 operators are not supported:\n"
        "  Mish at 'Mish_of_a': the IR has no mish; use silu or hardswish\n"
        "  CumSum at 'CumSum_of_d': the IR has no such operator; rewrite it with others\n"
        "  Erf at 'Erf_of_e': Erf outside of a gelu x * (1 + erf(x / sqrt(2))) / 2\n"
        "  Resize at 'Resize_of_g': Resize mode 'cubic'; nearest and linear can be taken\n"
        "  my.ops.Fast at 'z': the IR has no such operator; rewrite it with others"
    )


def test_dynamic_batch() -> None:
    nodes = [node("Flatten", "x", "f"), node("Gemm", "f w", transB=1)]
    dynamic = model(nodes, ("n", 4, 7, 9), w=weights(3, 252))
    for batch in (1, 5):
        graph = from_onnx(dynamic, batch=batch)
        assert graph.type("x").shape == (batch, 4, 7, 9)
        assert graph.type(graph.outputs[0]).shape == (batch, 3)


def test_other_dynamic_dimensions() -> None:
    for dim, label in (("height", " ('height')"), (None, "")):
        with pytest.raises(InputError) as caught:
            from_onnx(model([node("Relu", "x")], ("n", 4, dim, 9)), name="net")
        assert str(caught.value) == (
            f"network 'net': dimension 2{label} of input 'x' is dynamic; only the batch "
            "(dimension 0) may be; export with fixed sizes"
        )


def test_bad_models() -> None:
    def message(made: onnx.ModelProto) -> str:
        with pytest.raises(InputError) as caught:
            from_onnx(made, name="net")
        return str(caught.value)

    assert message(model([node("Relu", "x")], (1, 4, 0, 9))) == (
        "network 'net': input 'x' has an empty dimension: [1, 4, 0, 9]"
    )
    assert message(model([node("Relu", "x")], (1, 4), kind=I)) == (
        "network 'net': input 'x' is INT64, expected one of FLOAT, UINT8, INT8, INT32"
    )
    assert message(model([node("Relu", "x")], (1, 4), opset=12)) == (
        "network 'net' uses ONNX operator set 12; 13 or later is needed: convert it with "
        "onnx.version_converter.convert_version(model, 13)"
    )
    assert message(onnx.ModelProto()) == "network 'net' holds no graph; export it again"
    assert message(model([node("Relu", "nowhere")], (1, 4))).startswith(
        "network 'net' is not valid ONNX: Nodes in a graph must be topologically sorted"
    )
    bad = weights(6, 4, 3, 3)
    bad[0, 1, 2, 2] = np.nan
    assert message(model([node("Conv", "x w")], IMAGE, w=bad)) == (
        "network 'net': tensor 'w' of layer 'Conv_of_y' holds NaN or infinite values (1 of 216); "
        "retrain or repair the weights"
    )
    assert message(model([node("Conv", "x w")], IMAGE, w=weights(0, 4, 3, 3))) == (
        "network 'net': tensor 'w' of layer 'Conv_of_y' has an empty dimension: [0, 4, 3, 3]"
    )
    assert message(model([node("Conv", "x w")], IMAGE, w=weights(6, 3, 3, 3))).startswith(
        "network 'net': 1 operator is not supported:\n  Conv at 'Conv_of_y': net: node 'Conv_of_y' "
        "(conv2d) from 'Conv_of_y': conv2d input has 4 channels"
    )


def test_the_callers_model_stays_as_it_is() -> None:
    made = model([node("Conv", "x w")], IMAGE, w=weights(6, 4, 3, 3))
    before = made.SerializeToString()
    from_onnx(made)
    assert made.SerializeToString() == before
