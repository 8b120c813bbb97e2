# SPDX-License-Identifier: Apache-2.0
"""Pipelines: specs there and back, messages, verification, printing."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pytest

from codesign.errors import InputError, VerifyError
from codesign.ir import Graph, TensorType, ops
from codesign.passes import PASSES, Pass, Pipeline, parse_pipeline, prepare
from codesign.passes.eliminate_dead_code import EliminateDeadCode
from codesign.passes.equalise import Equalise
from codesign.passes.fold_constants import FoldConstants
from codesign.passes.fuse import Fuse
from codesign.passes.spec import convert, describe
from tests.passes.checks import Net

NAMES = (
    "common-subexpressions, eliminate-dead-code, equalise, fold-batch-norm, fold-constants, fuse, "
    "legalise, recognise-activations, remove-identities, reparameterise"
)


def tiny() -> Graph:
    net = Net("tiny")
    return net.finish(net.relu(net.input(1, 2)))


@dataclass(frozen=True)
class Every(Pass):
    """A pass with one option of every type."""

    name: ClassVar[str] = "every"
    flag: bool = False
    count: int = 1
    share: float = 0.5
    word: str = "a"
    kind: Literal["min", "max"] = "min"
    layers: tuple[str, ...] = ()
    limit: int | None = None

    def run(self, graph: Graph) -> Graph:
        return graph


@pytest.fixture
def every(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the pass with one option of every type."""
    known = {**PASSES._entries, "every": (f"{__name__}:Every", "tests")}
    monkeypatch.setitem(PASSES.__dict__, "_entries", known)
    monkeypatch.setattr(type(PASSES), "load", lambda self, name: Every)


def test_every_registered_pass_loads_under_its_name() -> None:
    for name in PASSES:
        made = PASSES.load(name)()
        assert isinstance(made, Pass)
        assert made.name == name
        assert str(made) == name
        assert parse_pipeline(name).passes == (made,)
        assert dataclasses.fields(made) == tuple(
            f for f in dataclasses.fields(made) if f.default is not dataclasses.MISSING
        )


def test_specs_show_only_options_that_differ() -> None:
    assert str(Fuse()) == "fuse"
    assert str(Fuse(activations=False, add=False)) == "fuse{add=false,activations=false}"
    assert str(FoldConstants(max_elements=64)) == "fold-constants{max-elements=64}"
    assert str(Equalise(tolerance=1e-05, relu6=True)) == "equalise{tolerance=1e-05,relu6=true}"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("", ""),
        ("fuse", "fuse"),
        ("fuse{}", "fuse"),
        ("fuse{add=true}", "fuse"),
        (" fuse { add = false } , legalise ", "fuse{add=false},legalise"),
        ("fold-constants{max_elements=8}", "fold-constants{max-elements=8}"),
        ("equalise{iterations=3,tolerance=1}", "equalise{iterations=3,tolerance=1.0}"),
    ],
)
def test_specs_round_trip(text: str, printed: str) -> None:
    pipeline = parse_pipeline(text)
    assert str(pipeline) == printed
    assert parse_pipeline(printed) == pipeline


@pytest.mark.usefixtures("every")
@pytest.mark.parametrize(
    "made",
    [
        Every(flag=True, count=-3, share=2.5e-7, word="conv1.0"),
        Every(word='a "b" \\ c,}', kind="max", layers=("x", "y z", "none")),
        Every(limit=7, share=float("inf"), layers=("only",), word="true"),
        Every(share=float("-inf"), count=0, word=""),
    ],
)
def test_options_of_every_type_round_trip(made: Every) -> None:
    assert parse_pipeline(str(made)).passes == (made,)


@pytest.mark.usefixtures("every")
@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("flag=1", "option 'flag' of pass 'every': expected true or false, got 1"),
        ("count=true", "option 'count' of pass 'every': expected an integer, got true"),
        ("share=wide", "option 'share' of pass 'every': expected a number, got wide"),
        ("word=[a]", "option 'word' of pass 'every': expected a word or string, got [a]"),
        ("kind=mid", "option 'kind' of pass 'every': expected one of min, max, got mid"),
        (
            "layers=[a, 1]",
            "option 'layers' of pass 'every': expected a list [...] of a word or string, "
            "got [a, 1]",
        ),
        ("limit=0.5", "option 'limit' of pass 'every': expected an integer or none, got 0.5"),
    ],
)
def test_wrong_types_are_told(option: str, message: str) -> None:
    column = len("every{") + option.index("=") + 2
    with pytest.raises(InputError) as error:
        parse_pipeline(f"every{{{option}}}")
    assert str(error.value) == f"pipeline 'every{{{option}}}', column {column}: {message}"


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("fuze", 1, f"unknown pass 'fuze'; did you mean 'fuse'? (known: {NAMES})"),
        ("legalise,zzz", 10, f"unknown pass 'zzz' (known: {NAMES})"),
        (
            "fuse{ad=false}", 6,
            "pass 'fuse' has no option 'ad'; did you mean 'add'? (options: bias, add, activations)",
        ),
        ("legalise,eliminate-dead-code{x=1}", 30,
         "pass 'eliminate-dead-code' has no option 'x' (it has no options)"),
        ("fuse{add=1}", 10, "option 'add' of pass 'fuse': expected true or false, got 1"),
        ("fuse{add=false,add=true}", 16, "option 'add' of pass 'fuse' is given twice"),
        ("fuse{add=false", 15, "expected ',' or '}' after an option, got the end"),
        ("fuse{add}", 9, "expected '=' after option 'add', got '}'"),
        ("fuse{add=}", 10, "expected a value, got '}'"),
        ("fuse{=true}", 6, "expected an option of pass 'fuse', got '='"),
        ("fuse,", 6, "expected the name of a pass after ','"),
        (",fuse", 1, "expected the name of a pass, got ','"),
        ("fuse legalise", 6, "expected ',' or '{' after the name of a pass, got 'legalise'"),
        ("fuse{?=1}", 6, "cannot read '?=1}'"),
    ],
)  # fmt: skip
def test_bad_specs_tell_the_column(text: str, column: int, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_pipeline(text)
    assert str(error.value) == f"pipeline {text!r}, column {column}: {message}"


def test_unknown_option_types_are_described_by_name() -> None:
    assert describe(bytes) == "<class 'bytes'>"
    assert convert(2, float) == 2.0


def test_the_input_graph_is_verified() -> None:
    graph = tiny()
    broken = Graph("broken", graph.nodes, ("nowhere",), {})
    with pytest.raises(VerifyError) as error:
        Pipeline([EliminateDeadCode()]).run(broken)
    assert str(error.value) == "broken: graph: output 'nowhere' is defined nowhere"


@dataclass(frozen=True)
class Breaks(Pass):
    """A pass with a defect."""

    name: ClassVar[str] = "breaks"
    how: str = "outputs"

    def run(self, graph: Graph) -> Graph:
        if self.how == "outputs":
            return Graph(graph.name, graph.nodes, ("gone",), {})
        net = Net(graph.name)
        if self.how == "inputs":
            return net.finish(net.relu(net.input(1, 3)))
        if self.how == "types":
            x = net.input(1, 2)
            return net.finish(net.add(ops.Reshape((2,)), net.relu(x)))
        return net.finish(net.add(ops.Reshape((5,)), net.input(1, 2), name="bad"))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("outputs", "its result is invalid: tiny: graph: output 'gone' is defined nowhere"),
        ("inputs", "it changed the inputs from x: f32[1,2] to x: f32[1,3]"),
        ("types", "it changed the outputs from f32[1,2] to f32[2]"),
        (
            "raises",
            "tiny: node 'bad' (reshape): reshape of f32[1,2] (2 elements) to [5] (5 elements)",
        ),
    ],
)
def test_a_defect_names_the_pass(how: str, message: str) -> None:
    with pytest.raises(VerifyError) as error:
        Pipeline([EliminateDeadCode(), Breaks(how)]).run(tiny())
    spec = str(Breaks(how))
    end = "(please report it with the network)"
    assert str(error.value) == f"defect in pass {spec!r}: {message} {end}"
    assert error.value.exit_code == 1


def test_a_pass_may_declare_that_it_changes_the_interface() -> None:
    @dataclass(frozen=True)
    class Widens(Breaks):
        name: ClassVar[str] = "widens"
        keeps_interface: ClassVar[bool] = False
        how: str = "inputs"

    result = Pipeline([Widens()]).run(tiny()).graph
    assert result.type("x") == TensorType((1, 3))


def test_print_after_prints_the_named_passes() -> None:
    pipeline = parse_pipeline("fuse{add=false},eliminate-dead-code")
    stream = io.StringIO()
    graph = pipeline.run(tiny(), print_after=["fuse"], stream=stream).graph
    assert stream.getvalue() == f"// after fuse{{add=false}}\n{graph}\n"
    stream = io.StringIO()
    pipeline.run(tiny(), print_after="all", stream=stream)
    assert stream.getvalue().count("// after ") == 2


def test_print_after_an_absent_pass() -> None:
    with pytest.raises(InputError) as error:
        parse_pipeline("fuse,legalise").run(tiny(), print_after=["equalise"])
    assert str(error.value) == (
        "cannot print after 'equalise': the pipeline has no such pass (it has: fuse, legalise)"
    )


def test_timings_name_every_pass_in_order() -> None:
    result = parse_pipeline("fuse{add=false},eliminate-dead-code").run(tiny())
    assert [t.spec for t in result.timings] == ["fuse{add=false}", "eliminate-dead-code"]
    assert [(t.nodes_before, t.nodes_after) for t in result.timings] == [(2, 2), (2, 2)]
    lines = result.timing_table().splitlines()
    assert [line.split()[0] for line in lines] == [
        "fuse{add=false}",
        "eliminate-dead-code",
        "total",
    ]


def test_pipelines_join() -> None:
    joined = parse_pipeline("fuse") + parse_pipeline("legalise")
    assert str(joined) == "fuse,legalise"


def test_prepare_is_the_documented_order() -> None:
    assert str(prepare()) == (
        "eliminate-dead-code,fold-constants,remove-identities,recognise-activations,"
        "common-subexpressions,fold-batch-norm,reparameterise,legalise,remove-identities,"
        "common-subexpressions,legalise,fuse,eliminate-dead-code"
    )
    assert str(prepare(reparameterise=False, equalise=True, add=False)) == (
        "eliminate-dead-code,fold-constants,remove-identities,recognise-activations,"
        "common-subexpressions,fold-batch-norm,legalise,remove-identities,"
        "common-subexpressions,legalise,fuse{add=false},equalise,eliminate-dead-code"
    )


def test_passes_share_constants_that_they_do_not_change() -> None:
    net = Net()
    graph = net.finish(net.relu(net.conv(net.input(1, 2, 4, 4), 3, 3, "conv")))
    fused = Fuse().run(graph)
    assert np.shares_memory(fused.constants["conv.weight"], graph.constants["conv.weight"])
