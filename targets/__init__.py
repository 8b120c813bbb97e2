# SPDX-License-Identifier: Apache-2.0
"""What a network is built for: the registry of targets.

A target turns a graph into files that run (``Target.build``), runs them (``Target.load``) and
measures them. Third parties add targets through the entry point ``codesign.targets``.
"""

from codesign.registry import Registry

TARGETS = Registry("target", "codesign.targets", {"host": "codesign.targets.host:HostTarget"})
"""Target name to its class; ``TARGETS.load("host")()`` is a target with default options."""
