# SPDX-License-Identifier: Apache-2.0
"""Number formats of layers: ``wNaM`` (N-bit weights, M-bit input) and ``float``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from codesign.errors import InputError
from codesign.registry import Registry

MIN_BITS, MAX_BITS = 2, 8


@dataclass(frozen=True, order=True, slots=True)
class LayerFormat:
    """Bits of a layer's weights and of the tensor it reads; both None is float.

    >>> str(LayerFormat(4, 8))
    'w4a8'
    """

    weight_bits: int | None
    act_bits: int | None

    def __post_init__(self) -> None:
        if (self.weight_bits is None) != (self.act_bits is None):
            raise InputError(
                f"a layer is float in weights and activations or in neither, got "
                f"weight_bits={self.weight_bits}, act_bits={self.act_bits}"
            )
        for label, bits in (("weights", self.weight_bits), ("activations", self.act_bits)):
            if bits is not None and not MIN_BITS <= bits <= MAX_BITS:
                raise InputError(f"{label} must have {MIN_BITS} to {MAX_BITS} bits, got {bits}")

    @property
    def is_float(self) -> bool:
        """Whether the layer stays in floating point."""
        return self.weight_bits is None

    def __str__(self) -> str:
        return "float" if self.is_float else f"w{self.weight_bits}a{self.act_bits}"


FLOAT = LayerFormat(None, None)

W8A8, W8A4, W4A8, W4A4, W2A8, W2A2 = (
    LayerFormat(w, a) for w, a in ((8, 8), (8, 4), (4, 8), (4, 4), (2, 8), (2, 2))
)

FORMATS = Registry(
    kind="number format",
    group="codesign.formats",
    builtin={
        "float": "codesign.quant.formats:FLOAT",
        "w8a8": "codesign.quant.formats:W8A8",
        "w8a4": "codesign.quant.formats:W8A4",
        "w4a8": "codesign.quant.formats:W4A8",
        "w4a4": "codesign.quant.formats:W4A4",
        "w2a8": "codesign.quant.formats:W2A8",
        "w2a2": "codesign.quant.formats:W2A2",
    },
)
"""Formats with a name; every ``wNaM`` with N and M in 2..8 is understood besides."""


def load_format(text: str) -> LayerFormat:
    """The format called ``text``; raises InputError.

    >>> load_format("w5a8")
    LayerFormat(weight_bits=5, act_bits=8)
    """
    text = text.strip()
    match = re.fullmatch(r"w(\d+)a(\d+)", text)
    if match is None:
        loaded = FORMATS.load(text)
        if not isinstance(loaded, LayerFormat):
            raise InputError(
                f"number format {text!r} of package {FORMATS.owner(text)} must be a LayerFormat, "
                f"got {type(loaded).__name__}"
            )
        return loaded
    try:
        return LayerFormat(int(match[1]), int(match[2]))
    except InputError as error:
        raise InputError(f"number format {text!r}: {error}") from None


def parse_formats(text: str) -> tuple[LayerFormat, ...]:
    """Read ``"w8a8,w4a8"``: at least one format, none twice; raises InputError.

    >>> [str(f) for f in parse_formats("w8a8, float")]
    ['w8a8', 'float']
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise InputError(
            f"number formats {text!r} have an empty entry; write them as in 'w8a8,w4a8'"
        )
    formats = tuple(load_format(part) for part in parts)
    for index, form in enumerate(formats):
        if form in formats[:index]:
            raise InputError(f"number formats {text!r} name {form} twice")
    return formats
