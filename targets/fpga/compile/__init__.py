# SPDX-License-Identifier: Apache-2.0
"""From an integer network and an accelerator to commands, a memory image and a layout.

``compile_network`` does all of it; ``docs/fpga.md`` explains the steps.
"""

from codesign.targets.fpga.compile.program import Program, Segment
from codesign.targets.fpga.compile.run import compile_network

__all__ = ["Program", "Segment", "compile_network"]
