# SPDX-License-Identifier: Apache-2.0
"""``python -m codesign``."""

from codesign.cli import entry

entry()
