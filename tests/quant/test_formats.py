# SPDX-License-Identifier: Apache-2.0
"""Number formats: text, limits, messages."""

from __future__ import annotations

import pytest

from codesign.errors import InputError
from codesign.quant.formats import FORMATS, LayerFormat, load_format, parse_formats


@pytest.mark.parametrize("weight_bits", range(2, 9))
@pytest.mark.parametrize("act_bits", range(2, 9))
def test_every_format_round_trips(weight_bits: int, act_bits: int) -> None:
    form = LayerFormat(weight_bits, act_bits)
    assert str(form) == f"w{weight_bits}a{act_bits}"
    assert load_format(str(form)) == form


def test_registered_names_mean_what_they_say() -> None:
    builtin = [name for name in FORMATS if FORMATS.owner(name) == "codesign"]
    assert builtin
    assert [str(FORMATS.load(name)) for name in builtin] == builtin


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("w9a8", "number format 'w9a8': weights must have 2 to 8 bits, got 9"),
        ("w8a1", "number format 'w8a1': activations must have 2 to 8 bits, got 1"),
        ("w8a8,,w4a4", "number formats 'w8a8,,w4a4' have an empty entry; write them as in "
                       "'w8a8,w4a8'"),
        ("", "number formats '' have an empty entry; write them as in 'w8a8,w4a8'"),
        ("w8a8,w8a8", "number formats 'w8a8,w8a8' name w8a8 twice"),
    ],
)  # fmt: skip
def test_bad_formats(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_formats(text)
    assert str(caught.value) == message


def test_unknown_format_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"^unknown number format 'flaot'; did you mean 'float'\?"):
        load_format("flaot")


def test_half_float_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        LayerFormat(8, None)
    assert str(caught.value) == (
        "a layer is float in weights and activations or in neither, got weight_bits=8, "
        "act_bits=None"
    )
