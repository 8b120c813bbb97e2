# SPDX-License-Identifier: Apache-2.0
"""FPGA accelerators: generated hardware, its commands, simulation and builds."""
