# SPDX-License-Identifier: Apache-2.0
"""The integer tables of one design question: every layer × format, for every metric.

All entries are exact decimals from here on: losses are rounded once, to nine significant digits
of the greatest one, and that rounded number is what the solver, the design file and the report
use.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import combinations

import numpy as np

from codesign.flow.artifact import LayerFacts
from codesign.flow.options import BOARD_LIMITS, DesignOptions
from codesign.ir.graph import Graph, Node
from codesign.quant.formats import LayerFormat
from codesign.solvers.problem import Metric, Problem

LATENCY_DIGITS = 6
"""Latency is counted in nanoseconds and shown in milliseconds."""
_FIXED = 0.15
"""About the share of a layer's time that its products do not take (loads, requantisation, calls);
estimates alone use it."""


@dataclass(frozen=True)
class Tables:
    """Values per layer and format; ``latency_ms`` holds lower bounds until measured."""

    layers: tuple[str, ...]
    formats: Mapping[str, LayerFormat]
    loss: Mapping[str, Mapping[str, Decimal]]
    size: Mapping[str, Mapping[str, int]]
    bops: Mapping[str, Mapping[str, int]]
    latency_ms: Mapping[str, Mapping[str, Decimal]]
    measured: frozenset[tuple[str, str]] = frozenset()
    """(layer, format) whose latency was measured."""
    shared: tuple[tuple[str, ...], ...] = ()
    """Layers that read one tensor, and so share its activation bits."""

    def total(self, metric: str, choices: Mapping[str, str]) -> Decimal:
        """A metric's exact total under ``choices``."""
        table: Mapping[str, Mapping[str, Decimal | int]] = {
            "loss": self.loss,
            "size": self.size,
            "bops": self.bops,
            "latency": self.latency_ms,
        }[metric]  # type: ignore[assignment]
        return sum((Decimal(table[layer][f]) for layer, f in choices.items()), Decimal(0))

    def totals(self, choices: Mapping[str, str]) -> dict[str, Decimal]:
        """All metrics; latency only when every chosen entry is measured."""
        names = ["loss", "size", "bops"]
        if all(item in self.measured for item in choices.items()):
            names.append("latency")
        return {name: self.total(name, choices) for name in names}

    def span(self, metric: str) -> tuple[Decimal, Decimal]:
        """Least and greatest total that a metric can have, ties aside."""
        table: Mapping[str, Mapping[str, Decimal | int]] = getattr(self, metric)
        return (
            sum((Decimal(min(row.values())) for row in table.values()), Decimal(0)),
            sum((Decimal(max(row.values())) for row in table.values()), Decimal(0)),
        )

    def with_measured(
        self,
        found: Mapping[tuple[str, str], float],
        ratio: Callable[[str, str], float] | None = None,
    ) -> Tables:
        """The same tables with measured latencies (milliseconds) in place of bounds.

        ``ratio(name, other)`` says what share of the latency in one format another takes at
        least: it raises the bounds of what is not measured, to a nanosecond above, so that
        of what is equally good the measured one is chosen.
        """
        latency = {layer: dict(row) for layer, row in self.latency_ms.items()}
        measured = self.measured | frozenset(found)
        for (layer, name), value in found.items():
            latency[layer][name] = round(Decimal(value), LATENCY_DIGITS)
            for other in self.formats if ratio is not None else ():
                if (layer, other) not in measured:
                    assert ratio is not None
                    share = ratio(name, other)
                    bound = round(Decimal(value * share), LATENCY_DIGITS) + (
                        Decimal(1).scaleb(-LATENCY_DIGITS) if share else 0
                    )
                    latency[layer][other] = max(latency[layer][other], bound)
        return replace(self, latency_ms=latency, measured=measured)

    def with_estimates(
        self, codes: Mapping[tuple[str, str], str], costs: Mapping[str, float]
    ) -> Tables:
        """The same tables with guesses in place of bounds, for choosing what to measure.

        ``costs``: of each format's products, relative to one another. A layer takes as long as its
        measured entry of the nearest cost, scaled by what its products cost, save for the part of
        its time that is no products; entries of equal ``codes`` are the same entry.
        """
        latency = {layer: dict(row) for layer, row in self.latency_ms.items()}
        for layer, row in latency.items():
            cost: dict[str, float] = {}
            for name in self.formats:
                cost[name] = max(
                    costs[other] for other in self.formats
                    if codes[layer, other] == codes[layer, name]
                )  # fmt: skip
            known = [name for name in self.formats if (layer, name) in self.measured]
            for name in (n for n in self.formats if n not in known):
                near = min(known, key=lambda k: abs(cost[k] - cost[name]), default=None)
                guess = float(row[name]) * cost[name]
                if near is not None:
                    scale = _FIXED + (1 - _FIXED) * cost[name] / cost[near]
                    guess = max(float(row[name]), float(self.latency_ms[layer][near]) * scale)
                latency[layer][name] = round(Decimal(guess), LATENCY_DIGITS)
        return replace(self, latency_ms=latency)

    def facts(self, graph: Graph, macs: Mapping[str, int]) -> tuple[LayerFacts, ...]:
        """One record a layer, for the design file and the report."""
        return tuple(
            LayerFacts(
                name=layer,
                op=graph.nodes[layer].op.name,
                source=graph.nodes[layer].source,
                macs=macs[layer],
                parameters=parameters(graph, graph.nodes[layer]),
                output_shape=graph.type(layer).shape,
                loss={f: float(v) for f, v in self.loss[layer].items()},
                size=dict(self.size[layer]),
                bops=dict(self.bops[layer]),
                latency_ms={
                    f: float(v) if (layer, f) in self.measured else None
                    for f, v in self.latency_ms[layer].items()
                },
            )
            for layer in self.layers
        )


def parameters(graph: Graph, layer: Node) -> int:
    """Weights and biases of a layer."""
    bias = graph.operand(layer, "bias")
    return graph.type(layer.inputs[1]).size + (graph.type(bias).size if bias else 0)


def layer_bytes(graph: Graph, layer: Node, format: LayerFormat) -> int:
    """Bytes of a layer's packed weights plus its 32-bit bias (float: all in 32 bits)."""
    bits = format.weight_bits or 32
    channels = graph.type(layer.inputs[1]).shape[0]
    weights = -(-graph.type(layer.inputs[1]).size * bits // 8)
    return weights + 4 * channels


def loss_decimals(
    loss: Mapping[str, Mapping[str, float]],
) -> dict[str, dict[str, Decimal]]:
    """Losses as decimals with nine significant digits of the greatest; negatives count as 0.

    A measured loss may come out slightly below zero by chance; taking it as a gain would let
    noise pay for real losses elsewhere.
    """
    top = max((abs(v) for row in loss.values() for v in row.values()), default=0.0)
    digits = 9 - (math.floor(math.log10(top)) + 1) if top > 0 else 0
    return {
        layer: {name: max(Decimal(0), round(Decimal(value), digits)) for name, value in row.items()}
        for layer, row in loss.items()
    }


def build_tables(
    graph: Graph,
    formats: Mapping[str, LayerFormat],
    loss: Mapping[str, Mapping[str, float]],
    macs: Mapping[str, int],
    shared: Sequence[Sequence[str]],
    latency_bound_ms: Mapping[str, float],
) -> Tables:
    """Fill every table of a prepared graph; latency starts at the given lower bounds."""
    layers = graph.layers()
    bits = {name: (f.weight_bits or 32, f.act_bits or 32) for name, f in formats.items()}
    return Tables(
        layers=tuple(n.name for n in layers),
        formats=formats,
        loss=loss_decimals({n.name: {f: loss[n.name][f] for f in formats} for n in layers}),
        size={n.name: {f: layer_bytes(graph, n, v) for f, v in formats.items()} for n in layers},
        bops={n.name: {f: macs[n.name] * w * a for f, (w, a) in bits.items()} for n in layers},
        latency_ms={
            n.name: {f: round(Decimal(latency_bound_ms[n.name]), LATENCY_DIGITS) for f in formats}
            for n in layers
        },
        shared=tuple(tuple(group) for group in shared if len(group) > 1),
    )


def to_problem(
    tables: Tables, options: DesignOptions, loss_limit: Decimal | None = None
) -> Problem:
    """The integer program: one option a layer, all metrics, the user's limits, shared inputs."""
    names = list(tables.formats)

    def metric(name: str, table: Mapping[str, Mapping[str, Decimal | int]]) -> Metric:
        values = [Decimal(table[layer][f]) for layer in tables.layers for f in names]
        digits = max(0, *(-int(v.as_tuple().exponent) for v in values))
        return Metric.choice(
            name, np.array([int(v.scaleb(digits)) for v in values], dtype=object), digits
        )

    return Problem.build(
        name=options.network,
        choices=dict.fromkeys(tables.layers, names),
        metrics=[
            metric("loss", tables.loss),
            metric("size", tables.size),
            metric("bops", tables.bops),
            metric("latency", tables.latency_ms),
        ],
        minimize=options.goal,
        limits=limits(tables, options, loss_limit),
        forbid=shared_forbids(tables),
        source=f"design of {options.network}",
    )


def limits(
    tables: Tables, options: DesignOptions, loss_limit: Decimal | None
) -> dict[str, Decimal]:
    """All upper limits on metrics of layers, in their units; the tightest counts where several are
    given."""
    found: list[tuple[str, Decimal]] = [
        (name, _absolute(tables, options, name, Decimal(str(value)), unit))
        for name, value, unit in options.limits
        if name not in BOARD_LIMITS
    ]
    if options.max_latency_ms is not None:
        found.append(("latency", Decimal(str(options.max_latency_ms))))
    if options.max_size_kb is not None:
        found.append(("size", Decimal(str(options.max_size_kb)) * 1000))
    if options.loss_budget is not None:
        least, most = tables.span("loss")
        found.append(("loss", least + Decimal(str(options.loss_budget)) * (most - least)))
    if loss_limit is not None:
        found.append(("loss", loss_limit))
    result: dict[str, Decimal] = {}
    for name, value in found:
        result[name] = min(value, result.get(name, value))
    return result


def _absolute(
    tables: Tables, options: DesignOptions, name: str, value: Decimal, unit: str
) -> Decimal:
    """The limit in the metric's unit; ``%`` is of every layer in the first offered format."""
    if unit != "%":
        return value
    return value / 100 * tables.total(name, dict.fromkeys(tables.layers, options.formats[0]))


def shared_forbids(tables: Tables) -> list[list[tuple[str, str]]]:
    """Pairs of options that give one tensor two different bit widths."""
    bits = {name: f.act_bits for name, f in tables.formats.items()}
    return [
        [(a, f), (b, g)]
        for group in tables.shared
        for a, b in combinations(group, 2)
        for f in bits
        for g in bits
        if bits[f] != bits[g] and None not in (bits[f], bits[g])
    ]
