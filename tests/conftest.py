# SPDX-License-Identifier: Apache-2.0
"""Rules for every test: where nothing may be missing, a skip is a failure.

A test whose data or tool is absent skips with a reason. With ``CODESIGN_NO_SKIP=1``, as in CI,
that counts as failed, so that coverage cannot be lost in silence.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

NO_SKIP = os.environ.get("CODESIGN_NO_SKIP", "0") not in ("", "0")
SAYS = "skipped, and CODESIGN_NO_SKIP forbids skips: "

collect_ignore = ["plugin_pkg"]  # a package of its own, installed by a test


def _reason(longrepr: object) -> str:
    return SAYS + (str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure; an expected failure (xfail) is none of our business."""
    report = yield
    if NO_SKIP and report.skipped and not hasattr(report, "wasxfail"):
        report.longrepr = _reason(report.longrepr)
        report.outcome = "failed"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself while it is collected."""
    report = yield
    if NO_SKIP and report.skipped:
        report.longrepr = _reason(report.longrepr)
        report.outcome = "failed"
    return report
