# SPDX-License-Identifier: Apache-2.0
"""NEON with dot products (Cortex-A55, A76): ``sdot`` and ``udot``, 16 products an instruction.

Both operands have one signedness (``usdot`` came with Armv8.6), so unsigned inputs above 127 are
shifted by 128 for signed weights, and the template corrects the bias.
"""

from __future__ import annotations

from tvm import tirx
from tvm.target.codegen import llvm_lookup_intrinsic_id

from codesign.targets.tvm_lower.isa.base import Dot, InstructionSet, Range
from codesign.targets.tvm_lower.isa.neon import SCALING, byte_offset, fit_bytes, lanewise
from codesign.targets.tvm_lower.kernel import Expr, const

_LANES = 4


def _add(name: str, kind: str, total: Expr, data: Expr, weights: Expr) -> Expr:
    spread = tirx.Broadcast(tirx.reinterpret("int32", data), _LANES)
    return tirx.call_llvm_pure_intrin(
        "int32x4", llvm_lookup_intrinsic_id(f"llvm.aarch64.neon.{name}.v4i32.v16i8"),
        total, tirx.reinterpret(kind, spread), weights,
    )  # fmt: skip


def _dot(name: str, kind: str, offset: int) -> Dot:
    vector = f"{kind}x16"
    return Dot(
        name, _LANES, 4, kind, kind,
        first=lambda data, weights: _add(
            name, vector, tirx.Broadcast(const(0, "int32"), _LANES), data, weights
        ),
        add=lambda total, data, weights: _add(name, vector, total, data, weights),
        offset=offset,
    )  # fmt: skip


def _dots(data: Range, weights: Range) -> tuple[Dot, ...]:
    if weights.low >= 0 and data.low >= 0 and max(data.high, weights.high) <= 255:
        return (_dot("udot", "uint8", 0),)
    if fit_bytes(data, weights):
        return (_dot("sdot", "int8", byte_offset(data)),)
    return ()


SET = InstructionSet(
    "neon-dot", vector_bits=128, registers=32, dots=_dots, lanewise=lanewise,
    scaling=SCALING)  # fmt: skip
