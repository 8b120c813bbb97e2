# SPDX-License-Identifier: Apache-2.0
"""A device's server on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from codesign.targets.rpc import Device

KEY = "loopback"


class Served:
    """A server in a process group of its own, so that all of it can be killed."""

    def __init__(self, tracker: int) -> None:
        self.device = Device("127.0.0.1", tracker, KEY, wait_s=10)
        self.start()

    def start(self) -> None:
        """Start it, again after a ``kill``."""
        command = [
            sys.executable, "-m", "codesign.targets.rpc.serve", "server", "--port", "19290",
            "--tracker", self.device.address, "--key", KEY,
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().strip()
        self._registered()

    def _registered(self) -> None:
        from tvm import rpc

        for _ in range(100):
            summary = rpc.connect_tracker("127.0.0.1", self.device.port).summary()
            if KEY in {str(s["key"]).removeprefix("server:") for s in summary["server_info"]}:
                return
            time.sleep(0.2)
        raise AssertionError("the server never registered")

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
