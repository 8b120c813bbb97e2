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
        "ultra96": "codesign.targets.fpga:board_ultra96",
        "kv260": "codesign.targets.fpga:board_kv260",
        "zcu102": "codesign.targets.fpga:board_zcu102",
        "pynq-z2": "codesign.targets.fpga:board_pynq_z2",
        "zedboard": "codesign.targets.fpga:board_zedboard",
        "arty-a7-100": "codesign.targets.fpga:board_arty_a7_100",
        "ulx3s-85f": "codesign.targets.fpga:board_ulx3s_85f",
    },
)
"""Target name to its class; ``TARGETS.load("host")()`` is a target with default options."""
