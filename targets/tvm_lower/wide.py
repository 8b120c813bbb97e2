# SPDX-License-Identifier: Apache-2.0
"""Values between kernels that are stored in 16 bits, so that nobody has to copy them into 16 bits.

Without VNNI the exact dot product of 8-bit operands multiplies 16-bit words (``vpmaddwd``). A 1x1
convolution or linear layer that finds its input in words reads it where it lies; otherwise each
such kernel first makes a copy of the whole image, in a parallel loop of its own. The kernel before
it stores words as fast as bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from codesign.ir.graph import Graph
from codesign.targets.layers import extract_group, structure_key
from codesign.targets.tvm_lower.groups import Group
from codesign.targets.tvm_lower.isa import instruction_set
from codesign.targets.tvm_lower.machine import Machine
from codesign.targets.tvm_lower.templates.choose import default_tile, dots_for, suits
from codesign.targets.tvm_lower.templates.workload import find_workload
from codesign.targets.tvm_lower.tiles import DefaultTile, DirectTile, Tile, Tiles, no_tiles


def tuned_tile(graph: Graph, group: Group, tiles: Tiles) -> Tile | None:
    """The tile that ``tiles`` has for a kernel."""
    if tiles is no_tiles:
        return None
    return tiles(structure_key(extract_group(graph, group)))


def wide_values(
    graph: Graph, groups: Sequence[Group], machine: Machine, tiles: Tiles
) -> frozenset[str]:
    """The results of kernels that are stored in 16 bits.

    All who read one must be kernels of the templates, and those that convolve it must take words
    in place: for others bytes are less to read.
    """
    if not _multiplies_words(machine):
        return frozenset()
    chosen = {group.tail: _takes(graph, group, machine, tiles) for group in groups}
    found = set()
    for group in groups:
        name = group.tail
        dtype = graph.type(name).dtype
        if name in graph.outputs or not dtype.is_integer or dtype.bits > 8:
            continue
        if graph.nodes[group.head].op.name == "reshape":  # may be but another view of its operand
            continue
        readers = [reader for reader in groups if _reads(graph, reader, name)]
        heads = [r for r in readers if name in graph.nodes[r.head].inputs]
        written = all(chosen[reader.tail] is not None for reader in readers)
        if heads and written and all(chosen[head.tail] for head in heads):
            found.add(name)
    return frozenset(found)


def _multiplies_words(machine: Machine) -> bool:
    return machine.isa == "avx2"


def _reads(graph: Graph, group: Group, name: str) -> bool:
    return any(name in graph.nodes[member].inputs for member in group.members)


def _takes(graph: Graph, group: Group, machine: Machine, tiles: Tiles) -> bool | None:
    """Whether a kernel takes words in place; None if no template writes it."""
    workload = find_workload(graph, group)
    if workload is None:
        return None
    if workload.kernel != (1, 1):
        return False
    weights = graph.constants[graph.nodes[group.head].inputs[1]]
    if weights.ndim == 2:
        weights = weights[:, :, None, None]
    isa = instruction_set(machine.isa)
    dots = dots_for(workload, isa, weights)
    tile = tuned_tile(graph, group, tiles)
    if tile is None or not suits(tile, workload, dots):
        tile = default_tile(workload, isa, dots, machine.threads)
    if tile is None or isinstance(tile, DefaultTile):
        return None
    if not isinstance(tile, DirectTile):
        return False
    dot = dots.direct[tile.dot]
    in_place = dot.data == "int16" and not dot.offset and not any(workload.padding)
    return in_place and workload.depth % dot.terms == 0
