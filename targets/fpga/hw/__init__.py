# SPDX-License-Identifier: Apache-2.0
"""The accelerator's hardware in Amaranth. ``docs/accelerator.md`` says what it does."""
