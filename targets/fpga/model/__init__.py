# SPDX-License-Identifier: Apache-2.0
"""The commands in NumPy: exact results, races, cycles. The golden of the hardware."""
