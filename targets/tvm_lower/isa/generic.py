# SPDX-License-Identifier: Apache-2.0
"""No instruction set in particular: products in int32, vectorised by the compiler."""

from __future__ import annotations

from codesign.targets.tvm_lower.isa.base import InstructionSet

SET = InstructionSet("generic", vector_bits=128, registers=16, dots=lambda data, weights: ())
