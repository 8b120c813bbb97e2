# SPDX-License-Identifier: Apache-2.0
"""Start a tracker or a device's server.

    python -m codesign.targets.rpc.serve tracker [--host 127.0.0.1] [--port 9190]
    python -m codesign.targets.rpc.serve server --tracker HOST:PORT --key rpi4 [--host 127.0.0.1]

TVM's RPC has no authentication: whoever reaches the port runs programs as this user. So both
listen on loopback unless told otherwise; use an SSH tunnel between machines (docs/rpc.md).
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from codesign.targets.pool import calm_pool
from codesign.targets.rpc.surviving import survive

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PORT = 9190


def warning(host: str) -> str | None:
    """What to say about listening on ``host``; None for loopback."""
    if host in LOOPBACK:
        return None
    return (
        f"listening on {host}: TVM's RPC asks for no password, and everybody who reaches this "
        "port can run any program as this user. Prefer 127.0.0.1 and an SSH tunnel."
    )


def start_tracker(host: str = "127.0.0.1", port: int = PORT, ports: int = 1) -> Any:
    """A tracker on the first free port of ``ports``; it has ``port`` and ``terminate()``."""
    from tvm.rpc.tracker import Tracker

    return Tracker(host=host, port=port, port_end=port + ports, silent=True)


def start_server(
    tracker: tuple[str, int], key: str, host: str = "127.0.0.1", port: int = 9090, ports: int = 100
) -> Any:
    """A device's server that registers under ``key``; it has ``port`` and ``terminate()``."""
    from tvm.rpc.server import Server

    calm_pool()
    return Server(
        host=host, port=port, port_end=port + ports, key=key, tracker_addr=tracker, silent=True,
        server_init_callback=survive,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted."""
    given = _parser().parse_args(arguments)
    if text := warning(given.host):
        print(f"warning: {text}", file=sys.stderr, flush=True)
    if given.what == "tracker":
        served = start_tracker(given.host, given.port, given.ports)
    else:
        host, _, port = given.tracker.rpartition(":")
        if not host or not port.isdigit():
            print(f"--tracker {given.tracker!r}: expected HOST:PORT", file=sys.stderr)
            return 2
        served = start_server((host, int(port)), given.key, given.host, given.port, given.ports)
    print(f"{given.what} on {given.host}:{served.port}", flush=True)
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    done.wait()
    served.terminate()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m codesign.targets.rpc.serve")
    kinds = parser.add_subparsers(dest="what", required=True)
    tracker = kinds.add_parser("tracker", help="where devices register")
    server = kinds.add_parser("server", help="runs on the device")
    for kind, port, ports in ((tracker, PORT, 1), (server, 9090, 100)):
        kind.add_argument("--host", default="127.0.0.1", help="address to listen on")
        kind.add_argument("--port", type=int, default=port)
        kind.add_argument("--ports", type=int, default=ports, help="how many ports to try")
    server.add_argument("--tracker", required=True, metavar="HOST:PORT")
    server.add_argument("--key", required=True, help="what this device is called, e.g. rpi4")
    return parser


if __name__ == "__main__":
    sys.exit(main())
