# SPDX-License-Identifier: Apache-2.0
"""Why a design is what it is: limits that bind and what more of each is worth, and what the next
best format of every layer would cost. Every figure is a solve of its own, within a time limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codesign.errors import InputError
from codesign.flow.joint import explain_design
from codesign.flow.store import read_json, write_json
from codesign.flow.tables import limits, to_problem
from codesign.solvers.explain import explain as explain_problem

if TYPE_CHECKING:
    from codesign.flow.choose import Session

FILE = "explain.json"
FORMAT = "codesign-explanation/1"


def explain(session: Session, loss_limit: Decimal | None, out: Path) -> None:
    """Write ``explain.json`` of the session's last answer, in at most about ``--explain`` seconds.

    No file where the user wants none, or where the answer was not proven best.
    """
    seconds = session.options.explain
    (out / FILE).unlink(missing_ok=True)
    if not seconds:
        return
    with session.progress.task(f"Explaining the choice, at most {seconds:g} s"):
        try:
            data = _data(session, loss_limit, seconds)
        except InputError:  # time ended before the choice was proven best: nothing to explain
            return
    head = {"format": FORMAT, "input_digest": session.prepared.input_digest}
    write_json(out / FILE, {**head, **data})


def _data(session: Session, loss_limit: Decimal | None, seconds: float) -> dict[str, Any]:
    tables, options = session.tables, session.options
    if session.joint is not None:
        asked = limits(tables, options, loss_limit)
        kept = {name: value for name, value in session.joint.limits.items() if name != "loss"}
        if "loss" in asked:  # the last solve may have been under another one
            kept["loss"] = floor(session.joint.units("loss", asked["loss"]))
        found = explain_design(replace(session.joint, limits=kept), time_limit=seconds)
        return {
            "limits": [*(x.text for x in found.limits), *(x.text for x in found.capacities)],
            "layers": [item.text for item in found.layers],
            "unit": found.unit,
            "kind": "modelled",
        }
    problem = to_problem(tables, options, loss_limit)
    # one more of a hundred parts, as units of a byte or a millisecond would say little
    least = Decimal("1e-6")
    units = {x.metric: max(round(Decimal(x.value) / 100, 6), least) for x in problem.limits}
    plain = explain_problem(problem, options.solver, seconds, units=units)
    return {
        "limits": [item.text for item in plain.limits],
        "layers": [item.text for item in plain.options],
        "unit": "",
        "kind": "of the table at the end of the search",
    }


def explanation(folder: Path, input_digest: str) -> Mapping[str, Any] | None:
    """What was written for this very design; None where there is nothing."""
    if not (folder / FILE).is_file():
        return None
    data = read_json(folder / FILE, FORMAT, "codesign design NETWORK --out DIR")
    return data if data.get("input_digest") == input_digest else None
