# SPDX-License-Identifier: Apache-2.0
"""Real devices through TVM's RPC tracker: networks run and are timed there (docs/rpc.md)."""

from __future__ import annotations

from codesign.targets.rpc.device import Device
from codesign.targets.rpc.remote import RemoteTarget

__all__ = ["Device", "RemoteTarget"]
