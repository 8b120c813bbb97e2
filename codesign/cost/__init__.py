# SPDX-License-Identifier: Apache-2.0
"""What a choice costs: pure integer functions for cycles, traffic, resources and energy.

Everything here is *modelled*; the FPGA target calibrates it against simulation and synthesis.
"""
