# SPDX-License-Identifier: Apache-2.0
"""Passes for a user's own TVM pipeline: quantize a Relax module, lower it, give parts away.

>>> import codesign.tvm
>>> codesign.tvm.lower_int8().info.name
'codesign.lower_int8'

See docs/tvm-plugin.md.
"""

from __future__ import annotations

from tvm_ffi import register_error

from codesign.errors import InputError, UnsupportedError, VerifyError
from codesign.tvm.partition import ACCELERATOR, partition, partitions, simulate
from codesign.tvm.passes import integer_graph, lower_int8, quantize, target
from codesign.tvm.read import read_function

for _error in (InputError, UnsupportedError, VerifyError):  # through TVM's pass manager and back
    register_error(_error)

__all__ = [
    "ACCELERATOR", "integer_graph", "lower_int8", "partition", "partitions", "quantize",
    "read_function", "simulate", "target",
]  # fmt: skip
