# SPDX-License-Identifier: Apache-2.0
"""Synthesis, place and route, bitstreams, and the hand-over to Vivado."""
