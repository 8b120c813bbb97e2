# SPDX-License-Identifier: Apache-2.0
"""The accelerator simulated cycle by cycle, with a model of its memory."""
