# SPDX-License-Identifier: Apache-2.0
"""Measures candidates in another process, which may crash or hang without harm."""

from __future__ import annotations

import contextlib
import pickle
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO, Any

from codesign.targets.tuning.protocol import Ask, Reply

TIMEOUT_SECONDS = 30.0
START_SECONDS = 120.0
"""The first reply takes longer: the process imports TVM."""


class IsolatedRunner:
    """A worker process, started when needed and again after a crash; use as a context."""

    def __init__(
        self, timeout: float = TIMEOUT_SECONDS,
        module: str = "codesign.targets.tuning.worker", arguments: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.timeout, self.module, self.arguments = timeout, module, tuple(arguments)
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._fresh = True

    def __enter__(self) -> IsolatedRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def measure(self, request: Ask) -> Reply:
        """The worker's reply; a reply with ``error`` if it crashed, hung or refused."""
        process = self._running()
        assert process.stdin is not None
        limit = START_SECONDS if self._fresh else self.timeout
        try:
            pickle.dump(request, process.stdin)
            process.stdin.flush()
            reply = self._reply(process, time.monotonic() + limit)
        except TimeoutError:
            self.close()
            return Reply((), "", f"hangs: no reply within {limit:g} s")
        except (OSError, EOFError, pickle.UnpicklingError):
            process.wait()
            code, said = process.returncode, self._last_words()
            self.close()
            return Reply((), "", f"crashed: exit {code}{said}")
        self._fresh = False
        return reply

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module, *self.arguments], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=self._errors, bufsize=0,
            )  # fmt: skip
            self._fresh = True
        return self._process

    def _reply(self, process: subprocess.Popen[bytes], until: float) -> Reply:
        assert process.stdout is not None
        data = b""
        while True:
            left = until - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                raise TimeoutError
            part = process.stdout.read(1 << 16)
            if not part:
                raise EOFError
            data += part
            with contextlib.suppress(EOFError, pickle.UnpicklingError):
                reply: Any = pickle.loads(data)
                if isinstance(reply, Reply):
                    return reply

    def _last_words(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f" ({lines[-1][:200]})" if lines else ""

    def close(self) -> None:
        """End the worker."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        if self._errors is not None:
            self._errors.close()
        self._process = self._errors = None
