# SPDX-License-Identifier: Apache-2.0
"""codesign: exact hardware co-design of number formats, tiling and architecture."""

__version__ = "0.1.0"
