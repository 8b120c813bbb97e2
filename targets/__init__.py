# SPDX-License-Identifier: Apache-2.0
"""What a network is built for: the registry of targets.

A target turns a graph into files that run (``Target.build``), runs them (``Target.load``) and
measures them. Third parties add targets through the entry point ``codesign.targets``; a user
adds a board by a TOML file (``codesign.targets.arm.board``).
"""

from codesign.targets.boards import TargetRegistry

TARGETS = TargetRegistry(
    "target",
    "codesign.targets",
    {
        "host": "codesign.targets.host:HostTarget",
        "rpi3": "codesign.targets.arm:rpi3",
        "rpi4": "codesign.targets.arm:rpi4",
        "rpi5": "codesign.targets.arm:rpi5",
        "zynq-ps-a53": "codesign.targets.arm:zynq_ps_a53",
        "cortex-a55": "codesign.targets.arm:cortex_a55",
    },
)
"""Target name to its class; ``TARGETS.load("host")()`` is a target with default options."""
