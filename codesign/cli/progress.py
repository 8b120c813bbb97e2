# SPDX-License-Identifier: Apache-2.0
"""Progress bars on stderr for whatever the flow says takes long."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from codesign.flow.progress import Progress, Step


class RichProgress(Progress):
    """Draws a bar for each task on a terminal; prints one line a task otherwise."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def task(self, title: str) -> Iterator[Step]:
        """A bar that goes away when the task is done."""
        if not sys.stderr.isatty():
            self._console.print(f"{title} …", markup=False)
            yield lambda done, total: None
            return
        from rich import progress as bars

        with bars.Progress(
            bars.SpinnerColumn(),
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
            console=self._console,
            transient=True,
        ) as shown:
            bar = shown.add_task(title, total=None)
            yield lambda done, total: shown.update(bar, completed=done, total=total)

    def note(self, text: str) -> None:
        """One line."""
        self._console.print(text, markup=False)
