# SPDX-License-Identifier: Apache-2.0
"""A server that outlives the programs it runs.

TVM's stops serving when a session's process ends by a crash, and lets one that hangs hold the
device until the session's time is over, though nobody waits for it any more.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import socket
import sys
import time
from typing import Any

_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 2.0
"""What a session's process has to end by itself once its client is gone."""


def survive() -> None:
    """To be called in the server's process before it serves."""
    from tvm.rpc import server

    server._serving = _serving


def _serving(sock: socket.socket, addr: Any, opts: dict[str, Any], load_library: str) -> None:
    """One session, in TVM's place."""
    from tvm.rpc import server
    from tvm.support import utils

    folder, before = utils.tempdir(), os.getcwd()
    os.chdir(folder.path)
    try:
        process = multiprocessing.Process(
            target=server._serve_loop, args=(sock, load_library, folder)
        )
        process.start()
        why = _wait(process, sock, opts.get("timeout"))
        if why:
            process.kill()
            process.join()
            print(f"session of {addr}: {why}, ended", file=sys.stderr, flush=True)
        elif process.exitcode:
            print(f"session of {addr}: its process ended, exit {process.exitcode}",
                  file=sys.stderr, flush=True)  # fmt: skip
    finally:
        os.chdir(before)
        sock.close()
        folder.remove()


def _wait(process: Any, sock: socket.socket, timeout: float | None) -> str:
    """Until the process ends (empty), or why it should be made to."""
    until = None if not timeout else time.monotonic() + timeout
    gone: float | None = None
    while True:
        process.join(_LOOK_SECONDS)
        now = time.monotonic()
        if not process.is_alive():
            return ""
        if until is not None and now > until:
            return f"still running after {timeout:g} s"
        if gone is None and _closed(sock):
            gone = now
        if gone is not None and now > gone + _GRACE_SECONDS:
            return "its client is gone"


def _closed(sock: socket.socket) -> bool:
    """Whether the other side has hung up; what it sent stays for the session's process."""
    if not select.select([sock], [], [], 0)[0]:
        return False
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
