# SPDX-License-Identifier: Apache-2.0
"""Which layer the kernels of a network belong to."""

from __future__ import annotations

from codesign.ir.graph import Graph
from codesign.targets.tvm_lower.groups import Group, kernel_name, make_groups
from codesign.targets.tvm_lower.machine import Machine
from codesign.targets.tvm_lower.tiles import Tiles


def layer_of_kernels(graph: Graph) -> dict[str, str]:
    """Name of each kernel to the layer that pays for it.

    A kernel without weights is paid for by the layer whose result it reads, first operand
    first; what comes before any layer by the first.
    """
    layers = [node.name for node in graph.layers()]
    paid: dict[str, str] = {}
    for group in make_groups(graph):
        owner = group.head if group.head in layers else _source(graph, group, paid)
        paid |= dict.fromkeys(group.members, owner or layers[0])
    return {kernel_name(g.tail): paid[g.tail] for g in make_groups(graph)} | {
        f"{kernel_name(name)}_row_major": paid.get(name, layers[0]) for name in graph.outputs
    }


def _source(graph: Graph, group: Group, paid: dict[str, str]) -> str | None:
    for name in group.members:
        for value in graph.nodes[name].inputs:
            if value in paid:
                return paid[value]
    return None


def codes_of_layers(graph: Graph, machine: Machine, tiles: Tiles) -> dict[str, str]:
    """Hashes of the kernels that each layer of ``graph`` pays for."""
    from codesign.targets.tvm_lower.compile import codes

    owners = layer_of_kernels(graph)
    found: dict[str, list[str]] = {}
    for kernel, code in codes(graph, machine, tiles).items():
        if kernel in owners:
            found.setdefault(owners[kernel], []).append(code)
    return {layer: " ".join(sorted(kernels)) for layer, kernels in found.items()}
