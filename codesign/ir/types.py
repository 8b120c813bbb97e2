# SPDX-License-Identifier: Apache-2.0
"""Element and tensor types of the graph IR."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["float", "signed", "unsigned"]
_LETTER: dict[Kind, str] = {"float": "f", "signed": "s", "unsigned": "u"}
_KIND: dict[str, Kind] = {letter: kind for kind, letter in _LETTER.items()}


@dataclass(frozen=True, slots=True)
class DType:
    """Number format of one element: ``f32``, ``s8``, ``u4``, ``s32``, …

    Integers have 1 to 64 bits (two's complement when signed); floats have 32 or 64.
    """

    kind: Kind
    bits: int

    def __post_init__(self) -> None:
        ok = self.bits in (32, 64) if self.kind == "float" else 1 <= self.bits <= 64
        if not ok:
            raise ValueError(f"no number format has kind {self.kind} and {self.bits} bits")

    @classmethod
    def parse(cls, text: str) -> DType:
        """Read ``f32``, ``s8``, ``u4``, …

        >>> DType.parse("u4")
        DType(kind='unsigned', bits=4)
        """
        match = re.fullmatch(r"([fsu])(\d+)", text)
        if match is None:
            raise ValueError(f"no number format is called {text!r} (expected f32, s8, u4, …)")
        return cls(_KIND[match[1]], int(match[2]))

    def __str__(self) -> str:
        return f"{_LETTER[self.kind]}{self.bits}"

    @property
    def is_float(self) -> bool:
        """Whether elements are floating point."""
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        """Whether elements are integers."""
        return self.kind != "float"

    @property
    def min(self) -> int:
        """Least integer the format holds."""
        if self.is_float:
            raise ValueError(f"{self} is no integer format")
        return -(1 << (self.bits - 1)) if self.kind == "signed" else 0

    @property
    def max(self) -> int:
        """Greatest integer the format holds."""
        if self.is_float:
            raise ValueError(f"{self} is no integer format")
        return (1 << (self.bits - 1)) - 1 if self.kind == "signed" else (1 << self.bits) - 1

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The smallest NumPy type that stores the format."""
        if self.is_float:
            return np.dtype(f"float{self.bits}")
        width = max(8, 1 << (self.bits - 1).bit_length())
        return np.dtype(f"{'int' if self.kind == 'signed' else 'uint'}{width}")


F32 = DType("float", 32)
S8 = DType("signed", 8)
U8 = DType("unsigned", 8)
S32 = DType("signed", 32)


@dataclass(frozen=True, slots=True)
class TensorType:
    """Type of a value: logical shape, number format, physical layout.

    ``shape`` is always the logical one (images: N, C, H, W). ``layout`` names the order the
    axes have in memory, outermost first, with one letter per logical axis: ``"NHWC"`` is an
    image stored channels-last. An empty layout means the logical order (row-major).
    """

    shape: tuple[int, ...]
    dtype: DType = F32
    layout: str = ""

    def __post_init__(self) -> None:
        if self.layout and len(set(self.layout)) != len(self.shape):
            raise ValueError(f"layout {self.layout!r} does not name each axis of {self.shape} once")

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes of the packed tensor: sub-byte elements share bytes."""
        return -(-self.size * self.dtype.bits // 8)

    def with_shape(self, shape: tuple[int, ...]) -> TensorType:
        """The same element type with another shape, in row-major layout."""
        return TensorType(shape, self.dtype)

    def __str__(self) -> str:
        text = f"{self.dtype}[{','.join(map(str, self.shape))}]"
        return f"{text}@{self.layout}" if self.layout else text

    @classmethod
    def parse(cls, text: str) -> TensorType:
        """Read the printed form.

        >>> TensorType.parse("u8[1,16,8,8]@NHWC").shape
        (1, 16, 8, 8)
        """
        match = re.fullmatch(r"(\w+)\[((?:\d+(?:,\d+)*)?)\](?:@([A-Z]+))?", text)
        if match is None:
            raise ValueError(f"not a tensor type: {text!r} (expected e.g. f32[1,3,8,8])")
        shape = tuple(int(part) for part in match[2].split(",") if part)
        return cls(shape, DType.parse(match[1]), match[3] or "")
