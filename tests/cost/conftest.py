# SPDX-License-Identifier: Apache-2.0
"""Random but legal shapes, engines and chains, made from a seed."""

from __future__ import annotations

import random
from typing import Literal

from codesign.cost.chain import ChainShape
from codesign.space.accelerator import Buffer, Engine
from codesign.space.workload import LayerShape


def draw_shape(rng: random.Random, kind: str = "", residual: bool = True) -> LayerShape:
    """A layer of up to 64 x 64 pixels and some hundred channels."""
    kind = kind or rng.choice(["dense", "dense", "depthwise", "grouped", "linear"])
    k, s, d = rng.choice([(1, 1, 1), (1, 2, 1), (3, 1, 1), (3, 2, 1), (5, 1, 1), (3, 1, 2)])
    if kind == "linear":
        n, m = rng.randint(1, 3000), rng.randint(1, 1000)
        one = (1, 1)
        return LayerShape("dense", n, m, 1, one, one, one, (1, 1), (1, 1))
    out = (rng.choice([1, 2, 4, 7, 8, 14, 17, 28, 56]), rng.choice([1, 4, 7, 8, 14, 23, 56]))
    pad = rng.choice([0, (k - 1) // 2 * 2])
    rows, columns = (max(1, (o - 1) * s + (k - 1) * d + 1 - pad) for o in out)
    groups = 1
    ci, co = rng.randint(1, 200), rng.randint(1, 200)
    if kind == "depthwise":
        co = groups = ci
    elif kind == "grouped":
        groups = rng.choice([2, 4])
        ci, co = ci * groups, co * groups
    name: Literal["dense", "depthwise"] = "depthwise" if kind == "depthwise" else "dense"
    with_residual = residual and rng.random() < 0.3
    return LayerShape(
        name, ci, co, groups, (k, k), (s, s), (d, d), (rows, columns), out, with_residual
    )


def draw_dense(rng: random.Random) -> Engine:
    """A dense engine."""
    banks = rng.choice([2, 2, 1])
    return Engine(
        "dense",
        rng.choice([4, 8, 12, 16, 32]),
        rng.choice([8, 16, 24]),
        rng.choice([1, 2, 4]),
        Buffer(rng.choice([512, 1024, 2048]), banks),
        Buffer(rng.choice([512, 2048, 8192]), banks),
        Buffer(rng.choice([256, 1024]), banks),
        double=rng.random() < 0.5,
        post=rng.choice([4, 8, 16]),
    )


def draw_depthwise(rng: random.Random) -> Engine:
    """A depthwise engine."""
    return Engine(
        "depthwise",
        1,
        rng.choice([4, 8, 16]),
        rng.choice([1, 2, 4]),
        Buffer(rng.choice([256, 1024])),
        Buffer(rng.choice([1024, 4096])),
        post=rng.choice([2, 4]),
    )


def draw_chain(rng: random.Random) -> ChainShape:
    """A chain of two or three layers."""
    ci, mid, co = (rng.randint(1, n) for n in (60, 200, 60))
    k, s = rng.choice([3, 5]), rng.choice([1, 2])
    size = (rng.choice([4, 7, 8, 14, 28]), rng.choice([4, 7, 15, 28]))
    out = (-(-size[0] // s), -(-size[1] // s))
    one = (1, 1)
    parts = rng.choice([(True, True), (True, True), (True, False), (False, True)])
    residual = s == 1 and parts[1] and rng.random() < 0.5
    co = ci if residual else co
    expand = LayerShape("dense", ci, mid, 1, one, one, one, size, size) if parts[0] else None
    depthwise = LayerShape("depthwise", mid, mid, mid, (k, k), (s, s), one, size, out)
    project = None
    if parts[1]:
        project = LayerShape("dense", mid, co, 1, one, one, one, out, out, residual)
    return ChainShape(expand, depthwise, project, residual and parts[0] and rng.random() < 0.7)
