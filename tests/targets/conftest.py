# SPDX-License-Identifier: Apache-2.0
"""A tracker and a device's server on loopback, for the files that test what is behind them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from codesign.targets.rpc.serve import start_tracker
from tests.support.served import Served


@pytest.fixture(scope="module")
def tracker() -> Iterator[int]:
    started = start_tracker(port=19190, ports=100)
    yield started.port
    started.terminate()


@pytest.fixture(scope="module")
def served(tracker: int) -> Iterator[Served]:
    server = Served(tracker)
    yield server
    server.device.forget()
    server.kill()
