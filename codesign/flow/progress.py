# SPDX-License-Identifier: Apache-2.0
"""Progress of long work: the flow says what it does, the caller decides how to show it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

Step = Callable[[int, int], None]
"""Called with (done, total) as work goes on."""


class Progress:
    """Takes the flow's messages; this one shows nothing, the command line's draws bars."""

    @contextlib.contextmanager
    def task(self, title: str) -> Iterator[Step]:
        """A piece of work that may take over a second; yields what to call as it goes on."""
        yield lambda done, total: None

    def note(self, text: str) -> None:
        """One finding worth a line."""


SILENT = Progress()
