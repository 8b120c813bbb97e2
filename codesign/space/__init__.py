# SPDX-License-Identifier: Apache-2.0
"""What may be chosen: devices, accelerators, layers with their shapes, mappings."""
