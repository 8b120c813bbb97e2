# SPDX-License-Identifier: Apache-2.0
"""The TFLite reader on MLPerf Tiny's files, whole and damaged."""

from __future__ import annotations

import contextlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codesign.data import data_root
from codesign.errors import InputError, ParseError
from codesign.zoo.tflite import TfliteTensor, read_tflite


@cache
def int8_file() -> Path:
    try:
        return data_root() / "mlperf_tiny" / "resnet8_cifar10_int8.tflite"
    except InputError as error:
        pytest.skip(str(error))


def test_operators_and_formats_of_the_int8_file() -> None:
    model = read_tflite(int8_file())
    kinds = [operator.kind for operator in model.operators]
    assert kinds.count("CONV_2D") == 9
    assert kinds.count("ADD") == 3
    assert kinds[-3:] == ["RESHAPE", "FULLY_CONNECTED", "SOFTMAX"]
    source = model.tensors[model.inputs[0]]
    assert source.shape == (1, 32, 32, 3)
    assert (source.scales.tolist(), source.zero_points.tolist()) == ([1.0], [-128])
    assert source.data is None
    for operator in model.operators:
        if operator.kind == "CONV_2D":
            x, kernel, bias = (model.tensors[i] for i in operator.inputs)
            assert kernel.dtype == np.int8
            assert kernel.scales.shape == (kernel.shape[0],)
            assert not kernel.zero_points.any()
            np.testing.assert_allclose(bias.scales, kernel.scales * x.scales, rtol=1e-6)


def test_dequantize_by_channel() -> None:
    tensor = TfliteTensor(
        name="w",
        shape=(2, 2),
        dtype=np.dtype(np.int8),
        data=np.array([[1, -2], [3, 4]], np.int8),
        scales=np.array([0.5, 2.0], np.float32),
        zero_points=np.array([0, 1]),
        axis=0,
    )
    np.testing.assert_array_equal(tensor.values(), [[0.5, -1.0], [4.0, 6.0]])


def test_activation_has_no_values() -> None:
    model = read_tflite(int8_file())
    with pytest.raises(ParseError, match="is an activation and has no data"):
        model.tensors[model.inputs[0]].values()


def test_other_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tflite"
    path.write_bytes(b"PK\x03\x04 a zip file")
    with pytest.raises(ParseError, match="is not a TFLite file"):
        read_tflite(path)


def test_truncation_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "short.tflite"
    path.write_bytes(int8_file().read_bytes()[:2000])
    with pytest.raises(ParseError, match=r"short\.tflite' is a damaged TFLite file"):
        read_tflite(path)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cut=st.one_of(st.none(), st.floats(0, 1)),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=20),
)
def test_damage_is_a_parse_error_and_nothing_else(
    cut: float | None, edits: list[tuple[float, int]], tmp_path: Path
) -> None:
    content = bytearray(int8_file().read_bytes())
    for place, value in edits:
        content[8 + int(place * (len(content) - 9))] = value
    if cut is not None:
        del content[int(cut * len(content)) :]
    path = tmp_path / "damaged.tflite"
    path.write_bytes(content)
    with contextlib.suppress(ParseError):
        read_tflite(path)
