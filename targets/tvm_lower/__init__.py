# SPDX-License-Identifier: Apache-2.0
"""Lowering of IR graphs to TVM Relax modules with TensorIR kernels of our own.

``codesign.targets.tvm_lower.groups`` splits a graph into kernels (no TVM needed);
``lower`` writes one scheduled TensorIR function a kernel; ``compile`` makes an executable.
"""
