# SPDX-License-Identifier: Apache-2.0
"""Multiplier arrays: every packing exact over its operands, and counts as the cost model says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from codesign.cost.resources import engine_dsp
from codesign.errors import InputError
from codesign.space.device import MultiplierKind
from codesign.targets.fpga.hw.multiply import (
    DenseMultipliers,
    DepthwiseMultipliers,
    ScaleMultiplier,
)
from codesign.targets.fpga.hw.proof import DESCRIPTION, prove


@pytest.mark.parametrize("step", [96, pytest.param(1, marks=pytest.mark.soak)])
def test_packings_are_exact(tmp_path: Path, step: int) -> None:
    # Step 96 takes the activations -128, -32, 64 and 160 of the 8-bit sweeps with all weights; the
    # 4-bit sweeps are whole either way.
    found = {item.name: item for item in prove(tmp_path, step)}
    assert set(found) == set(DESCRIPTION)
    activations = -(-384 // step)
    for name, item in found.items():
        assert item.wrong == 0, f"{DESCRIPTION[name]}: {item.wrong} of {item.cases} are wrong"
    assert found["e2"].cases == found["e1d"].cases == activations * 256 * 256
    assert found["e2w"].cases == activations * 384 * 256
    assert found["e1n"].cases == found["m18d_two"].cases == 24 * 24 * 16 * 16


@pytest.mark.soak
def test_a_proof_can_fail(tmp_path: Path) -> None:
    # without the constant that keeps the lower lane from borrowing, the upper lane is one short
    def spoil(verilog: str) -> str:
        text, count = re.subn(r"48'h000000008000", "48'h000000000000", verilog)
        assert count
        return text

    found = {item.name: item for item in prove(tmp_path, 96, spoil)}
    assert found["e2"].wrong
    assert found["e1w"].wrong
    assert not found["m18"].wrong


def elaborated(array: DenseMultipliers | DepthwiseMultipliers | ScaleMultiplier) -> str:
    from amaranth.back import rtlil

    text: str = rtlil.convert(array, name="array", emit_src=False)
    return text


CELLS = {"dsp48e2": "DSP48E2", "dsp48e1": "DSP48E1", "mult18": "MULT18X18D"}


@pytest.mark.parametrize("kind", ["dsp48e2", "dsp48e1", "mult18", "lut"])
@pytest.mark.parametrize(
    ("pi", "po", "px", "weight_bits", "activation_bits", "double"),
    [(2, 8, 1, 8, 8, False), (1, 8, 2, 8, 8, True), (2, 8, 3, 4, 4, False), (1, 8, 1, 4, 4, False),
     (2, 8, 2, 4, 8, True)],
)  # fmt: skip
def test_dense_counts(
    kind: MultiplierKind, pi: int, po: int, px: int, weight_bits: int, activation_bits: int,
    double: bool,
) -> None:  # fmt: skip
    text = elaborated(
        DenseMultipliers(kind, pi, po, px, weight_bits=weight_bits,
                         activation_bits=activation_bits, double=double)
    )  # fmt: skip
    used = sum(text.count(f"cell \\{name} ") for name in CELLS.values())
    assert used == engine_dsp("dense", kind, pi, po, px, weight_bits, activation_bits, 0)
    assert "$mul" not in text  # nothing is left to inference


@pytest.mark.parametrize("kind", ["dsp48e2", "dsp48e1", "mult18", "lut"])
@pytest.mark.parametrize("px", [1, 2, 3])
def test_depthwise_counts(kind: MultiplierKind, px: int) -> None:
    text = elaborated(DepthwiseMultipliers(kind, 8, px))
    used = sum(text.count(f"cell \\{name} ") for name in CELLS.values())
    assert used == engine_dsp("depthwise", kind, 1, 8, px, 8, 8, 0)
    assert "$mul" not in text


@pytest.mark.parametrize("kind", ["dsp48e2", "dsp48e1", "mult18"])
def test_scale_counts(kind: MultiplierKind) -> None:
    for bits, count in ((32, 2), (18, 1)):
        text = elaborated(ScaleMultiplier(kind, bits))
        assert text.count(f"cell \\{CELLS[kind]} ") == count
        assert "$mul" not in text


def test_what_cannot_be_made() -> None:
    with pytest.raises(InputError, match="have no doubled rate; it needs 4-bit weights or wider"):
        DenseMultipliers("dsp48e2", 1, 2, 1, weight_bits=4, activation_bits=4, double=True)
    with pytest.raises(InputError, match="takes the device's hard multiplier, not LUTs"):
        ScaleMultiplier("lut")
    with pytest.raises(InputError, match="expected one of dsp48e2, dsp48e1, mult18, lut"):
        DepthwiseMultipliers("dsp58", 8, 1)  # type: ignore[arg-type]
