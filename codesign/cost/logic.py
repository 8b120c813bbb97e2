# SPDX-License-Identifier: Apache-2.0
"""LUTs and FFs of an accelerator's units: features of their structure times fitted coefficients.

Features count what the generator instantiates: bits of adders, of multiplexers, of registers. The
coefficients stand in ``logic.json``, by family of parts, and come from ``benchmarks/resources.py``,
which fits them to units synthesised by yosys and states the errors on others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from codesign.cost.packing import lut_product
from codesign.errors import InputError
from codesign.space.accelerator import Engine

Features = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """What the logic of an engine depends on; numbers, or arrays that broadcast."""

    dense: bool
    pi: Any
    po: Any
    px: Any
    weight_bits: Any
    activation_bits: Any
    post: Any
    double: Any
    """0 or 1."""
    product: Any
    """LUTs of a product; 0 for hard multipliers."""
    accumulator_bits: Any = 32

    @staticmethod
    def of(e: Engine, family: str) -> Sizes:
        """Of an engine."""
        luts = lut_product(family, e.weight_bits, e.activation_bits) if e.multiplier == "lut" else 0
        return Sizes(
            e.kind == "dense", e.pi, e.po, e.px, e.weight_bits, e.activation_bits, e.post,
            int(e.double), luts, e.accumulator_bits,
        )  # fmt: skip

    @property
    def channels(self) -> Any:
        """Channels of a word of the activation buffer."""
        return self.pi if self.dense else self.po

    @property
    def memories(self) -> Any:
        """Memories of the activation buffer that are addressed apart."""
        return self.px * (1 + self.double)

    @property
    def lanes(self) -> Any:
        """Memories side by side in each of them."""
        return np.maximum(1, np.asarray(self.channels) // 8)

    @property
    def narrow(self) -> Any:
        """1 where both operands have at most 4 bits."""
        return np.maximum(self.weight_bits, self.activation_bits) <= 4


def mux(family: str, ways: Any) -> Any:
    """LUTs of a bit chosen among ``ways``: three more a LUT6, one more a LUT4."""
    return -(-(np.asarray(ways) - 1) // (1 if family == "ecp5" else 3))


def tree_bits(terms: Any, bits: Any) -> Any:
    """Bits of the adders of a tree of ``terms`` products of ``bits``, each level a bit wider.

    >>> int(tree_bits(4, 16)), int(tree_bits(1, 16))
    (52, 0)
    """
    total, left = np.asarray(0), np.asarray(terms)
    for level in range(1, 10):
        pairs = left // 2
        total = total + pairs * (bits + level)
        left = left - pairs
    return total


def dense_features(family: str, s: Sizes) -> Features:
    """Walker and operands, adder trees, sums, the way to the accumulators' memory."""
    outputs = s.po * s.px
    bits = s.weight_bits + s.activation_bits
    return {
        "one": 1,
        "memory": s.memories,
        "rotate": s.px * s.pi * s.activation_bits * mux(family, s.px),
        "operand": s.px * s.pi * s.activation_bits,
        "operand_double": s.double * s.px * s.pi * s.activation_bits,
        "tree": outputs * tree_bits(s.pi, bits),
        "tree_double": s.double * outputs * tree_bits(s.pi, 8),
        "sum": outputs * s.accumulator_bits,
        "sum_double": s.double * outputs * s.accumulator_bits,
        "product_double": s.double * outputs * s.pi,
        "narrow": s.narrow * (np.asarray(s.product) == 0) * outputs * s.pi,
        "product": s.product * outputs * s.pi,
    }


def drain_features(family: str, s: Sizes, hard: Any = 1) -> Features:
    """Requantisers, queue, store and placing; the choice of a sum for each of them."""
    pixels = np.maximum(1, np.asarray(s.post) // 8)
    ways = -(-np.asarray(s.px) // pixels) * (s.po // 8)
    return {
        "one": 1,
        "post": s.post,
        "choice": s.post * s.accumulator_bits * mux(family, ways * np.where(s.post == 4, 2, 1)),
        "soft": s.post * (1 - np.asarray(hard)),
    }


def depthwise_features(family: str, s: Sizes, hard: Any = 1) -> Features:
    """A whole depthwise engine with its way out."""
    outputs = s.po * s.px
    return {
        "one": 1,
        "post": s.post,
        "memory": s.px,
        "rotate": outputs * s.activation_bits * mux(family, s.px),
        "output": outputs,
        "product": s.product * outputs,
        "soft": s.post * (1 - np.asarray(hard)),
    }


def activation_features(family: str, s: Sizes, wide: Any) -> Features:
    """``wide``: 1 for a port of 128 bits, two pixels a cycle."""
    bits = np.minimum(s.channels, 8) * s.activation_bits
    return {
        "one": 1,
        "memory": s.memories,
        "lane": s.memories * s.lanes,
        "wide": wide * s.memories * bits,
        "nibbles": s.double * s.memories * bits,
        "word": s.memories * s.lanes * np.where(s.double, bits // 2, bits),
    }


def weight_features(family: str, s: Sizes) -> Features:
    """One memory, gathered from beats."""
    return {"one": 1, "word": s.pi * s.po * s.weight_bits}


def sums_features(family: str, s: Sizes) -> Features:
    """Two readers of two halves."""
    return {"one": 1, "word": s.po * s.px * s.accumulator_bits}


def loader_features(family: str, dense: Sizes, other: Sizes, wide: Any) -> Features:
    """Shifts and sums for the sizes of words; places of two pixels on a wide port."""
    return {
        "one": 1,
        "wide": wide,
        "granules": dense.pi * dense.po * (1 - 0.5 * np.asarray(wide)),
        "memories": dense.memories + other.memories,
    }


def system_features(family: str, wide: Any) -> Features:
    """Everything else: registers, dispatcher, port; parameter and tap memories."""
    return {"one": 1, "wide": wide}


Coefficients = Mapping[str, Mapping[str, float]]
"""Unit to feature to LUTs (or FFs) of each."""


@dataclass(frozen=True)
class LogicModel:
    """Coefficients of one family."""

    family: str
    lut: Coefficients
    ff: Coefficients

    def total(self, what: str, dense: Sizes, other: Sizes, port_bits: Any, hard: Any) -> Any:
        """LUTs (``what`` "lut") or FFs of everything, as whole numbers. ``hard``: 1 where the
        requantisers have hard multipliers."""
        wide = (np.asarray(port_bits) >= 128).astype(np.int64)
        table = self.lut if what == "lut" else self.ff
        units = [
            ("dense", dense_features(self.family, dense)),
            ("drain", drain_features(self.family, dense, hard)),
            ("depthwise", depthwise_features(self.family, other, hard)),
            ("sums", sums_features(self.family, dense)),
            ("loader", loader_features(self.family, dense, other, wide)),
            ("system", system_features(self.family, wide)),
        ]
        for s in (dense, other):
            units.append(("activation", activation_features(self.family, s, wide)))
            units.append(("weight", weight_features(self.family, s)))
        total: Any = 0.0
        for unit, features in units:
            for name, value in features.items():
                factor = table.get(unit, {}).get(name, 0.0)
                if factor:
                    total = total + factor * value
        return np.rint(table.get("whole", {}).get("one", 1.0) * total).astype(np.int64)


@cache
def logic_model(family: str) -> LogicModel:
    """The fitted model of a family; raises InputError for one that was not fitted."""
    text = (resources.files("codesign.cost") / "logic.json").read_text(encoding="utf-8")
    data = json.loads(text)
    if family not in data:
        raise InputError(f"no resource model of family {family!r} (known: {', '.join(data)})")
    return LogicModel(family, data[family]["lut"], data[family]["ff"])
