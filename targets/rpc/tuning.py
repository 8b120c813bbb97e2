# SPDX-License-Identifier: Apache-2.0
"""The tuner's two benches on a device: candidates alone, and inside the running network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from codesign.errors import ToolNotFoundError
from codesign.targets.rpc.device import Device
from codesign.targets.tuning.contest import Contest, Watched
from codesign.targets.tuning.protocol import Ask, Probe, Reply
from codesign.targets.tuning.runner import IsolatedRunner

if TYPE_CHECKING:
    from codesign.targets.rpc.remote import RemoteTarget

TIMEOUT_SECONDS = 40.0
"""For a candidate, from compiling it to the last sample."""
SESSION_SECONDS = 100
"""A session begins no candidate when half of it is over, so that none is cut off."""
WAIT_SECONDS = 90.0
"""Less than a worker's start may take. A server of ours ends a session that hangs sooner."""


class DeviceWorker(IsolatedRunner):
    """A worker process whose candidates run on a device.

    Where a candidate ends the process or hangs, it is asked first whether the device is still
    there: if not, the candidate is not to blame. Raises ToolNotFoundError then.
    """

    def __init__(
        self, device: Device, compiler: str, timeout: float = TIMEOUT_SECONDS,
        module: str = "codesign.targets.rpc.bench",
    ) -> None:  # fmt: skip
        device = replace(
            device, session_s=SESSION_SECONDS, wait_s=min(device.wait_s, WAIT_SECONDS)
        )
        super().__init__(timeout, module, (json.dumps(asdict(device)), compiler))

    def measure(self, request: Ask) -> Reply:
        """The worker's reply."""
        reply = super().measure(request)
        if reply.gone:
            raise ToolNotFoundError(reply.error)
        if reply.error.startswith(("hangs", "crashed")):
            there = super().measure(Probe(request.machine))
            if there.error:
                raise ToolNotFoundError(there.error)
        return reply


@dataclass
class DeviceContest(Contest):
    """Networks that compete on a device, watched by its own clock."""

    target: RemoteTarget = field(kw_only=True)

    def _runner(self, executable: Any, calls: Mapping[str, Sequence[str]]) -> Watched:
        return self.target.placed(executable, self.graph, calls)

    def release(self) -> None:
        """End this process's session: a device serves one at a time."""
        self.target.remote.forget()
