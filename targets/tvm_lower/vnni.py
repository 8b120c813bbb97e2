# SPDX-License-Identifier: Apache-2.0
"""The AVX-512 VNNI dot product as a tensor intrinsic.

TVM ships one (``dot_16x4_vnni``), but LLVM 22 changed the intrinsic's operand types, and
importing the module it lives in parses every GPU intrinsic first, which takes over a minute.
"""

from __future__ import annotations

from tvm.s_tir import TensorIntrin
from tvm.script import tirx as T

NAME = "codesign.dot_u8s8s32_16x4"


@T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
def _description(
    A: T.Buffer((4,), "uint8", offset_factor=1),  # type: ignore[valid-type]
    B: T.Buffer((16, 4), "int8", offset_factor=1),  # type: ignore[valid-type]
    C: T.Buffer((16,), "int32", offset_factor=1),  # type: ignore[valid-type]
) -> None:
    with T.sblock("root"):
        T.reads(C[0:16], A[0:4], B[0:16, 0:4])
        T.writes(C[0:16])
        for i in T.serial(0, 16):
            for k in T.serial(0, 4):
                with T.sblock("update"):
                    vi, vk = T.axis.remap("SR", [i, k])
                    C[vi] = C[vi] + T.cast(A[vk], "int32") * T.cast(B[vi, vk], "int32")


@T.prim_func(s_tir=True)  # type: ignore[untyped-decorator]
def _implementation(
    A: T.Buffer((4,), "uint8", offset_factor=1),  # type: ignore[valid-type]
    B: T.Buffer((16, 4), "int8", offset_factor=1),  # type: ignore[valid-type]
    C: T.Buffer((16,), "int32", offset_factor=1),  # type: ignore[valid-type]
) -> None:
    with T.sblock("root"):
        T.reads(C[0:16], A[0:4], B[0:16, 0:4])
        T.writes(C[0:16])
        bytes4 = A.vload([0], "uint8x4")
        word = T.reinterpret(bytes4, dtype="int32")
        spread = T.reinterpret(T.broadcast(word, 16), dtype="uint8x64")
        weights = B.vload([0, 0], dtype="int8x64")
        total = C.vload([0], dtype="int32x16")
        C[T.ramp(T.int32(0), 1, 16)] = T.call_llvm_pure_intrin(
            T.llvm_lookup_intrinsic_id("llvm.x86.avx512.vpdpbusd.512"),
            total, spread, weights, dtype="int32x16")  # fmt: skip


TensorIntrin.register(NAME, _description, _implementation, override=True)
