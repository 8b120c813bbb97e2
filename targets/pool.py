# SPDX-License-Identifier: Apache-2.0
"""How TVM's own threads behave in processes that run networks of ours."""

from __future__ import annotations

import os

SPINS = "2000"
"""TVM's idle threads yield so often before they sleep. 300,000 times, as TVM has it, are minutes
where other programs keep the cores busy, and a process ends after them."""


def calm_pool() -> None:
    """To be called before TVM's pool starts; what the user has set stays."""
    # else TVM binds this thread to one core, and with it every process started later
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", SPINS)
