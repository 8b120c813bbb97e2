# SPDX-License-Identifier: Apache-2.0
"""Where a device is, and sessions on it."""

from __future__ import annotations

import gc
import queue
import socket
import threading
from dataclasses import dataclass
from typing import Any

from codesign.errors import InputError, ToolNotFoundError
from codesign.targets.tools import require_tool

_CONNECT_SECONDS = 10.0
_sessions: dict[Device, Any] = {}


@dataclass(frozen=True)
class Device:
    """A device that a tracker knows under a key."""

    host: str
    port: int
    key: str
    session_s: int = 120
    """The server ends a session that takes longer: a hanging program does not hold the board."""
    wait_s: float = 60.0
    """How long to wait for a device that others use."""

    @classmethod
    def parse(cls, address: str, key: str | None) -> Device:
        """The device behind ``--rpc host:port --rpc-key KEY``; raises InputError."""
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise InputError(f"--rpc {address!r}: expected the tracker's HOST:PORT")
        if not key:
            raise InputError(f"--rpc {address}: name the device with --rpc-key, e.g. rpi4")
        return cls(host.strip("[]"), int(port), key)

    @property
    def address(self) -> str:
        """HOST:PORT of the tracker."""
        return f"{self.host}:{self.port}"

    def session(self) -> Any:
        """This process's session on the device: a server serves one at a time.

        Raises ToolNotFoundError that says what is missing.
        """
        if self not in _sessions:
            gc.collect()  # an earlier session that only a cycle of objects holds is still served
            _sessions[self] = self._connect()
        return _sessions[self]

    def forget(self) -> None:
        """The session failed: the next one is opened anew."""
        _sessions.pop(self, None)

    def _connect(self) -> Any:
        require_tool("tvm")
        from tvm import rpc

        self._probe()
        try:
            tracker = rpc.connect_tracker(self.host, self.port)
            known = self._known(tracker.summary())
        except Exception as error:
            raise ToolNotFoundError(
                f"what answers at {self.address} is no RPC tracker ({_first(error)}); start one "
                "with `python -m codesign.targets.rpc.serve tracker`"
            ) from error
        if self.key not in known:
            found = ", ".join(sorted(known)) or "none"
            raise ToolNotFoundError(
                f"the tracker at {self.address} has no device {self.key!r} (registered: {found}); "
                f"on the device start `python -m codesign.targets.rpc.serve server --tracker "
                f"HOST:{self.port} --key {self.key}`"
            )
        return self._request(tracker)

    def _probe(self) -> None:
        """Find out quickly whether anybody answers: TVM itself retries for minutes."""
        try:
            socket.create_connection((self.host, self.port), _CONNECT_SECONDS).close()
        except OSError as error:
            raise ToolNotFoundError(
                f"no RPC tracker answers at {self.address} ({error.strerror or error}); start one "
                "with `python -m codesign.targets.rpc.serve tracker`, or open the SSH tunnel to it"
            ) from error

    @staticmethod
    def _known(summary: dict[str, Any]) -> set[str]:
        queues = {key for key, info in summary["queue_info"].items() if _registered(info)}
        servers = {str(item["key"]).removeprefix("server:") for item in summary["server_info"]}
        return queues | servers

    def _request(self, tracker: Any) -> Any:
        """Ask in a thread of its own: a request blocks for as long as the device is in use."""
        answers: queue.Queue[Any] = queue.Queue()

        def ask() -> None:
            try:
                answers.put(tracker.request(self.key, session_timeout=self.session_s, max_retry=1))
            except Exception as error:
                answers.put(error)

        threading.Thread(target=ask, daemon=True).start()
        try:
            answer = answers.get(timeout=self.wait_s)
        except queue.Empty:
            raise ToolNotFoundError(
                f"device {self.key!r} at {self.address} gave no session in {self.wait_s:g} s: it "
                "is used by others or was switched off; try again"
            ) from None
        if isinstance(answer, Exception):
            raise lost(self, _first(answer)) from answer
        return answer


def _registered(info: dict[str, Any]) -> bool:
    return int(info.get("free", 0)) > 0


def lost(device: Device, why: str, doing: str = "") -> ToolNotFoundError:
    """The error of a device that went away."""
    return ToolNotFoundError(
        f"device {device.key!r} at {device.address} vanished{doing} ({why}); what was measured "
        "before is kept. Start its server again and repeat the command: it goes on from there"
    )


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
