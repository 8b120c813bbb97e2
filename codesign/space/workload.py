# SPDX-License-Identifier: Apache-2.0
"""A network as the cost model sees it: layers with shapes, chains that may stay on chip, the rest.

Layers of the same shape share one ``LayerShape``, so that tables are filled once for each.
Activations are stored in memory as bytes whatever their bits; weights are packed. So a layer's cost
depends on its own format alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from codesign.errors import InputError, UnsupportedError
from codesign.ir.graph import Graph, Node
from codesign.ir.ops import Conv2d, Linear, MatMul, Pool2d, Reduce

PASS_THROUGH = ("reshape", "transpose", "slice", "pad", "activation", "clip", "resize")
"""Operators whose result has the format of their operand (with max pooling)."""
FREE = ("input", "constant", "reshape", "slice", "activation", "clip", "quantize", "dequantize",
        "requantize", "lookup", "pad", "broadcast", "transpose", "concat")  # fmt: skip
"""Operators that cost no cycles: done by addressing, or on the way out of the layer before."""


@dataclass(frozen=True)
class LayerShape:
    """A convolution or linear layer of one image, as an engine runs it (linear: 1 x 1, one pixel
    a row)."""

    kind: Literal["dense", "depthwise"]
    inputs: int
    """Input channels of all groups."""
    outputs: int
    groups: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    in_size: tuple[int, int]
    """Input rows and columns."""
    out_size: tuple[int, int]
    residual: bool = False
    """A tensor of the result's shape is added before the result is stored."""

    @property
    def taps(self) -> int:
        """Kernel positions."""
        return self.kernel[0] * self.kernel[1]

    @property
    def weights(self) -> int:
        """Number of weights."""
        return self.outputs * (self.inputs // self.groups) * self.taps

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return self.weights * self.out_size[0] * self.out_size[1]

    @property
    def flat(self) -> bool:
        """Whether output pixels follow each other as input pixels do (1 x 1, stride 1)."""
        return self.kernel == (1, 1) and self.stride == (1, 1)

    def rows_in(self, rows: int) -> int:
        """Input rows that ``rows`` neighbouring output rows need, at most all of them."""
        needed = (rows - 1) * self.stride[0] + (self.kernel[0] - 1) * self.dilation[0] + 1
        return min(needed, self.in_size[0])

    @property
    def output_bytes(self) -> int:
        """Bytes of the result in memory: one an element, in whole blocks of 8 channels (of every
        group)."""
        channels = self.groups * (-(-self.outputs // self.groups // 8) * 8)
        if self.kind == "depthwise":
            channels = -(-self.outputs // 8) * 8
        return self.out_size[0] * self.out_size[1] * channels

    def weight_bytes(self, bits: int) -> int:
        """Packed weights, and 4 bytes of bias and 4 of requantisation factors a channel."""
        return -(-self.weights * bits // 8) + 8 * self.outputs


@dataclass(frozen=True)
class Layer:
    """One weight layer of the network."""

    name: str
    shape: LayerShape
    reads: str
    """The tensor whose format it shares with the other layers that read it."""


@dataclass(frozen=True)
class Chain:
    """Layers that may run fused: [expand 1x1,] depthwise [, project 1x1]; positions in
    ``Workload.layers``."""

    expand: int | None
    depthwise: int
    project: int | None
    local_residual: bool = False
    """The residual of ``project`` is the input of ``expand``, so it is on chip already."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Positions of its layers in order."""
        return tuple(i for i in (self.expand, self.depthwise, self.project) if i is not None)


@dataclass(frozen=True)
class VectorOp:
    """An operator without weights (add, pooling, mul, …): its traffic and element operations."""

    name: str
    load_bytes: int
    store_bytes: int
    work: int
    """Element operations: window positions for pooling, products for a matmul of activations,
    elements for the others."""


@dataclass(frozen=True)
class Workload:
    """Everything the joint problem needs to know of a network."""

    name: str
    layers: tuple[Layer, ...]
    chains: tuple[Chain, ...] = ()
    vector_ops: tuple[VectorOp, ...] = ()
    alternatives: tuple[tuple[tuple[int, ...], ...], ...] = ()
    """Variants of blocks: of each entry's sets of layers exactly one is there (it may be empty)."""

    def __post_init__(self) -> None:
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise InputError(f"workload {self.name!r}: layer names are not unique")
        for variants in self.alternatives:
            for chain in self.chains:
                inside = [len(set(chain.layers) & set(variant)) for variant in variants]
                if sum(inside) and max(inside) < len(chain.layers):
                    raise InputError(
                        f"workload {self.name!r}: a chain crosses the border of a variant"
                    )

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return sum(layer.shape.macs for layer in self.layers)

    @property
    def shapes(self) -> tuple[LayerShape, ...]:
        """The different shapes, in order of first use."""
        return tuple(dict.fromkeys(layer.shape for layer in self.layers))

    def shared_inputs(self) -> tuple[tuple[int, ...], ...]:
        """Positions of layers that read one tensor, for each tensor that several read."""
        readers: dict[str, list[int]] = {}
        for index, layer in enumerate(self.layers):
            readers.setdefault(layer.reads, []).append(index)
        return tuple(tuple(r) for r in readers.values() if len(r) > 1)


def with_variants(name: str, blocks: Sequence[Sequence[Workload]]) -> Workload:
    """One network of blocks in a row, each with one or more variants to choose from.

    A layer is called ``variant.layer``. Raises InputError for a block without variants and for
    variants with operators without weights where there is a choice.
    """
    layers: list[Layer] = []
    chains: list[Chain] = []
    ops: list[VectorOp] = []
    alternatives = []
    for number, block in enumerate(blocks):
        if not block:
            raise InputError(f"block {number} of {name!r} has no variant")
        places = []
        for variant in block:
            start = len(layers)
            prefix = f"{variant.name}."
            if len(block) > 1 and variant.vector_ops:
                raise InputError(
                    f"block {number} of {name!r}: variant {variant.name!r} has operator "
                    f"{variant.vector_ops[0].name!r}; a block with a choice holds layers only"
                )
            layers += [replace(x, name=prefix + x.name, reads=prefix + x.reads)
                       for x in variant.layers]  # fmt: skip
            ops += [replace(op, name=prefix + op.name) for op in variant.vector_ops]
            for c in variant.chains:
                expand, project = (None if i is None else i + start for i in (c.expand, c.project))
                chains.append(Chain(expand, c.depthwise + start, project, c.local_residual))
            places.append(tuple(range(start, len(layers))))
        if len(block) > 1:
            alternatives.append(tuple(places))
    return Workload(name, tuple(layers), tuple(chains), tuple(ops), tuple(alternatives))


def layer_shape(graph: Graph, node: Node) -> LayerShape:
    """The shape of a convolution or linear node; raises UnsupportedError for batches."""
    x, w = (graph.type(value).shape for value in node.inputs[:2])
    if isinstance(node.op, Linear):
        rows = 1
        for n in x[:-1]:
            rows *= n
        one = (1, 1)
        return LayerShape(
            "dense", w[1], w[0], 1, one, one, one, (rows, 1), (rows, 1), node.op.residual
        )
    assert isinstance(node.op, Conv2d)
    if x[0] != 1:
        raise UnsupportedError(
            f"layer {node.name!r} has a batch of {x[0]}; the accelerator takes one image at a "
            "time: export the network with batch 1"
        )
    groups = node.op.groups
    depthwise = groups > 1 and groups == x[1] == w[0]
    return LayerShape(
        "depthwise" if depthwise else "dense",
        x[1], w[0], groups, (w[2], w[3]), node.op.stride, node.op.dilation,
        (x[2], x[3]), (node.type.shape[2], node.type.shape[3]), node.op.residual,
    )  # fmt: skip


def workload_of(graph: Graph, name: str = "") -> Workload:
    """The workload of a prepared graph (batch norm folded, activations and residuals fused).

    An Add that follows a convolution directly and is its only reader counts as its residual.
    """
    nodes = graph.nodes
    layer_nodes = graph.layers()
    if not layer_nodes:
        raise InputError(f"network {graph.name!r} has no convolution or linear layer")
    position = {node.name: index for index, node in enumerate(layer_nodes)}
    joined = _joined_adds(graph, position)
    layers = []
    for node in layer_nodes:
        shape = layer_shape(graph, node)
        if node.name in joined:
            shape = replace(shape, residual=True)
        layers.append(Layer(node.name, shape, _format_source(graph, node.inputs[0])))
    chains = _chains(graph, layers, position, joined)
    merged = set(joined.values())
    vector = [
        _vector_op(graph, node)
        for node in nodes.values()
        if node.name not in position and node.name not in merged and node.op.name not in FREE
        and not all(graph.is_constant(value) for value in node.inputs)
    ]  # fmt: skip
    return Workload(name or graph.name, tuple(layers), chains, tuple(vector))


def _joined_adds(graph: Graph, position: Mapping[str, int]) -> dict[str, str]:
    """Layer to the Add node that is done as its residual; the later operand takes it."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for node in graph.nodes.values():
        if node.op.name != "add" or any(graph.is_constant(v) for v in node.inputs):
            continue
        for value in reversed(node.inputs):
            layer = graph.nodes[value]
            residual = getattr(layer.op, "residual", False)
            single = graph.users[value] == (node.name,)
            free = value in position and single and not residual and value not in taken
            if free and layer.type.shape == node.type.shape:
                found[value] = node.name
                taken.add(value)
                break
    return found


def _format_source(graph: Graph, value: str) -> str:
    """The tensor whose number format ``value`` has."""
    node = graph.nodes[value]
    while node.op.name in PASS_THROUGH or (isinstance(node.op, Pool2d) and node.op.kind == "max"):
        node = graph.nodes[node.inputs[0]]
    return node.name


def _through(graph: Graph, value: str) -> str:
    """The value behind standalone activations, each of which is the only reader."""
    node = graph.nodes[value]
    while node.op.name in ("activation", "clip") and len(graph.users[node.inputs[0]]) == 1:
        node = graph.nodes[node.inputs[0]]
    return node.name


def _chains(
    graph: Graph, layers: Sequence[Layer], position: Mapping[str, int], joined: Mapping[str, str]
) -> tuple[Chain, ...]:
    producer: dict[int, int] = {}
    reader: dict[int, int] = {}
    for name, index in position.items():
        source = _through(graph, graph.nodes[name].inputs[0])
        alone = (
            source in position
            and len(graph.users[source]) == 1
            and len(graph.users[graph.nodes[name].inputs[0]]) == 1
            and source not in graph.outputs
            and source not in joined
        )
        if alone:
            producer[index], reader[position[source]] = position[source], index
    used: set[int] = set()
    chains = []
    for index, layer in enumerate(layers):
        if layer.shape.kind != "depthwise":
            continue
        expand, project = producer.get(index), reader.get(index)
        if expand in used or not _pointwise(layers, expand) or _has_residual(layers, expand):
            expand = None
        if not _pointwise(layers, project):
            project = None
        if (expand is None and project is None) or layer.shape.residual:
            continue
        local = False
        if expand is not None and project is not None and layers[project].shape.residual:
            local = (
                _residual_source(graph, layers[project].name, joined)
                == (graph.nodes[layers[expand].name].inputs[0])
            )
        chain = Chain(expand, index, project, local)
        used.update(chain.layers)
        chains.append(chain)
    return tuple(chains)


def _pointwise(layers: Sequence[Layer], index: int | None) -> bool:
    if index is None:
        return False
    shape = layers[index].shape
    return shape.kind == "dense" and shape.flat and shape.groups == 1


def _has_residual(layers: Sequence[Layer], index: int | None) -> bool:
    return index is not None and layers[index].shape.residual


def _residual_source(graph: Graph, name: str, joined: Mapping[str, str]) -> str | None:
    node = graph.nodes[name]
    if name in joined:
        add = graph.nodes[joined[name]]
        return add.inputs[0] if add.inputs[1] == name else add.inputs[1]
    return graph.operand(node, "residual")


def _vector_op(graph: Graph, node: Node) -> VectorOp:
    loads = sum(graph.type(v).size for v in node.inputs if not graph.is_constant(v))
    work = max(node.type.size, 1)
    if isinstance(node.op, Pool2d):
        work *= node.op.kernel[0] * node.op.kernel[1]
    elif isinstance(node.op, MatMul):
        work *= graph.type(node.inputs[0]).shape[-1]
    elif isinstance(node.op, Reduce):
        work = loads
    return VectorOp(node.name, loads, node.type.size, work)
