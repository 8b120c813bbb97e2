# SPDX-License-Identifier: Apache-2.0
"""Quantization: formats, calibration, the integer network, its accuracy, sensitivity."""

from __future__ import annotations

from codesign.quant.accumulator import accumulator_bits
from codesign.quant.accuracy import Accuracy, evaluate
from codesign.quant.calibrate import Calibration, calibrate
from codesign.quant.data import load_calibration, load_eval
from codesign.quant.dyadic import dyadic
from codesign.quant.formats import FORMATS, LayerFormat, load_format, parse_formats
from codesign.quant.groups import shared_inputs
from codesign.quant.integer import Quantized, quantize_graph
from codesign.quant.options import QuantOptions
from codesign.quant.qdq import QdqImport, absorb_qdq

__all__ = [
    "FORMATS", "Accuracy", "Calibration", "LayerFormat", "QdqImport", "QuantOptions", "Quantized",
    "absorb_qdq", "accumulator_bits", "calibrate", "dyadic", "evaluate", "load_calibration",
    "load_eval", "load_format", "parse_formats", "quantize_graph", "shared_inputs",
]  # fmt: skip
