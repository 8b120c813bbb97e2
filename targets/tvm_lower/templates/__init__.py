# SPDX-License-Identifier: Apache-2.0
"""Templates: TensorIR of one kernel, written directly from a dot product and a tile."""
