# SPDX-License-Identifier: Apache-2.0
"""Where a device is, and sessions on it."""

from __future__ import annotations

import gc
import queue
import socket
import threading
import time
import uuid
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codesign.errors import InputError, ToolNotFoundError
from codesign.targets.tools import require_tool

_CONNECT_SECONDS = 10.0
_OLD = 0.5
"""Part of its time after which a session is replaced, so that what is begun in it can end in it."""
_sessions: dict[tuple[str, int, str], Session] = {}
"""By tracker and key: a process has one session on a device, however it is to be used."""


@dataclass
class Session:
    """A process on the device that loads and runs libraries, and what it holds.

    All that lives there is kept here and nowhere else: the server serves the next session only
    when the last object of this one is gone.
    """

    rpc: Any
    """TVM's session."""
    until: float
    """When it is to be replaced."""
    held: dict[Hashable, Any] = field(default_factory=dict)

    def load(self, library: Path) -> Any:
        """Upload a library and load it; its module, which is not to be kept elsewhere."""
        key = "module", library
        if key not in self.held:
            name = f"{uuid.uuid4().hex}.so"  # a name of its own: loaders cache by name
            self.rpc.upload(str(library), target=name)
            self.held[key] = self.rpc.load_module(name)
        return self.held[key]


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

    def session(self) -> Session:
        """This process's session on the device: a server serves one at a time.

        One that is old is replaced. Raises ToolNotFoundError that says what is missing.
        """
        found = _sessions.get(self._place)
        if found is not None and time.monotonic() > found.until:
            found = None
            self.forget()
        if found is None:
            gc.collect()  # an earlier session that only a cycle of objects holds is still served
            session = self._connect()
            found = Session(session, time.monotonic() + _OLD * self.session_s)
            _sessions[self._place] = found
        return found

    @property
    def _place(self) -> tuple[str, int, str]:
        return self.host, self.port, self.key

    def forget(self) -> None:
        """End the session, or it failed: the next one is opened anew."""
        session = _sessions.pop(self._place, None)
        if session is not None:
            session.held.clear()

    def _connect(self) -> Any:
        require_tool("tvm")
        from tvm import rpc

        self._probe()
        try:
            tracker = rpc.connect_tracker(self.host, self.port)
            known = self._known(tracker.summary())
        except Exception as error:
            raise ToolNotFoundError(
                f"what answers at {self.address} is no RPC tracker ({first_line(error)}); start "
                "one with `python -m codesign.targets.rpc.serve tracker`"
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
            raise lost(self, first_line(answer)) from answer
        return answer


def _registered(info: dict[str, Any]) -> bool:
    return int(info.get("free", 0)) > 0


def lost(device: Device, why: str, doing: str = "") -> ToolNotFoundError:
    """The error of a device that went away."""
    return ToolNotFoundError(
        f"device {device.key!r} at {device.address} vanished{doing} ({why}); what was measured "
        "before is kept. Start its server again and repeat the command: it goes on from there"
    )


def first_line(error: BaseException) -> str:
    """What an error says, or its kind; TVM's come with stacks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
