# SPDX-License-Identifier: Apache-2.0
"""Calibration statistics, scales and messages about data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codesign.errors import InputError
from codesign.ir.graph import Graph, GraphBuilder
from codesign.ir.ops import Activation, Linear
from codesign.ir.types import TensorType
from codesign.quant import calibrate, evaluate, load_calibration, load_eval
from codesign.quant.histogram import BINS, METHODS, Histogram, Method


def net() -> Graph:
    b = GraphBuilder("net")
    x = b.input("x", TensorType((1, 2)))
    h = b.add(Activation("hardswish"), [x], "act")
    w = b.constant(np.eye(2, dtype=np.float32), "w")
    return b.finish([b.add(Linear(bias=False, activation="silu"), [h, w], "fc")])


def histogram(values: list[np.ndarray[tuple[int], np.dtype[np.float32]]]) -> Histogram:
    made = Histogram()
    for part in values:
        made.add(part)
    return made


def test_streaming_counts_everything_once() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, size, 1000).astype(np.float32) for size in (0.01, 30, 1)]
    parts.insert(0, np.zeros(10, np.float32))
    whole, streamed = histogram([np.concatenate(parts)]), histogram(parts)
    assert streamed.reach == whole.reach
    assert streamed.counts.sum() == 3010
    np.testing.assert_array_equal(streamed.counts, whole.counts)
    edges = (np.arange(2 * BINS + 1) - BINS) * (whole.reach / BINS)
    np.testing.assert_array_equal(whole.counts, np.histogram(np.concatenate(parts), edges)[0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_scales_are_within_the_range(method: Method, bits: int) -> None:
    values = np.random.default_rng(1).laplace(size=20000).astype(np.float32)
    stats = histogram([values]).freeze()
    full = stats.scale(bits, True, "minmax")
    assert full == np.float32(
        max(stats.most / (2 ** (bits - 1) - 1), -stats.least / 2 ** (bits - 1))
    )
    assert 0 < stats.scale(bits, True, method) <= full


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_mse_is_the_best_of_all(bits: int) -> None:
    """The real squared error of the chosen scale is that of a direct search, to 2 percent."""
    values = np.abs(np.random.default_rng(2).normal(size=50000)).astype(np.float32)
    stats = histogram([values]).freeze()

    def error(scale: float) -> float:
        q = np.clip(np.floor(values / scale + 0.5), 0, 2**bits - 1)
        return float(np.square(values - q * scale).mean())

    full = stats.scale(bits, False, "minmax")
    best = min(error(full * share) for share in np.linspace(0.02, 1, 300))
    assert error(stats.scale(bits, False, "mse")) <= 1.02 * best


def test_percentile_leaves_the_outlier_out() -> None:
    values = np.concatenate([np.linspace(0, 1, 100000), [50.0]]).astype(np.float32)
    stats = histogram([values]).freeze()
    assert stats.scale(8, False, "minmax") == np.float32(50 / 255)
    assert stats.scale(8, False, "percentile") == pytest.approx(1 / 255, rel=0.02)


def test_zeros_only() -> None:
    assert histogram([np.zeros(5, np.float32)]).freeze().scale(8, False) == 1.0


def test_unknown_method() -> None:
    with pytest.raises(InputError) as caught:
        histogram([np.ones(5, np.float32)]).freeze().scale(8, False, "best")  # type: ignore[arg-type]
    assert str(caught.value) == (
        "unknown calibration method 'best' (known: minmax, percentile, mse, entropy)"
    )


def test_values_and_progress() -> None:
    done: list[int] = []
    data = np.array([[1, -2], [3, 4], [-5, 6]], np.float32)
    seen = calibrate(net(), [data[:2], data[2:]], progress=done.append)
    assert done == [2, 3]
    assert seen.samples == 3
    assert (seen["x"].least, seen["x"].most) == (-5, 6)
    assert seen["fc:pre"].most == 6  # hardswish(6)
    np.testing.assert_allclose(seen.means["fc"], [(4 / 6 + 3 + 0) / 3, (-2 / 6 + 4 + 6) / 3],
                               rtol=1e-6)  # fmt: skip
    np.testing.assert_array_equal(seen.images["x"], data)


NAN = np.array([[1, 2], [np.nan, 1]], np.float32)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "calibration data: no samples"),
        ([np.zeros((0, 2), np.float32)], "calibration data, batch 0: input 'x' has no samples"),
        ([np.zeros((4, 3), np.float32)],
         "calibration data, batch 0: input 'x' of net takes [N, 2], got float32[4, 3]"),
        ([np.array([["a", "b"]])],
         "calibration data, batch 0: input 'x' must hold numbers, got <U1"),
        ([np.ones((1, 2), np.float32), NAN],
         "calibration data, batch 1: input 'x' holds 1 values that are NaN or infinite, the first "
         "at [1, 0]"),
        ([{"z": NAN}], "calibration data, batch 0: no array for input 'x' of net"),
    ],
)  # fmt: skip
def test_bad_data(
    data: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        calibrate(net(), data)
    assert str(caught.value) == message


def test_values_that_overflow_are_named() -> None:
    with pytest.raises(InputError) as caught:
        calibrate(net(), [np.full((1, 2), 3e38, np.float32)])
    assert str(caught.value) == (
        "net: value 'act' becomes NaN or infinite on calibration data; check the weights and "
        "the scale of the inputs"
    )


def save(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_files(tmp_path: Path) -> None:
    x, y = np.arange(6, dtype=np.uint8).reshape(3, 2), np.array([0, 1, 1], np.int32)
    path = save(tmp_path / "data.npz", x=x, y=y)
    assert load_calibration(path).dtype == np.float32
    np.testing.assert_array_equal(load_eval(path)[0], x)
    np.testing.assert_array_equal(load_eval(path)[1], y)


def file_error(path: Path, labels: bool = False) -> str:
    with pytest.raises(InputError) as caught:
        load_eval(path) if labels else load_calibration(path)
    return str(caught.value)


def test_bad_files(tmp_path: Path) -> None:
    p = tmp_path / "d.npz"
    assert file_error(p) == f"no such data file: {p}"
    p.write_bytes(b"PK\x03\x04 cut off")
    assert file_error(p) == f"{p} is no readable .npz file: File is not a zip file"
    assert file_error(save(p, images=NAN)) == f"{p} has no array 'x' (arrays there: images)"
    assert file_error(save(p, x=NAN)) == (
        f"calibration file {p}: array 'x' holds 1 values that are NaN or infinite, the first at "
        "[1, 0]"
    )
    assert file_error(save(p, x=np.zeros((0, 2)))) == (
        f"calibration file {p}: array 'x' has no samples"
    )
    assert file_error(save(p, x=np.array(["a"]))) == (
        f"calibration file {p}: array 'x' must hold numbers, got <U1"
    )
    one = np.ones((2, 2), np.float32)
    assert file_error(save(p, x=one, y=np.ones(2)), labels=True) == (
        f"evaluation file {p}: array 'y' must hold integer labels of shape [2], got float64[2]"
    )
    assert file_error(save(p, x=one, y=np.ones(3, int)), labels=True) == (
        f"evaluation file {p}: 'x' has 2 samples, 'y' has 3 labels"
    )


def test_accuracy() -> None:
    x = np.array([[1, 5], [4, 1], [2, 1], [0, 3]], np.float32)
    done: list[int] = []
    got = evaluate(net(), x, np.array([1, 0, 1, 1]), batch=3, progress=done.append)
    assert (got.correct, got.samples, got.top1) == (3, 4, 75.0)
    assert done == [3, 4]


def test_accuracy_messages() -> None:
    x = np.ones((2, 2), np.float32)
    with pytest.raises(InputError) as caught:
        evaluate(net(), x, np.array([0]))
    assert str(caught.value) == "evaluation data: 2 samples, but 1 labels"
    with pytest.raises(InputError) as caught:
        evaluate(net(), x, np.array([0, 7]))
    assert str(caught.value) == "evaluation data: labels 0..7, but net has 2 classes"
