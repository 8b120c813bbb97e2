# SPDX-License-Identifier: Apache-2.0
"""Text form: exact round trips, and precise errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codesign.errors import InputError, ParseError
from codesign.ir import (
    DType,
    Graph,
    GraphBuilder,
    TensorType,
    ops,
    parse_file,
    parse_graph,
    print_graph,
)
from codesign.ir.graph import Array
from tests.support.graphs import random_graph
from tests.support.integer_graphs import random_integer_graph


def constant(value: Array, dtype: DType | None = None) -> Graph:
    builder = GraphBuilder("constant")
    return builder.finish([builder.constant(value, "c", dtype)])


def check(graph: Graph) -> None:
    text = print_graph(graph)
    again = parse_graph(text)
    assert again == graph
    assert print_graph(again) == text


def test_readable_form() -> None:
    builder = GraphBuilder("tiny")
    x = builder.input("x", TensorType((1, 4, 8, 8), DType("unsigned", 4), "NHWC"))
    w = builder.constant(np.zeros((2, 4, 3, 3), np.int8), "conv.weight", DType("signed", 2))
    bias = builder.constant(np.array([7, -9], np.int32), "conv.bias")
    op = ops.Conv2d((2, 2), (1, 1, 1, 1), activation="relu")
    y = builder.add(op, [x, w, bias], "conv", 'features."0"\n')
    z = builder.add(ops.Clip(DType("unsigned", 3), 0, 7), [y], "z")
    graph = builder.finish([z, x])
    assert print_graph(graph) == (
        'graph "tiny" {\n'
        "  %x = input : u4[1,4,8,8]@NHWC\n"
        "  %conv.weight = constant resource : s2[2,4,3,3]\n"
        "  %conv.bias = constant [7, -9] : s32[2]\n"
        "  %conv = conv2d(%x, %conv.weight, %conv.bias) {stride = [2, 2], "
        'padding = [1, 1, 1, 1], activation = "relu"} : s32[1,2,4,4]@NHWC '
        'loc("features.\\"0\\"\\n")\n'
        "  %z = clip(%conv) {dtype = u3, lo = 0, hi = 7} : u3[1,2,4,4]@NHWC\n"
        "  return %z, %x\n"
        "}\n"
        "resources {\n"
        f'  %conv.weight = "{"A" * 96}"\n'
        "}\n"
    )
    check(graph)
    assert str(graph).count("constant elided") == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_are_exact(dtype: type[np.floating]) -> None:
    least = np.finfo(dtype)
    values = [0.0, -0.0, 0.1, 1 / 3, least.max, least.tiny, least.smallest_subnormal]
    values += [np.inf, -np.inf, np.nan, 1e22, 123456789.0, -1e-7]
    check(constant(np.array(values, dtype)))
    assert "[0.0, -0.0, 0.1, " in print_graph(constant(np.array(values, dtype)))
    rng = np.random.default_rng(0)
    for _ in range(300):
        check(constant(np.frombuffer(rng.bytes(64), dtype)))


def test_nan_payloads_survive() -> None:
    bits = np.array([0x7FC00001, 0xFFC00000, 0x7FC00000], np.uint32)
    check(constant(bits.view(np.float32)))
    check(constant(bits[0].view(np.float32).reshape(())))


def test_integers_are_exact() -> None:
    for text in ("s8", "u8", "s3", "u64", "s64", "s32"):
        dtype = DType.parse(text)
        ends = np.array([dtype.min, dtype.max, 1], dtype.numpy)
        check(constant(ends, dtype))
        check(constant(np.tile(ends, 9).reshape(3, 9), dtype))
        check(constant(np.array(dtype.max, dtype.numpy), dtype))
    check(constant(np.zeros((0,), np.float32)))


def test_names_and_sources_survive() -> None:
    builder = GraphBuilder('a "graph"\\ with\ttabs, ünïcode and // no comment')
    x = builder.input("x.1._", TensorType(()))
    y = builder.add(ops.Activation("tanh"), [x], "_", "über/Node:0 // {x} %y \u2028 \x00")
    check(builder.finish([y, y, x]))


def test_comments_and_blanks_are_free() -> None:
    graph = parse_graph(
        '// head\n graph"g"{%x=input:f32[2]// in\n%y=activation( %x )\n{ kind="relu" , alpha=1 }'
        "\n:f32[2]\nreturn%y}// end"
    )
    assert graph.nodes["y"].op == ops.Activation("relu", 1.0)


def test_value_called_like_a_keyword() -> None:
    builder = GraphBuilder("g")
    x = builder.input("return", TensorType((2,)))
    check(builder.finish([builder.add(ops.Activation("relu"), [x], "input")]))


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs(seed: int) -> None:
    check(random_graph(seed, prepared=seed % 2 == 0))
    check(random_integer_graph(seed, float_ends=seed % 2 == 0))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 1500))
def test_many_random_graphs(seed: int) -> None:
    check(random_graph(seed, prepared=seed % 2 == 0, blocks=9))
    check(random_integer_graph(seed, float_ends=seed % 2 == 0, blocks=9))


HEAD = 'graph "g" {\n  %x = input : f32[1,4]\n'
TAIL = "  return %y\n}\n"

ERRORS = {
    "empty": ("", "1:1: expected 'graph' at the start, got the end of the text"),
    "no name": ("graph {", "1:7: expected the graph's name in quotes, got '{'"),
    "bad escape": (
        'graph "\\q" {',
        "1:7: the graph's name in quotes has an unknown escape sequence",
    ),
    "junk node": (HEAD + "  y = relu", "3:3: expected '%name = …' or 'return', got 'y'"),
    "cut off": (HEAD, "3:1: expected '%name = …' or 'return', got the end of the text"),
    "unknown operator": (
        HEAD + "  %y = activatoin(%x) : f32[1,4]\n" + TAIL,
        "3:8: unknown operator 'activatoin'; did you mean 'activation'?",
    ),
    "far operator": (
        HEAD + "  %y = zzz(%x) : f32[1,4]\n" + TAIL,
        f"3:8: unknown operator 'zzz' (known: {', '.join(ops.OPS)})",
    ),
    "undefined": (
        HEAD + "  %y = softmax(%z) {axis = 1} : f32[1,4]\n",
        "3:16: %z is not defined above",
    ),
    "near name": (
        HEAD + "  %abcd = softmax(%x) {axis = 1} : f32[1,4]\n  return %abcf",
        "4:10: %abcf is not defined above; did you mean %abcd?",
    ),
    "twice": (HEAD + "  %x = input : f32[1]", "3:3: %x is defined twice"),
    "no operands": (
        HEAD + "  %y = add : f32[1,4]",
        "3:12: expected '(' and the operands of 'add', got ':'",
    ),
    "no comma": (
        HEAD + "  %y = add(%x %x)",
        "3:15: expected ',' or ')' after an operand, got '%x'",
    ),
    "arity": (
        HEAD + "  %y = add(%x) : f32[1,4]",
        "3:8: add takes 2 operands (a, b), got 1",
    ),
    "operator rule": (
        HEAD + "  %y = softmax(%x) {axis = 2} : f32[1,4]",
        "3:8: softmax axis 2 on f32[1,4]",
    ),
    "missing attribute": (
        HEAD + "  %y = softmax(%x) : f32[1,4]",
        "3:8: 'softmax' needs the attribute 'axis'",
    ),
    "unknown attribute": (
        HEAD + "  %y = softmax(%x) {axes = 1}",
        "3:21: 'softmax' has no attribute 'axes' (known: axis)",
    ),
    "attribute twice": (
        HEAD + "  %y = softmax(%x) {axis = 1, axis = 1}",
        "3:31: attribute 'axis' is given twice",
    ),
    "not an integer": (
        HEAD + "  %y = softmax(%x) {axis = 1.5}",
        "3:28: expected an integer for 'axis', got '1.5'",
    ),
    "huge integer": (
        HEAD + "  %y = softmax(%x) {axis = " + "9" * 21 + "}",
        f"3:28: expected an integer for 'axis', got '{'9' * 21}'",
    ),
    "not a bool": (
        HEAD + '  %y = linear(%x, %x) {bias = "no"}',
        "3:31: expected true or false for 'bias', got '\"no\"'",
    ),
    "not a number": (
        HEAD + '  %y = activation(%x) {alpha = a, kind = "relu"}',
        "3:32: expected a number for 'alpha', got 'a'",
    ),
    "not a format": (
        HEAD + "  %y = quantize(%x, %x) {dtype = i8}",
        "3:34: no number format is called 'i8' (expected f32, s8, u4, …)",
    ),
    "not a choice": (
        HEAD + '  %y = reduce(%x) {kind = "min"}',
        '3:27: \'kind\' must be one of "mean", "max", "sum", got "min"',
    ),
    "list length": (
        HEAD + "  %y = conv2d(%x, %x) {stride = [1, 2, 3]}",
        "3:33: 'stride' takes 2 integers, got 3",
    ),
    "list item": (
        HEAD + "  %y = reshape(%x) {shape = [1, x]}",
        "3:33: expected an integer in 'shape', got 'x'",
    ),
    "bad type": (
        HEAD + "  %y = input : f33[2]",
        "3:16: no number format has kind float and 33 bits",
    ),
    "no type": (
        HEAD + "  %y = input : 7",
        "3:16: expected a tensor type such as f32[1,3,8,8], got '7'",
    ),
    "ragged type": (
        HEAD + "  %y = input : f32[2,,3]",
        "3:16: not a tensor type: 'f32[2,,3]' (expected e.g. f32[1,3,8,8])",
    ),
    "wrong result": (
        HEAD + "  %y = softmax(%x) {axis = 1} : f32[4,1]",
        "3:8: the result of 'softmax' is f32[1,4], the text says f32[4,1]",
    ),
    "empty dimension": (
        HEAD + "  %y = input : f32[0]",
        "3:8: input has an empty dimension: f32[0]",
    ),
    "too few values": (
        HEAD + "  %y = constant [1, 2] : f32[3]",
        "3:17: f32[3] has 3 elements, got 2",
    ),
    "does not fit": (
        HEAD + "  %y = constant [1, 200] : s8[2]",
        "3:21: 200 does not fit s8 (-128..127)",
    ),
    "float for integer": (
        HEAD + "  %y = constant 1.5 : s8[]",
        "3:17: expected an integer for s8, got '1.5'",
    ),
    "no value": (
        HEAD + "  %y = constant : s8[]",
        "3:17: expected a number, a list of numbers or 'resource', got ':'",
    ),
    "elided": (
        HEAD + "  %y = constant elided : f32[64]\n" + TAIL,
        "3:17: the value of constant %y was left out when this text was printed; "
        "print the graph with its resources to read it back",
    ),
    "missing resource": (
        HEAD + "  %y = constant resource : f32[1]\n" + TAIL,
        "3:17: the resource of constant %y is missing",
    ),
    "short resource": (
        HEAD + "  %y = constant resource : f32[1]\n" + TAIL + 'resources { %y = "AAAA" }',
        "6:18: f32[1] takes 4 bytes, got 3",
    ),
    "broken resource": (
        HEAD + "  %y = constant resource : f32[1]\n" + TAIL + 'resources { %y = "AA" }',
        "6:18: the data is no base64: Incorrect padding",
    ),
    "resource range": (
        HEAD + "  %y = constant resource : s2[1]\n" + TAIL + 'resources { %y = "Ag==" }',
        "6:18: values 2..2 do not fit s2",
    ),
    "strange resource": (
        HEAD + '  return %x\n}\nresources { %x = "" }',
        "5:13: no constant %x asks for a resource",
    ),
    "resource twice": (
        HEAD
        + "  %y = constant resource : s8[1]\n"
        + TAIL
        + 'resources { %y = "Ag==" %y = "Ag==" }',
        "6:25: the resource of %y is given twice",
    ),
    "no return": (HEAD + "}", "3:1: expected '%name = …' or 'return', got '}'"),
    "no results": (HEAD + "  return }", "3:10: expected a result (%name), got '}'"),
    "trailing": (HEAD + "  return %x }\nmore", "4:1: expected the end of the text, got 'more'"),
    "bad location": (
        HEAD + "  %y = input : f32[1] loc(x)",
        "3:27: expected the location in quotes, got 'x'",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_place_and_expectation(case: str) -> None:
    text, message = ERRORS[case]
    with pytest.raises(ParseError) as caught:
        parse_graph(text, "net.ir")
    first, shown, caret = str(caught.value).split("\n")
    assert first == f"net.ir:{message}"
    line, column = (int(part) for part in message.split(":")[:2])
    assert shown == "  " + (text.split("\n")[line - 1])
    assert caret == " " * (column + 1) + "^"


def test_long_lines_are_cut_around_the_place() -> None:
    text = 'graph "g" { %x = input : f32[1] ' + "%x" * 500_000
    with pytest.raises(ParseError) as caught:
        parse_graph(text)
    first, shown, caret = str(caught.value).split("\n")
    assert first == "<text>:1:33: %x is defined twice"
    assert shown == "  " + text[:100] + "…"
    assert caret == " " * 34 + "^"
    text = "/" + "*" * 300
    with pytest.raises(ParseError) as caught:
        parse_graph(f'graph "{"a" * 300}" x')
    assert str(caught.value).split("\n")[1:] == [f'  …{"a" * 58}" x', " " * 63 + "^"]


def test_every_cut_of_a_text_is_refused() -> None:
    text = print_graph(random_integer_graph(1, blocks=2)).rstrip()
    assert "resources" in text
    body = text.index("resources")
    for end in range(0, len(text), 13):
        if not text[end:body].strip() and end <= body:
            continue  # what is cut is blank: missing resources are a case above
        with pytest.raises(ParseError):
            parse_graph(text[:end])


def test_files(tmp_path: Path) -> None:
    graph = random_graph(1)
    path = tmp_path / "net.ir"
    path.write_text(print_graph(graph), encoding="utf-8")
    assert parse_file(path) == graph
    path.write_text("graph ", encoding="utf-8")
    with pytest.raises(ParseError) as caught:
        parse_file(path)
    assert str(caught.value).startswith(f"{path}:1:7: expected the graph's name in quotes")
    missing = tmp_path / "no.ir"
    with pytest.raises(InputError) as absent:
        parse_file(missing)
    assert str(absent.value) == f"cannot read {missing}: No such file or directory"
    path.write_bytes(b"graph \xff")
    with pytest.raises(ParseError) as binary:
        parse_file(path)
    assert str(binary.value) == f"{path}: not a text file (byte 6 is not UTF-8)"
