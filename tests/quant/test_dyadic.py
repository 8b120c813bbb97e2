# SPDX-License-Identifier: Apache-2.0
"""Dyadic factors and requantisation against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesign.quant.dyadic import dyadic, requantize

FACTORS = st.floats(min_value=2.0**-46, max_value=32767.0, allow_nan=False)


@pytest.mark.parametrize(
    ("factor", "m", "e"),
    [
        (1.0, 32768, 15), (0.5, 32768, 16), (3.0, 49152, 14), (0.0, 0, 1),
        (2.0**-47, 32768, 62), (2.0**-48, 0, 1), (16384.0, 32768, 1),
        (1 - 2.0**-20, 32768, 15),  # rounds up to 2^16, renormalised
        (1 / 3, 43691, 17),
    ],
)  # fmt: skip
def test_anchors(factor: float, m: int, e: int) -> None:
    assert [int(v) for v in dyadic(factor)] == [m, e]


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), -0.5])
def test_not_a_factor(factor: float) -> None:
    with pytest.raises(ValueError, match=r"^rescaling factor must be finite and not negative$"):
        dyadic(factor)


def test_too_great_a_factor() -> None:
    with pytest.raises(ValueError, match=r"^rescaling factor 32768 is 32768 or more$"):
        dyadic([1.0, 32768.0])


@given(FACTORS)
def test_normalised_and_near(factor: float) -> None:
    m, e = (int(v) for v in dyadic(factor))
    assert 2**15 <= m < 2**16
    assert 1 <= e <= 62
    error = abs(Fraction(m, 2**e) - Fraction(factor)) / Fraction(factor)
    assert error <= Fraction(1, 2**16)


@given(st.lists(FACTORS, min_size=1, max_size=8))
def test_vectors_are_elementwise(factors: list[float]) -> None:
    m, e = dyadic(np.array(factors))
    for index, factor in enumerate(factors):
        assert (m[index], e[index]) == dyadic(factor)


@given(st.integers(-(2**31), 2**31 - 1), FACTORS, st.integers(1, 62))
def test_requantize_is_round_half_up(acc: int, factor: float, e: int) -> None:
    m = int(dyadic(factor)[0])
    exact = Fraction(acc * m, 2**e) + Fraction(1, 2)
    want = min(max(exact.numerator // exact.denominator, -128), 127)
    assert int(requantize(np.array([acc]), m, e, -128, 127)[0]) == want
